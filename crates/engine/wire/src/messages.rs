//! The messages, as the programs see them.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use pserver_events::Histogram;
pub use pserver_run::member::{
    CheckpointRequest, FollowerId, Member, Refusal, Registered, Registration, SECRET_BYTES, Secret,
    WorkerId,
};
pub use pserver_run::request::{Goodbye, Losses, Pull, Push, Verdict};
pub use pserver_run::status::{Status, WorkerStatus};
use pserver_run::{GlobalStep, StateDigest, TowerStep};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::gradient_slot::Generation;

/// Longest name that a message may carry, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Version of the protocol. A server and a worker of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 6;

/// A message that is not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A part without which the message means nothing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field of another size.
    #[error("{field} has {found} bytes, expected {expected}")]
    Size {
        /// Name of the field.
        field: &'static str,
        /// Its size.
        found: usize,
        /// The size it should have.
        expected: usize,
    },
    /// A field whose value is outside its range.
    #[error("{field}: {reason}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A new secret, from the system's random numbers.
///
/// # Errors
///
/// If the system has none.
pub fn random_secret() -> io::Result<Secret> {
    let mut secret = [0; SECRET_BYTES];
    getrandom(&mut secret, GetRandomFlags::empty())?;
    Ok(Secret(secret))
}

/// What somebody who runs a server tells it to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Write a checkpoint now.
    SaveCheckpoint,
    /// Complete the step under way, save and leave.
    Drain,
    /// Save what is complete, and leave.
    Stop,
}

/// The answer to a worker that asks to share memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedMemory {
    /// To be opened, if the worker is on the server's host.
    Offered {
        /// The state file.
        state_path: PathBuf,
        /// The worker's [slot](crate::gradient_slot).
        slot_path: PathBuf,
    },
    /// The server has none to share.
    Refused {
        /// For people.
        reason: String,
    },
    /// The server does not know this member: register again.
    Unregistered,
}

/// The answer to a worker that has opened the memory it was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// From here on it is used.
    Attached,
    /// It is not the memory that was offered, or the server has not enough of it.
    Refused {
        /// For people.
        reason: String,
    },
    /// The server does not know this member: register again.
    Unregistered,
}

/// The answer to a [`Pull`].
#[derive(Clone, Debug, PartialEq)]
pub enum Assignment {
    /// Compute this.
    Work(Work),
    /// Nothing to do yet: ask again.
    Wait,
    /// The run is over for this worker.
    Goodbye(Goodbye),
    /// The server does not know this member: register again.
    Unregistered,
}

/// One tower step to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// What to compute.
    pub tower_step: TowerStep,
    /// Digest of the state whose variables the gradient is to be taken at.
    pub state_digest: StateDigest,
    /// Where those variables are.
    pub variables: Delivery,
    /// How many gradients of this tower step came before and did not settle it; the push returns it.
    pub attempt: u32,
    /// The step under which a summary of this tower step would be kept, if one is wanted.
    pub summary_step: Option<GlobalStep>,
}

/// How variables get to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// It holds them already.
    Held,
    /// They are sent: little-endian f32, all end to end. At a client they begin on a 64-byte boundary, as
    /// `pserver_state::Values` do.
    Sent(Bytes),
    /// They are in the state file that the server shares, in the state of this sequence number.
    InStateFile {
        /// The number.
        sequence: u64,
    },
}

/// The answer to a [`CheckpointRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointReply {
    /// This is the newest.
    Checkpoint {
        /// Its step.
        global_step: GlobalStep,
        /// The file.
        file: Bytes,
    },
    /// There is none yet: ask again.
    Wait,
    /// The run is over, and there will be none.
    Goodbye(Goodbye),
}

/// A place in a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerPosition {
    /// Number of the ledger, if one is known.
    pub ledger: Option<u64>,
    /// Bytes before the place.
    pub offset: u64,
}

/// A part of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerPart {
    /// Number of the ledger.
    pub ledger: u64,
    /// Bytes before the part.
    pub offset: u64,
    /// The part, which may begin and end inside a line; empty if nothing new was written for a while.
    pub bytes: Bytes,
    /// Bytes of the ledger so far.
    pub size_bytes: u64,
}

impl LedgerPart {
    /// Where the part ends.
    #[must_use]
    pub fn end(&self) -> LedgerPosition {
        LedgerPosition {
            ledger: Some(self.ledger),
            offset: self.offset.saturating_add(self.bytes.len() as u64),
        }
    }
}

/// Gradients, as a worker hands them in.
#[derive(Clone, Debug, PartialEq)]
pub enum Gradients {
    /// They are sent: little-endian f32, all variables end to end, in one part or several that follow each other.
    Sent(Vec<Bytes>),
    /// They are in the worker's slot.
    InSlot(Generation),
}

/// What a worker does after a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It pulls, holding the variables of the gradient, and wants both answers together.
    Pull,
    /// It asks for work in a request of its own, or leaves.
    Nothing,
}

/// The answer to a [`Push`].
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// To the push.
    pub verdict: Verdict,
    /// To the pull that came [with it](Then::Pull); `None` if the worker has to pull itself, as after all but an
    /// accepted push.
    pub next: Option<Assignment>,
}

/// Layers whose activations are summarised: conv1, conv2, local3, local4 and softmax_linear.
pub const NUM_LAYERS: usize = 5;

/// Images in a summary, at most.
pub const MAX_SUMMARY_IMAGES: usize = 3;

/// Height and width of an image in a summary.
pub const SUMMARY_IMAGE_SIZE: u32 = 24;

/// Bytes of an image in a summary: `[24, 24, 3]`, red, green and blue.
pub const SUMMARY_IMAGE_BYTES: usize = 3 * (SUMMARY_IMAGE_SIZE * SUMMARY_IMAGE_SIZE) as usize;

/// What only the worker of a tower step knows, for people to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct TowerSummary {
    /// That of the [`Work`].
    pub summary_step: GlobalStep,
    /// Of each layer, in order.
    pub activations: [Activations; NUM_LAYERS],
    /// The first distorted images of the batch, each of [`SUMMARY_IMAGE_BYTES`].
    pub images: Vec<Bytes>,
}

/// The outputs of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Activations {
    /// How they are distributed.
    pub histogram: Histogram,
    /// Share of them that are zero.
    pub sparsity: f32,
}
