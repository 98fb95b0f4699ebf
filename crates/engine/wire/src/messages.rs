//! The messages, as the programs see them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use pserver_events::Histogram;
use pserver_run::{GlobalStep, Numerics, RunConfig, StateDigest, Tower, TowerStep};
use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq;

use crate::gradient_slot::Generation;

/// Longest name that a message may carry, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Version of the protocol. A server and a worker of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 5;

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

/// Number of a worker, given by the server, in order of registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes of a [`Secret`]: nobody guesses 128 bits.
pub const SECRET_BYTES: usize = 16;

/// What the server tells a worker alone when it registers. A request that shows it comes from that worker.
#[derive(Clone, Copy)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl Secret {
    /// A new one, from the system's random numbers.
    ///
    /// # Errors
    ///
    /// If the system has none.
    pub fn random() -> io::Result<Self> {
        let mut secret = [0; SECRET_BYTES];
        getrandom(&mut secret, GetRandomFlags::empty())?;
        Ok(Secret(secret))
    }
}

/// Takes the same time wherever the two differ, so that no guess can be improved upon.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A worker's membership; every request after registration carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The worker's number. Others know it too.
    pub worker: WorkerId,
    /// Shows that the request is this worker's. Each registration gets another.
    pub secret: Secret,
}

/// What a worker says of itself when it registers.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// [`PROTOCOL_VERSION`] of the worker's program.
    pub protocol_version: u32,
    /// Fingerprint of its layout.
    pub layout_fingerprint: u64,
    /// SHA-256 that identifies the data set it opened.
    pub data_digest: [u8; 32],
    /// What it computes with.
    pub numerics: Numerics,
    /// For people: host and process.
    pub name: String,
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// To be carried by every later request.
    pub member: Member,
    /// The worker is given up after this long without a sign of life.
    pub lease: Duration,
}

/// Why a worker cannot take part. Trying again will not change it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The programs are of different releases.
    #[error(
        "the worker speaks protocol {worker}, the server {server}: use programs of one release"
    )]
    Protocol {
        /// Of the worker.
        worker: u32,
        /// Of the server.
        server: u32,
    },
    /// The models differ.
    #[error(
        "the worker's model has other variables than the server's: use programs of one release"
    )]
    Layout,
    /// The data sets differ.
    #[error("the worker's data set is not {expected}, which the run trains on")]
    DataSet {
        /// Name of the run's data set.
        expected: String,
    },
    /// The gradients would differ in their last bits from those of the other workers.
    #[error(
        "the worker computes with {worker}, the run with {run}: its gradients would differ in the \
         last bits (start the server with --mixed to allow that)"
    )]
    Numerics {
        /// Of the worker.
        worker: Box<Numerics>,
        /// Of the run's first worker.
        run: Box<Numerics>,
    },
}

/// What whoever runs a server tells it to do.
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

/// A worker's request for work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pull {
    /// Who asks.
    pub member: Member,
    /// The state whose variables it still holds, if any: they need not be sent again.
    pub held: Option<StateDigest>,
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
    pub variables: Variables,
    /// How often the tower step was computed before, to no end; goes back with the push.
    pub attempt: u32,
    /// The step under which a summary of this tower step would be kept, if one is wanted.
    pub summary_step: Option<GlobalStep>,
}

/// How a worker comes by variables.
#[derive(Clone, Debug, PartialEq)]
pub enum Variables {
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

/// Why a run is over for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// The last step is done.
    Complete,
    /// The server was asked to stop; the run goes on when it is started again.
    Stopping,
    /// The loss or a gradient was not finite.
    Diverged,
    /// This worker computed something wrong, and takes no further part.
    Quarantined,
}

/// Number of a follower, which it draws at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FollowerId(pub u64);

/// A follower's request for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// Who asks.
    pub follower: FollowerId,
    /// Step of the newest that it has, if any: only a newer one is wanted.
    pub newer_than: Option<GlobalStep>,
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

/// The losses of one tower step: three terms and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean over the batch.
    pub cross_entropy: f32,
    /// Weight decay of `local3/weights`.
    pub local3_weight_loss: f32,
    /// Weight decay of `local4/weights`.
    pub local4_weight_loss: f32,
    /// The sum.
    pub total: f32,
}

/// What is said of the gradient of one tower step, which comes with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Push {
    /// Who computed it.
    pub member: Member,
    /// What was computed.
    pub tower_step: TowerStep,
    /// Digest of the state it was computed at.
    pub state_digest: StateDigest,
    /// The tower's losses.
    pub losses: Losses,
    /// Digest of the examples that were decoded.
    pub examples_digest: [u8; 16],
    /// Time the worker took to compute, without waiting.
    pub compute_time: Duration,
    /// That of the [`Work`].
    pub attempt: u32,
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
    /// It says in another request.
    Nothing,
}

/// The answer to a [`Push`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Counts, now or already before.
    Accepted,
    /// Of a step that is over: dropped.
    Stale {
        /// The server's step less the gradient's.
        staleness: u64,
    },
    /// Of a step the server has not reached, because it came back from an older checkpoint: dropped.
    Ahead {
        /// The server's step.
        global_step: GlobalStep,
    },
    /// Not finite or absurdly large: kept until the tower step has been computed once more.
    InDoubt,
    /// The run is over for this worker.
    Goodbye(Goodbye),
    /// The server does not know this member: register again.
    Unregistered,
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

/// How a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The run's configuration.
    pub run: RunConfig,
    /// Updates applied so far.
    pub global_step: GlobalStep,
    /// The step at which the run is complete.
    pub max_steps: GlobalStep,
    /// Mean total loss of the last step; `None` before the first.
    pub loss: Option<f32>,
    /// Of all towers together, over the last steps; 0 before the first.
    pub examples_per_sec: f64,
    /// What the run does, or waits for, in words.
    pub activity: String,
    /// The workers that hold a lease, by number.
    pub workers: Vec<WorkerStatus>,
}

/// How one worker stands.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: WorkerId,
    /// The name it gave.
    pub name: String,
    /// The tower it computes now; `None` while it waits.
    pub tower: Option<Tower>,
    /// Tower steps of this worker that counted.
    pub tower_steps: u64,
    /// Compute time of its last tower step.
    pub compute_time: Duration,
}
