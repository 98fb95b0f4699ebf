//! What happens to a run that is worth telling people, or keeping in its ledger.

use std::time::Duration;

use pserver_run::TowerStep;
use pserver_run::record::Record;

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The ledger keeps it, and people are told.
    Kept(Record),
    /// People are told, and nobody asks for it afterwards.
    Told(Notice),
}

/// Something that stands in no ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
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
