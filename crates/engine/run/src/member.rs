//! Who takes part in a run: workers, and followers of its checkpoints.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::config::Numerics;
use crate::step::GlobalStep;

/// Number of a worker, given by the server, in order of registration.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
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
    /// Version of the protocol that the worker's program speaks.
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
    /// The server drops the worker when its last heartbeat is this old.
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

/// The server does not wait for a follower whose last heartbeat is this old.
pub const FOLLOWER_LEASE: Duration = Duration::from_secs(15);

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
