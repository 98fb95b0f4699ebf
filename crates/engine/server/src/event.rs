//! What happens to a run that is worth telling people, or worth keeping in its ledger.

use std::time::{Duration, Instant};

use pserver_ledger::Record;
use pserver_ledger::record::Dropped;
use pserver_run::{GlobalStep, TowerStep};
use pserver_wire::messages::{TowerSummary, WorkerId};

use crate::summaries::UpdateSummary;
use crate::update::micros;

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

impl Event {
    /// What the ledger is to say of it; `None` for what people are told and nobody asks for afterwards. Commits have
    /// a way of their own.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        Some(match self {
            Event::Joined { who, numerics } => Record::Joined {
                worker: who.worker.0,
                name: who.name.clone(),
                numerics: numerics.clone(),
            },
            Event::Left(who) => Record::Left {
                worker: who.worker.0,
            },
            Event::Lost(who) => Record::Lost {
                worker: who.worker.0,
            },
            Event::Overdue {
                tower_step,
                slow,
                also_given_to,
            } => Record::Overdue {
                of: *tower_step,
                slow: slow.0,
                also_given_to: also_given_to.0,
            },
            Event::Dropped {
                tower_step,
                worker,
                reason,
            } => Record::Dropped {
                of: *tower_step,
                worker: worker.0,
                reason: *reason,
            },
            Event::InDoubt {
                tower_step,
                who,
                reason,
            } => Record::InDoubt {
                of: *tower_step,
                worker: who.worker.0,
                reason: reason.clone(),
            },
            Event::Audited {
                tower_step,
                workers: [first, second],
                equal,
            } => Record::Audited {
                of: *tower_step,
                workers: [first.worker.0, second.worker.0],
                equal: *equal,
            },
            Event::Quarantined { who, reason } => Record::Quarantined {
                worker: who.worker.0,
                reason: reason.clone(),
            },
            Event::StandsStill { waits_for } => Record::StoodStill {
                waits_for: waits_for.clone(),
            },
            Event::Suspended { pause } => Record::Suspended {
                pause_micros: micros(*pause),
            },
            Event::GoesOn { .. }
            | Event::Stalled { .. }
            | Event::Committed { .. }
            | Event::SummaryDue(_)
            | Event::TowerSummarised { .. }
            | Event::Diverged { .. } => return None,
        })
    }

    /// Whether it holds gradients, images or a state.
    fn is_large(&self) -> bool {
        matches!(self, Event::SummaryDue(_) | Event::TowerSummarised { .. })
    }
}

/// Events that wait to be told of.
const MAX_WAITING: usize = 1024;

/// Of these, those that are large.
const MAX_LARGE: usize = 2;

/// Events on their way to people. Telling may stand still, where nobody reads a log: the queue has an end,
/// and what finds no room in it stands in the ledger, where it belongs into one.
#[derive(Debug, Default)]
pub struct EventQueue {
    waiting: Vec<Event>,
    left_out: u64,
}

impl EventQueue {
    /// Adds an event, if there is room for it.
    pub fn push(&mut self, event: Event) {
        let num_large = || self.waiting.iter().filter(|event| event.is_large()).count();
        let has_room =
            self.waiting.len() < MAX_WAITING && (!event.is_large() || num_large() < MAX_LARGE);
        if has_room {
            self.waiting.push(event);
        } else {
            self.left_out += 1;
        }
    }

    /// What waits, and how many events found no room since the last call.
    pub fn take(&mut self) -> (Vec<Event>, u64) {
        let EventQueue { waiting, left_out } = std::mem::take(self);
        (waiting, left_out)
    }
}

#[cfg(test)]
mod tests {
    use pserver_events::Histogram;
    use pserver_wire::messages::Activations;

    use super::*;
    use crate::training::fixtures::some_time;

    #[test]
    fn events_that_nobody_takes_do_not_pile_up() {
        let summary = TowerSummary {
            summary_step: GlobalStep(0),
            activations: [(); 5].map(|()| Activations {
                histogram: Histogram::of(&[1.0]),
                sparsity: 0.5,
            }),
            images: Vec::new(),
        };
        let mut queue = EventQueue::default();
        for _ in 0..10 {
            queue.push(Event::TowerSummarised {
                at: some_time(),
                summary: Box::new(summary.clone()),
            });
        }
        let after = Duration::from_secs(1);
        for _ in 0..2 * MAX_WAITING {
            queue.push(Event::GoesOn { after });
        }
        let (waiting, left_out) = queue.take();
        assert_eq!(waiting.len(), MAX_WAITING);
        let large = waiting.iter().filter(|event| event.is_large());
        assert_eq!(large.count(), MAX_LARGE);
        assert_eq!(left_out as usize, 10 + MAX_WAITING);
        let (waiting, left_out) = queue.take();
        assert!(waiting.is_empty() && left_out == 0);
    }
}
