//! Keeps the ledger: which event becomes which record, and when it was.

use std::time::{Duration, Instant};

use pserver_ledger::record::{Outcome, Unit};
use pserver_ledger::{LedgerError, LedgerFile, Line, Record};
use pserver_run::{GlobalStep, TowerStep};
use pserver_wire::messages::Goodbye;

use crate::event::Event;
use crate::update::micros;

/// A moment on the server's clock and on the calendar: from it follows the date of any other.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// On the server's clock.
    pub moment: Instant,
    /// The same, since 1970.
    pub since_1970: Duration,
}

impl Calendar {
    /// The same, but no earlier than a time in microseconds since 1970: what a run did before a restart
    /// was not later than what it does after it, though the clock was set back meanwhile.
    #[must_use]
    pub fn not_before(self, micros: u64) -> Self {
        Calendar {
            since_1970: self.since_1970.max(Duration::from_micros(micros)),
            ..self
        }
    }

    /// The date of a moment, in microseconds since 1970.
    #[must_use]
    pub fn micros(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.moment);
        micros(self.since_1970 + since)
    }
}

/// The ledger of a run, open for what happens next.
#[derive(Debug)]
pub struct Recorder {
    ledger: LedgerFile,
    calendar: Calendar,
}

impl Recorder {
    /// A recorder that writes to `ledger`.
    #[must_use]
    pub fn new(ledger: LedgerFile, calendar: Calendar) -> Self {
        Recorder { ledger, calendar }
    }

    /// The line that says that something happened at a moment.
    #[must_use]
    pub fn line(&self, now: Instant, record: Record) -> Line {
        Line {
            at_micros: self.calendar.micros(now),
            record,
        }
    }

    /// Appends a line.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Write`] if the disk is full or cannot be written.
    pub fn append(&mut self, line: &Line) -> Result<(), LedgerError> {
        self.ledger.append(line)
    }

    /// Appends what happened, if it belongs into a ledger.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Write`] if the disk is full or cannot be written.
    pub fn happened(&mut self, now: Instant, event: &Event) -> Result<(), LedgerError> {
        let Some(record) = record_of(event) else {
            return Ok(());
        };
        let line = self.line(now, record);
        self.append(&line)
    }

    /// Appends that a checkpoint was written.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Write`] if the disk is full or cannot be written.
    pub fn checkpoint(&mut self, now: Instant, global_step: GlobalStep) -> Result<(), LedgerError> {
        let line = self.line(now, Record::Checkpoint { global_step });
        self.append(&line)
    }

    /// Appends that the server leaves.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Write`] if the disk is full or cannot be written.
    pub fn end(
        &mut self,
        now: Instant,
        global_step: GlobalStep,
        goodbye: Goodbye,
    ) -> Result<(), LedgerError> {
        let outcome = match goodbye {
            Goodbye::Complete => Outcome::Complete,
            Goodbye::Diverged => Outcome::Diverged,
            Goodbye::Stopping | Goodbye::Quarantined => Outcome::Stopped,
        };
        let line = self.line(
            now,
            Record::End {
                global_step,
                outcome,
            },
        );
        self.append(&line)
    }
}

fn unit(of: TowerStep) -> Unit {
    Unit {
        step: of.global_step,
        tower: of.tower,
    }
}

/// The record of an event; `None` for what people are told and nobody asks for afterwards. Commits
/// have a way of their own.
fn record_of(event: &Event) -> Option<Record> {
    Some(match event {
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
            of: unit(*tower_step),
            slow: slow.0,
            also_given_to: also_given_to.0,
        },
        Event::Dropped {
            tower_step,
            worker,
            reason,
        } => Record::Dropped {
            of: unit(*tower_step),
            worker: worker.0,
            reason: *reason,
        },
        Event::InDoubt {
            tower_step,
            who,
            reason,
        } => Record::InDoubt {
            of: unit(*tower_step),
            worker: who.worker.0,
            reason: reason.clone(),
        },
        Event::Audited {
            tower_step,
            workers: [first, second],
            equal,
        } => Record::Audited {
            of: unit(*tower_step),
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
