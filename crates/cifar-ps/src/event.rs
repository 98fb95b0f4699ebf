//! What happens to a run that is worth telling people, or worth keeping in its ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cifar_ledger::record::Dropped;
use cifar_sequence::{GlobalStep, TowerStep};
use cifar_wire::messages::{TowerSummary, WorkerId};

use crate::summaries::UpdateSummary;
use crate::training::Snapshot;

/// A worker, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its number.
    pub worker: WorkerId,
    /// Its name: host and process.
    pub name: String,
}

/// Something that happened to a run.
#[derive(Debug)]
pub enum Event {
    /// A worker registered.
    Joined {
        /// The worker.
        who: Who,
        /// What it computes with.
        numerics: String,
    },
    /// A worker said that it leaves.
    Left(Who),
    /// A worker gave no sign of life for its lease; what it had goes to another.
    Lost(Who),
    /// A tower step takes far longer than usual, and is also given to an idle worker.
    Overdue {
        /// The tower step.
        tower_step: TowerStep,
        /// Who has it.
        slow: WorkerId,
        /// Who has it too now.
        also_given_to: WorkerId,
    },
    /// A gradient came that does not count.
    Dropped {
        /// Its tower step.
        tower_step: TowerStep,
        /// Who computed it.
        worker: WorkerId,
        /// Why.
        reason: Dropped,
    },
    /// A gradient looks wrong: its tower step is computed once more.
    InDoubt {
        /// Its tower step.
        tower_step: TowerStep,
        /// Who computed it.
        who: Who,
        /// What is wrong, in words.
        reason: String,
    },
    /// A tower step was computed twice, to compare.
    Audited {
        /// The tower step.
        tower_step: TowerStep,
        /// The two workers.
        workers: [Who; 2],
        /// Whether they came to the same bits.
        equal: bool,
    },
    /// A worker computed something wrong and takes no further part.
    Quarantined {
        /// The worker.
        who: Who,
        /// What it did, in words.
        reason: String,
    },
    /// No gradient has come for some seconds.
    StandsStill {
        /// Who is missing, and since when.
        waits_for: String,
    },
    /// A run that stood still goes on.
    GoesOn {
        /// How long it stood.
        after: Duration,
    },
    /// The run stood still, or had too few workers, for so long that it ends for now.
    Stalled {
        /// Who is missing, and since when.
        waits_for: String,
    },
    /// The server itself was suspended; leases are extended by this.
    Suspended {
        /// For how long.
        pause: Duration,
    },
    /// A step was applied.
    Committed {
        /// The step before the update.
        global_step: GlobalStep,
        /// Mean total loss over the gradients.
        loss: f32,
        /// Mean time of the last steps.
        step_time: Duration,
    },
    /// The state should be saved.
    CheckpointDue(Arc<Snapshot>),
    /// This update should be summarised for people to look at.
    SummaryDue(Box<UpdateSummary>),
    /// The worker of a tower step said what it alone knows.
    TowerSummarised {
        /// When it came.
        at: Instant,
        /// What it said.
        summary: Box<TowerSummary>,
    },
    /// Two workers came to a loss or gradient that is not finite or absurd, or a variable is not
    /// finite.
    Diverged {
        /// The tower step that showed it.
        tower_step: TowerStep,
        /// The name of the worker that computed it.
        worker: String,
        /// Its total loss.
        loss: f32,
    },
}
