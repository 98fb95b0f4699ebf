//! Which worker computes which tower of the current step.

use std::time::{Duration, Instant};

use cifar_sequence::Tower;
use cifar_wire::messages::WorkerId;

/// Workers that may compute the same tower at a time: the one that it was given to, and one more
/// once that is overdue.
const MAX_HOLDERS: usize = 2;

/// Who computes a tower, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The worker.
    pub worker: WorkerId,
    /// When it was given the tower.
    pub since: Instant,
}

/// What becomes of one tower of the current step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    /// Given to these, the first of them first; to nobody yet where there are none.
    Open(Vec<Holder>),
    /// Its gradient is there.
    Done,
}

/// A tower for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// It is this worker's to compute.
    Tower(Tower),
    /// Another worker is at it, but overdue: whoever is first counts.
    Overdue {
        /// The tower.
        tower: Tower,
        /// Who has it.
        slow: WorkerId,
    },
}

/// The towers of the current step and who has them.
///
/// Pure. A worker has at most one tower at a time; any worker may have any tower.
#[derive(Debug)]
pub struct Assignments {
    slots: Vec<Slot>,
    /// Who computed each tower last. A worker is given its former towers first, because it has
    /// prepared their next batches.
    former: Vec<Option<WorkerId>>,
}

impl Assignments {
    /// All towers free.
    #[must_use]
    pub fn new(num_towers: u32) -> Self {
        Assignments {
            slots: vec![Slot::Open(Vec::new()); num_towers as usize],
            former: vec![None; num_towers as usize],
        }
    }

    /// Gives `worker` a tower: the one it already has (it asks again because the answer was lost),
    /// else a free one, else one that another worker has had for longer than `overdue`; `None` if
    /// there is none.
    pub fn assign(
        &mut self,
        now: Instant,
        worker: WorkerId,
        overdue: Option<Duration>,
    ) -> Option<Assigned> {
        if let Some(tower) = self.held_by(worker) {
            return Some(Assigned::Tower(tower));
        }
        let (tower, slow) = match self.free_tower(worker) {
            Some(tower) => (tower, None),
            None => self
                .overdue_tower(now, overdue?)
                .map(|(tower, slow)| (tower, Some(slow)))?,
        };
        if let Slot::Open(holders) = &mut self.slots[tower.0 as usize] {
            holders.push(Holder { worker, since: now });
        }
        Some(match slow {
            None => Assigned::Tower(tower),
            Some(slow) => Assigned::Overdue { tower, slow },
        })
    }

    /// A tower that nobody has: a former one of `worker`, else nobody's, else any.
    fn free_tower(&self, worker: WorkerId) -> Option<Tower> {
        let free = || {
            self.open()
                .filter(|(_, holders)| holders.is_empty())
                .map(|(tower, _)| tower)
        };
        let former = |tower: &Tower| self.former[tower.0 as usize];
        free()
            .find(|tower| former(tower) == Some(worker))
            .or_else(|| free().find(|tower| former(tower).is_none()))
            .or_else(|| free().next())
    }

    /// The tower that one worker has had the longest, if that is longer than `overdue`.
    fn overdue_tower(&self, now: Instant, overdue: Duration) -> Option<(Tower, WorkerId)> {
        self.open()
            .filter(|(_, holders)| (1..MAX_HOLDERS).contains(&holders.len()))
            .map(|(tower, holders)| (tower, holders[0]))
            .filter(|(_, holder)| now.saturating_duration_since(holder.since) > overdue)
            .min_by_key(|(_, holder)| holder.since)
            .map(|(tower, holder)| (tower, holder.worker))
    }

    /// The towers whose gradient is not there, and who has them.
    pub fn open(&self) -> impl Iterator<Item = (Tower, &[Holder])> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| match slot {
                Slot::Open(holders) => Some((Tower(index as u32), holders.as_slice())),
                Slot::Done => None,
            })
    }

    /// The tower that `worker` has.
    #[must_use]
    pub fn held_by(&self, worker: WorkerId) -> Option<Tower> {
        self.open()
            .find(|(_, holders)| holders.iter().any(|holder| holder.worker == worker))
            .map(|(tower, _)| tower)
    }

    /// Takes back what `worker` has: it left or was given up.
    pub fn release(&mut self, worker: WorkerId) {
        for slot in &mut self.slots {
            if let Slot::Open(holders) = slot {
                holders.retain(|holder| holder.worker != worker);
            }
        }
        for former in &mut self.former {
            if *former == Some(worker) {
                *former = None;
            }
        }
    }

    /// `worker` has computed `tower`; how long it had it, if it was given it.
    pub fn done(&mut self, now: Instant, tower: Tower, worker: WorkerId) -> Option<Duration> {
        self.former[tower.0 as usize] = Some(worker);
        match std::mem::replace(&mut self.slots[tower.0 as usize], Slot::Done) {
            Slot::Open(holders) => holders
                .iter()
                .find(|holder| holder.worker == worker)
                .map(|holder| now.saturating_duration_since(holder.since)),
            Slot::Done => None,
        }
    }

    /// A new step: all towers free again.
    pub fn begin_step(&mut self) {
        self.slots.fill(Slot::Open(Vec::new()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);
    const C: WorkerId = WorkerId(2);
    const SECOND: Duration = Duration::from_secs(1);

    /// The towers of a step, and a clock.
    struct Bench {
        towers: Assignments,
        now: Instant,
    }

    impl Bench {
        fn new(num_towers: u32) -> Self {
            #[expect(
                clippy::disallowed_methods,
                reason = "a test needs some time to begin with"
            )]
            let now = Instant::now();
            Bench {
                towers: Assignments::new(num_towers),
                now,
            }
        }

        fn assign(&mut self, worker: WorkerId) -> Option<Assigned> {
            self.towers.assign(self.now, worker, Some(SECOND))
        }

        fn done(&mut self, tower: u32, worker: WorkerId) -> Option<Duration> {
            self.towers.done(self.now, Tower(tower), worker)
        }
    }

    fn tower(number: u32) -> Option<Assigned> {
        Some(Assigned::Tower(Tower(number)))
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
            assert_eq!(bench.done(number, A), Some(SECOND));
        }
        assert_eq!(bench.assign(A), None);
        bench.towers.begin_step();
        assert_eq!(bench.assign(A), tower(0));
    }

    #[test]
    fn a_worker_keeps_its_towers_from_step_to_step() {
        let mut bench = Bench::new(2);
        for (number, worker) in [(0, A), (1, B)] {
            assert_eq!(bench.assign(worker), tower(number));
            bench.done(number, worker);
        }
        bench.towers.begin_step();
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
        assert_eq!(
            bench.assign(B),
            Some(Assigned::Overdue {
                tower: Tower(0),
                slow: A
            })
        );
        assert_eq!(bench.assign(B), tower(0), "asks again");
        bench.now += SECOND;
        assert_eq!(bench.assign(C), None, "two are enough");
        assert_eq!(bench.done(0, B), Some(SECOND));
        assert_eq!(bench.done(0, A), None, "was done before");
    }

    #[test]
    fn without_a_measure_nothing_is_overdue() {
        let mut bench = Bench::new(1);
        bench.assign(A);
        bench.now += 1000 * SECOND;
        assert_eq!(bench.towers.assign(bench.now, B, None), None);
    }
}
