//! The records of a ledger and their text form: JSON, one record a line.
//!
//! Text in a record is [`printable()`] when it has been read. What workers call themselves is cleaned where it comes
//! in, but a ledger may be of an older release, or somebody else's.

use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::examples_digest::ExamplesDigest;
use crate::printable;
use crate::state_digest::StateDigest;
use crate::step::{GlobalStep, TowerStep};

/// Version of the form below; stands in every [`Start`].
pub const FORMAT_VERSION: u32 = 1;

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it happened, in microseconds since 1970.
    pub at_micros: u64,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A server started. The first record of a ledger is one.
    Start(Start),
    /// The run went back to an older state: what was committed after it no longer counts.
    Rewind(Rewind),
    /// A step was committed.
    Commit(Commit),
    /// A worker registered.
    Joined {
        /// Its number, counted from 0 at each start of the server.
        worker: u32,
        /// Its name: host and process.
        #[serde(deserialize_with = "printable::deserialize")]
        name: String,
        /// What it computes with.
        #[serde(deserialize_with = "printable::deserialize")]
        numerics: String,
    },
    /// A worker said that it leaves.
    Left {
        /// Its number.
        worker: u32,
    },
    /// A worker sent no heartbeat for its lease.
    Lost {
        /// Its number.
        worker: u32,
    },
    /// A tower step took far longer than usual, and was also given to an idle worker.
    Overdue {
        /// Step and tower.
        #[serde(flatten)]
        of: TowerStep,
        /// Who had it.
        slow: u32,
        /// Who had it too from then on.
        also_given_to: u32,
    },
    /// A gradient came that did not count.
    Dropped {
        /// Step and tower.
        #[serde(flatten)]
        of: TowerStep,
        /// Who had computed it.
        worker: u32,
        /// Why.
        reason: Dropped,
    },
    /// A gradient was not finite or absurdly large: the tower step is computed once more.
    InDoubt {
        /// Step and tower.
        #[serde(flatten)]
        of: TowerStep,
        /// Who had computed it.
        worker: u32,
        /// What was wrong with it, in words.
        #[serde(deserialize_with = "printable::deserialize")]
        reason: String,
    },
    /// A tower step was computed twice, to compare.
    Audited {
        /// Step and tower.
        #[serde(flatten)]
        of: TowerStep,
        /// The two workers.
        workers: [u32; 2],
        /// Whether they came to the same bits.
        equal: bool,
    },
    /// A worker computed something wrong and takes no further part.
    Quarantined {
        /// Its number.
        worker: u32,
        /// What it did, in words.
        #[serde(deserialize_with = "printable::deserialize")]
        reason: String,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Its step.
        global_step: GlobalStep,
    },
    /// No gradient came for some seconds.
    StoodStill {
        /// Who was missing, and since when, in words.
        #[serde(deserialize_with = "printable::deserialize")]
        waits_for: String,
    },
    /// The server itself was suspended; leases were extended by this time.
    Suspended {
        /// For how long.
        pause_micros: u64,
    },
    /// The server left.
    End {
        /// The step it left at.
        global_step: GlobalStep,
        /// How.
        outcome: Outcome,
    },
}

/// A server started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// [`FORMAT_VERSION`] of the server.
    pub format_version: u32,
    /// Version and commit of the server's program.
    #[serde(deserialize_with = "printable::deserialize")]
    pub version: String,
    /// The run's configuration.
    pub run: RunConfig,
    /// The step it begins or goes on with.
    pub global_step: GlobalStep,
    /// Digest of the state at that step.
    pub digest: StateDigest,
}

/// The run went back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rewind {
    /// The step it goes on with: commits of this step and later ones that stand above no longer
    /// count.
    pub to: GlobalStep,
    /// Digest of the state at that step.
    pub digest: StateDigest,
}

/// A step was committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The step, counted before the update.
    pub global_step: GlobalStep,
    /// Learning rate that was applied.
    pub learning_rate: f32,
    /// Mean total loss over the gradients.
    pub loss: f32,
    /// The gradients that were applied, in tower order.
    pub towers: Vec<TowerRecord>,
    /// Time from the commit before to the arrival of the last gradient; for the first commit of a
    /// start, from the moment that work was first given.
    pub gather_micros: u64,
    /// What the commit itself took.
    pub phases: Phases,
    /// Digest of the state after the update.
    pub digest: StateDigest,
}

/// A gradient that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TowerRecord {
    /// Step and tower.
    #[serde(flatten)]
    pub of: TowerStep,
    /// Who computed it.
    pub worker: u32,
    /// Digest of the examples that the worker decoded.
    pub examples: ExamplesDigest,
    /// Total loss.
    pub loss: f32,
    /// Euclidean norm of the gradient.
    pub norm: f32,
    /// From giving the tower step out to having its gradient.
    pub held_micros: u64,
    /// The part of it that the worker computed.
    pub compute_micros: u64,
    /// From having the gradient to having all that the step needed.
    pub waited_micros: u64,
    /// Updates between the variables it was taken at and its application; 0 but in asynchronous
    /// mode.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub staleness: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Time of each phase of a commit, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Mean, gradient descent and moving averages.
    pub apply_micros: u64,
    /// Digest of the new state.
    pub digest_micros: u64,
    /// The state into its file.
    pub write_micros: u64,
    /// The record of the commit before into the ledger: that of this one cannot be known yet.
    pub ledger_micros: u64,
}

/// Why a gradient did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// Its step was over.
    Stale,
    /// Another gradient of the same tower step had come before.
    Duplicate,
    /// The server had gone back to an older state meanwhile.
    Ahead,
    /// It was taken at other variables than those of its step.
    OtherState,
}

/// How a server left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The last step is done.
    Complete,
    /// It was asked to, or the run stood still.
    Stopped,
    /// The loss or a gradient was not finite, or absurdly large.
    Diverged,
}
