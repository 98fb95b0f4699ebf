//! What is told of a run as it goes, and how it waits to be told.

use std::time::Duration;

use pserver_core::Fact;
use pserver_run::GlobalStep;
use pserver_run::record::Record;

use crate::summaries::Part;

/// Something that happened to a run.
#[derive(Debug)]
pub enum Event {
    /// As decided.
    Happened(Fact),
    /// A step was applied.
    Committed {
        /// The step before the update.
        global_step: GlobalStep,
        /// Mean total loss over the gradients.
        loss: f32,
        /// Mean time of the last steps.
        step_time: Duration,
    },
    /// There is something to be summarised.
    Summary(Part),
}

impl Event {
    /// What the ledger is to say of it, if anything. Commits have a way of their own.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Event::Happened(Fact::Kept(record)) => Some(record),
            _ => None,
        }
    }

    /// Whether it holds gradients, images or a state.
    fn is_large(&self) -> bool {
        matches!(self, Event::Summary(_))
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
    use pserver_core::Notice;

    use super::*;
    use crate::fixtures::{some_time, tower_summary};

    #[test]
    fn events_that_nobody_takes_do_not_pile_up() {
        let mut queue = EventQueue::default();
        for _ in 0..10 {
            let summary = Box::new(tower_summary(0, Vec::new()));
            queue.push(Event::Summary(Part::Tower(some_time(), summary)));
        }
        let after = Duration::from_secs(1);
        for _ in 0..2 * MAX_WAITING {
            let notice = Notice::GoesOn { after };
            queue.push(Event::Happened(Fact::Told(notice)));
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
