//! Which worker computes which tower step.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pserver_run::member::WorkerId;
use pserver_run::{GlobalStep, Tower, TowerStep};

/// Workers that may compute the same tower step at a time: the one that it was given to, and one
/// more once that is overdue.
const MAX_HOLDERS: usize = 2;

/// Who computes a tower step, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The worker.
    pub(crate) worker: WorkerId,
    /// When it was given the tower step.
    pub(crate) since: Instant,
}

/// What becomes of one tower step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    Open(Open),
    /// Its gradient is there.
    Done,
}

/// A tower step without a gradient that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Open {
    /// Who computes it, the first of them first; nobody where it is empty.
    pub(crate) holders: Vec<Holder>,
    /// Who has computed it already, and was not believed.
    pub(crate) answered: Vec<WorkerId>,
}

impl Open {
    /// How many gradients of it came before and did not settle it.
    pub(crate) fn attempt(&self) -> u32 {
        self.answered.len() as u32
    }
}

/// A tower step for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// What to compute.
    pub tower_step: TowerStep,
    /// How many gradients of it came before and did not settle it.
    pub attempt: u32,
    /// Who computes it too, but is overdue: the first gradient counts.
    pub slow: Option<WorkerId>,
}

/// The tower steps of the next update and who has them.
///
/// Pure. A worker has at most one tower step at a time; any worker may have any of them.
#[derive(Debug, Default)]
pub(crate) struct Assignments {
    slots: BTreeMap<TowerStep, Slot>,
    /// Who computed each tower last. A worker is given its former towers first, because it has
    /// prepared their next batches.
    former: BTreeMap<Tower, WorkerId>,
}

impl Assignments {
    /// Begins a step: its towers are free, and all that was open before is over.
    pub(crate) fn begin_step(&mut self, global_step: GlobalStep, num_towers: u32) {
        self.slots.clear();
        for tower in (0..num_towers).map(Tower) {
            self.open_one(TowerStep { global_step, tower });
        }
    }

    /// Adds a tower step that nobody has.
    pub(crate) fn open_one(&mut self, tower_step: TowerStep) {
        self.slots.insert(tower_step, Slot::Open(Open::default()));
    }

    /// Whether a tower step is among those of the next update.
    pub(crate) fn knows(&self, tower_step: TowerStep) -> bool {
        self.slots.contains_key(&tower_step)
    }

    /// Gives `worker` a tower step: the one it already has (it asks again because the answer was
    /// lost), else a free one, else one that another worker has had for longer than `overdue`;
    /// `None` if there is none.
    ///
    /// Where an answer was not believed, another worker is to give the next one;
    /// `everyone_answered` says whether there is nobody else to ask.
    pub(crate) fn assign(
        &mut self,
        now: Instant,
        worker: WorkerId,
        overdue: Option<Duration>,
        everyone_answered: impl Fn(&[WorkerId]) -> bool,
    ) -> Option<Assigned> {
        let may_take =
            |open: &Open| !open.answered.contains(&worker) || everyone_answered(&open.answered);
        let held = self.held_by(worker);
        let free = || self.free(worker, &may_take).map(|step| (step, None));
        let late = || self.overdue(now, overdue?, &may_take);
        let (tower_step, slow) = match held {
            Some(tower_step) => (tower_step, None),
            None => free().or_else(late)?,
        };
        let Some(Slot::Open(open)) = self.slots.get_mut(&tower_step) else {
            return None;
        };
        if held.is_none() {
            open.holders.push(Holder { worker, since: now });
        }
        Some(Assigned {
            tower_step,
            attempt: open.attempt(),
            slow,
        })
    }

    /// A tower step that nobody has: of a former tower of `worker`, else of a tower without a
    /// former worker, else any.
    fn free(&self, worker: WorkerId, may_take: &impl Fn(&Open) -> bool) -> Option<TowerStep> {
        let free = || {
            self.open()
                .filter(|(_, open)| open.holders.is_empty() && may_take(open))
                .map(|(tower_step, _)| tower_step)
        };
        let former = |of: &TowerStep| self.former.get(&of.tower);
        free()
            .find(|tower_step| former(tower_step) == Some(&worker))
            .or_else(|| free().find(|tower_step| former(tower_step).is_none()))
            .or_else(|| free().next())
    }

    /// The tower step that one worker has had the longest, if that is longer than `overdue`, and
    /// that worker.
    fn overdue(
        &self,
        now: Instant,
        overdue: Duration,
        may_take: &impl Fn(&Open) -> bool,
    ) -> Option<(TowerStep, Option<WorkerId>)> {
        self.open()
            .filter(|(_, open)| (1..MAX_HOLDERS).contains(&open.holders.len()) && may_take(open))
            .map(|(tower_step, open)| (tower_step, open.holders[0]))
            .filter(|(_, holder)| now.saturating_duration_since(holder.since) > overdue)
            .min_by_key(|(_, holder)| holder.since)
            .map(|(tower_step, holder)| (tower_step, Some(holder.worker)))
    }

    /// The tower steps whose gradient is not there, and who has them.
    pub(crate) fn open(&self) -> impl Iterator<Item = (TowerStep, &Open)> {
        self.slots
            .iter()
            .filter_map(|(tower_step, slot)| match slot {
                Slot::Open(open) => Some((*tower_step, open)),
                Slot::Done => None,
            })
    }

    /// How many gradients of a tower step did not settle it; `None` if its gradient is there, or it is not
    /// among those of the next update.
    pub(crate) fn attempt(&self, tower_step: TowerStep) -> Option<u32> {
        match self.slots.get(&tower_step)? {
            Slot::Open(open) => Some(open.attempt()),
            Slot::Done => None,
        }
    }

    /// The tower step that `worker` has.
    pub(crate) fn held_by(&self, worker: WorkerId) -> Option<TowerStep> {
        self.open()
            .find(|(_, open)| open.holders.iter().any(|holder| holder.worker == worker))
            .map(|(tower_step, _)| tower_step)
    }

    /// Takes back what `worker` has: it left or was given up.
    pub(crate) fn release(&mut self, worker: WorkerId) {
        for slot in self.slots.values_mut() {
            if let Slot::Open(open) = slot {
                open.holders.retain(|holder| holder.worker != worker);
            }
        }
        self.former.retain(|_, former| *former != worker);
    }

    /// How long `worker` has had a tower step, if it was given it.
    pub(crate) fn held_for(
        &self,
        now: Instant,
        of: TowerStep,
        worker: WorkerId,
    ) -> Option<Duration> {
        let Slot::Open(open) = self.slots.get(&of)? else {
            return None;
        };
        let mut holders = open.holders.iter();
        holders
            .find(|holder| holder.worker == worker)
            .map(|holder| now.saturating_duration_since(holder.since))
    }

    /// The gradient of a tower step by `worker` is there, and counts.
    pub(crate) fn done(&mut self, of: TowerStep, worker: WorkerId) {
        self.former.insert(of.tower, worker);
        self.slots.insert(of, Slot::Done);
    }

    /// The gradient of a tower step by `worker` is there, and is not believed: somebody is to
    /// compute it once more.
    pub(crate) fn ask_another(&mut self, of: TowerStep, worker: WorkerId) {
        if let Some(Slot::Open(open)) = self.slots.get_mut(&of) {
            open.holders.clear();
            open.answered.push(worker);
        }
    }

    /// A tower step is over and will not come again.
    pub(crate) fn close(&mut self, of: TowerStep) {
        self.slots.remove(&of);
    }

    /// Everything was at rest for this long, and does not count as having taken longer.
    pub(crate) fn extend(&mut self, now: Instant, pause: Duration) {
        for slot in self.slots.values_mut() {
            if let Slot::Open(open) = slot {
                for holder in &mut open.holders {
                    holder.since = now.min(holder.since + pause);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::some_time;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);
    const C: WorkerId = WorkerId(2);
    const SECOND: Duration = Duration::from_secs(1);

    /// The towers of step 0, and a clock.
    struct Bench {
        towers: Assignments,
        now: Instant,
    }

    impl Bench {
        fn new(num_towers: u32) -> Self {
            let mut towers = Assignments::default();
            towers.begin_step(GlobalStep(0), num_towers);
            Bench {
                towers,
                now: some_time(),
            }
        }

        fn assign(&mut self, worker: WorkerId) -> Option<Assigned> {
            self.assign_among(&[A, B, C], worker)
        }

        fn assign_among(&mut self, members: &[WorkerId], worker: WorkerId) -> Option<Assigned> {
            let everyone = |answered: &[WorkerId]| members.iter().all(|id| answered.contains(id));
            self.towers.assign(self.now, worker, Some(SECOND), everyone)
        }

        fn held_for(&self, tower: u32, worker: WorkerId) -> Option<Duration> {
            self.towers.held_for(self.now, tower_step(tower), worker)
        }

        fn done(&mut self, tower: u32, worker: WorkerId) {
            self.towers.done(tower_step(tower), worker);
        }
    }

    fn tower_step(tower: u32) -> TowerStep {
        TowerStep {
            global_step: GlobalStep(0),
            tower: Tower(tower),
        }
    }

    fn tower(number: u32) -> Option<Assigned> {
        Some(Assigned {
            tower_step: tower_step(number),
            attempt: 0,
            slow: None,
        })
    }

    #[test]
    fn a_worker_that_asks_again_gets_the_same_tower() {
        let mut bench = Bench::new(2);
        assert_eq!(bench.assign(A), tower(0));
        assert_eq!(bench.assign(A), tower(0));
        assert_eq!(bench.assign(B), tower(1));
        assert_eq!(bench.assign(C), None, "more workers than towers: one waits");
    }

    #[test]
    fn one_worker_does_all_towers_in_turn() {
        let mut bench = Bench::new(3);
        for number in 0..3 {
            assert_eq!(bench.assign(A), tower(number));
            bench.now += SECOND;
            assert_eq!(bench.held_for(number, A), Some(SECOND));
            bench.done(number, A);
        }
        assert_eq!(bench.assign(A), None);
        bench.towers.begin_step(GlobalStep(0), 3);
        assert_eq!(bench.assign(A), tower(0));
    }

    #[test]
    fn a_worker_keeps_its_towers_from_step_to_step() {
        let mut bench = Bench::new(2);
        for (number, worker) in [(0, A), (1, B)] {
            assert_eq!(bench.assign(worker), tower(number));
            bench.done(number, worker);
        }
        bench.towers.begin_step(GlobalStep(0), 2);
        assert_eq!(bench.assign(B), tower(1));
        assert_eq!(bench.assign(A), tower(0));
    }

    #[test]
    fn the_tower_of_a_lost_worker_goes_to_another() {
        let mut bench = Bench::new(2);
        bench.assign(A);
        bench.assign(B);
        bench.done(1, B);
        assert_eq!(bench.assign(B), None);
        bench.towers.release(A);
        assert_eq!(bench.assign(B), tower(0));
    }

    #[test]
    fn an_overdue_tower_is_also_given_to_one_idle_worker() {
        let mut bench = Bench::new(2);
        bench.assign(A);
        bench.assign(B);
        bench.done(1, B);
        bench.now += SECOND;
        assert_eq!(bench.assign(B), None, "not overdue yet");
        bench.now += SECOND / 100;
        let slow = Some(A);
        assert_eq!(
            bench.assign(B),
            tower(0).map(|tower| Assigned { slow, ..tower })
        );
        assert_eq!(bench.assign(B), tower(0), "asks again");
        bench.now += SECOND;
        assert_eq!(bench.assign(C), None, "two are enough");
        assert_eq!(bench.held_for(0, B), Some(SECOND));
        bench.done(0, B);
        assert_eq!(bench.held_for(0, A), None, "was done before");
    }

    #[test]
    fn what_was_not_believed_goes_to_another_worker_while_there_is_one() {
        let mut bench = Bench::new(1);
        bench.assign(A);
        bench.towers.ask_another(tower_step(0), A);
        assert_eq!(bench.assign(A), None);
        let again = tower(0).map(|tower| Assigned {
            attempt: 1,
            ..tower
        });
        assert_eq!(bench.assign(B), again);
        bench.towers.release(B);
        assert_eq!(bench.assign_among(&[A], A), again, "nobody else is left");
    }

    #[test]
    fn without_a_measure_nothing_is_overdue() {
        let mut bench = Bench::new(1);
        bench.assign(A);
        bench.now += 1000 * SECOND;
        assert_eq!(bench.towers.assign(bench.now, B, None, |_| false), None);
    }

    #[test]
    fn a_pause_makes_nothing_overdue() {
        let mut bench = Bench::new(1);
        bench.assign(A);
        bench.now += 1000 * SECOND;
        bench.towers.extend(bench.now, 1000 * SECOND);
        assert_eq!(bench.assign(B), None);
    }
}
