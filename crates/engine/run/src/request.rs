//! What workers ask of a server, and what it decides about that.

use std::time::Duration;

use crate::member::Member;
use crate::state_digest::StateDigest;
use crate::step::{GlobalStep, TowerStep};

/// Longest time the server may hold a pull that it has no work for.
pub const PULL_HOLD: Duration = Duration::from_secs(5);

/// A worker's request for work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pull {
    /// Who asks.
    pub member: Member,
    /// The state whose variables it still holds, if any: they need not be sent again.
    pub held: Option<StateDigest>,
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
    /// How many gradients of this tower step came before and did not settle it, as the work said.
    pub attempt: u32,
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
