//! A run that ends at the next good moment: what is under way is completed, and nothing else is begun.

use std::time::{Duration, Instant};

use pserver_run::Evidence;
use pserver_run::request::Goodbye;

use super::{Core, Phase};

/// How long a run that is to end may go on to complete the step that is under way.
pub(super) const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

impl<G: Evidence> Core<G> {
    /// Completes the step under way, in asynchronous mode the tower steps under way, and ends the run for
    /// now. Does so at once if nobody is at work, and after half a minute in any case.
    pub fn drain(&mut self, now: Instant) {
        if self.lifecycle.phase == Phase::Training {
            self.lifecycle
                .drain_until
                .get_or_insert(now + DRAIN_PATIENCE);
            self.end_drain(now);
        }
    }

    /// Whether nothing more is to be begun.
    pub(super) fn is_draining(&self) -> bool {
        self.lifecycle.drain_until.is_some()
    }

    /// A step was completed, in asynchronous mode a tower step.
    pub(super) fn drained_a_step(&mut self) {
        let is_last = !self.is_asynchronous() || self.step.towers.open().next().is_none();
        if self.is_draining() && is_last {
            self.lifecycle.phase = Phase::Closing(Goodbye::Stopping);
        }
    }

    /// Time passes, in which nobody may be at work any more.
    pub(super) fn end_drain(&mut self, now: Instant) {
        let is_at_work = |id| self.step.towers.held_by(id).is_some();
        let is_under_way = self.members.ids().any(is_at_work)
            || (self.step.aggregator.have() > 0 && self.num_workers() > 0);
        if self
            .lifecycle
            .drain_until
            .is_some_and(|until| now >= until || !is_under_way)
        {
            self.stop();
        }
    }
}
