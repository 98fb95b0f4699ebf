//! Which states are saved as checkpoints: one at a time, and of those that are due meanwhile the newest.
//!
//! A state that waits to be saved keeps its memory, a slot of the state file. A disk that is slower than
//! checkpoints are due so costs two slots, however slow it is, and not one for each.

use std::sync::Arc;

use pserver_run::GlobalStep;

use crate::snapshot::Snapshot;

/// What is saved, what is being saved, and what is to be saved next.
#[derive(Debug, Default)]
pub struct Saves {
    /// The step of the newest checkpoint, if there is one.
    saved: Option<GlobalStep>,
    under_way: Option<GlobalStep>,
    wanted: Option<Arc<Snapshot>>,
    left_out: u64,
}

impl Saves {
    /// The step of the newest checkpoint, if there is one.
    #[must_use]
    pub fn saved(&self) -> Option<GlobalStep> {
        self.saved
    }

    /// A state is to be saved. One before it that waits is left out.
    pub fn want(&mut self, snapshot: Arc<Snapshot>) {
        let step = |snapshot: &Snapshot| Some(snapshot.state.global_step);
        if step(&snapshot) <= self.saved.max(self.under_way) {
            return;
        }
        let is_older = |before: &Arc<Snapshot>| step(before) < step(&snapshot);
        self.left_out += u64::from(self.wanted.as_ref().is_some_and(is_older));
        self.wanted = Some(snapshot);
    }

    /// What is to be saved now, if anything; it is under way then until it has
    /// [finished](Self::finished).
    pub fn begin(&mut self) -> Option<Arc<Snapshot>> {
        if self.under_way.is_some() {
            return None;
        }
        let snapshot = self.wanted.take()?;
        self.under_way = Some(snapshot.state.global_step);
        Some(snapshot)
    }

    /// The checkpoint of a step is on the disk.
    pub fn finished(&mut self, step: GlobalStep) {
        self.under_way = None;
        self.saved = self.saved.max(Some(step));
    }

    /// Whether nothing is being saved or to be saved.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.wanted.is_none()
    }

    /// How many states were left out since the last call.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use pserver_run::{Layout, StateDigest};

    use super::*;
    use crate::fixtures::state_at;

    fn snapshot(step: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            state: state_at(&Layout::new(Vec::new()), step),
            digest: StateDigest(u128::from(step)),
        })
    }

    fn begin(saves: &mut Saves) -> Option<u64> {
        Some(saves.begin()?.state.global_step.0)
    }

    #[test]
    fn of_the_states_that_are_due_during_a_save_the_newest_is_saved_next() {
        let mut saves = Saves::default();
        let first = snapshot(1);
        saves.want(Arc::clone(&first));
        assert_eq!(begin(&mut saves), Some(1));
        let due: Vec<_> = (2..100).map(snapshot).collect();
        for snapshot in &due {
            saves.want(Arc::clone(snapshot));
            assert_eq!(begin(&mut saves), None, "one at a time");
        }
        let held = due.iter().filter(|due| Arc::strong_count(due) > 1);
        assert_eq!(held.count(), 1, "only the newest keeps its memory");
        assert_eq!(saves.take_left_out(), 97);
        saves.finished(GlobalStep(1));
        assert_eq!(begin(&mut saves), Some(99));
        saves.finished(GlobalStep(99));
        assert!(saves.is_idle());
        assert_eq!(saves.saved(), Some(GlobalStep(99)));
    }

    #[test]
    fn what_is_saved_or_being_saved_is_not_saved_again() {
        let mut saves = Saves::default();
        saves.finished(GlobalStep(5));
        saves.want(snapshot(5));
        assert!(saves.is_idle());
        saves.want(snapshot(6));
        assert_eq!(begin(&mut saves), Some(6));
        saves.want(snapshot(6));
        saves.finished(GlobalStep(6));
        assert!(saves.is_idle());
        assert_eq!(saves.take_left_out(), 0);
    }
}
