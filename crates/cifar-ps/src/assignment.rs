//! Which worker computes which tower of the current step.

use cifar_sequence::Tower;
use cifar_wire::messages::WorkerId;

/// What becomes of one tower of the current step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Given(WorkerId),
    Done,
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
            slots: vec![Slot::Free; num_towers as usize],
            former: vec![None; num_towers as usize],
        }
    }

    /// Gives `worker` a tower: the one it already has (it asks again because the answer was lost),
    /// else a free one; `None` if there is none.
    pub fn assign(&mut self, worker: WorkerId) -> Option<Tower> {
        let free = |index: &usize| self.slots[*index] == Slot::Free;
        let all = || 0..self.slots.len();
        let index = all()
            .find(|index| self.slots[*index] == Slot::Given(worker))
            .or_else(|| all().find(|index| free(index) && self.former[*index] == Some(worker)))
            .or_else(|| all().find(|index| free(index) && self.former[*index].is_none()))
            .or_else(|| all().find(free))?;
        self.slots[index] = Slot::Given(worker);
        Some(Tower(index as u32))
    }

    /// The tower that `worker` has.
    #[must_use]
    pub fn held_by(&self, worker: WorkerId) -> Option<Tower> {
        let index = self
            .slots
            .iter()
            .position(|slot| *slot == Slot::Given(worker))?;
        Some(Tower(index as u32))
    }

    /// Who has `tower`, if anyone.
    #[must_use]
    pub fn holder(&self, tower: Tower) -> Option<WorkerId> {
        match self.slots[tower.0 as usize] {
            Slot::Given(worker) => Some(worker),
            Slot::Free | Slot::Done => None,
        }
    }

    /// Takes back what `worker` has: it left or was given up.
    pub fn release(&mut self, worker: WorkerId) {
        for slot in &mut self.slots {
            if *slot == Slot::Given(worker) {
                *slot = Slot::Free;
            }
        }
        for former in &mut self.former {
            if *former == Some(worker) {
                *former = None;
            }
        }
    }

    /// `worker` has computed `tower`.
    pub fn done(&mut self, tower: Tower, worker: WorkerId) {
        self.slots[tower.0 as usize] = Slot::Done;
        self.former[tower.0 as usize] = Some(worker);
    }

    /// A new step: all towers free again.
    pub fn begin_step(&mut self) {
        self.slots.fill(Slot::Free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);

    #[test]
    fn a_worker_that_asks_again_gets_the_same_tower() {
        let mut towers = Assignments::new(2);
        assert_eq!(towers.assign(A), Some(Tower(0)));
        assert_eq!(towers.assign(A), Some(Tower(0)));
        assert_eq!(towers.assign(B), Some(Tower(1)));
        assert_eq!(
            towers.assign(WorkerId(2)),
            None,
            "more workers than towers: one waits"
        );
    }

    #[test]
    fn one_worker_does_all_towers_in_turn() {
        let mut towers = Assignments::new(3);
        for tower in 0..3 {
            assert_eq!(towers.assign(A), Some(Tower(tower)));
            towers.done(Tower(tower), A);
        }
        assert_eq!(towers.assign(A), None);
        towers.begin_step();
        assert_eq!(towers.assign(A), Some(Tower(0)));
    }

    #[test]
    fn a_worker_keeps_its_towers_from_step_to_step() {
        let mut towers = Assignments::new(2);
        for worker in [A, B] {
            let tower = towers.assign(worker).unwrap();
            towers.done(tower, worker);
        }
        towers.begin_step();
        assert_eq!(towers.assign(B), Some(Tower(1)));
        assert_eq!(towers.assign(A), Some(Tower(0)));
    }

    #[test]
    fn the_tower_of_a_lost_worker_goes_to_another() {
        let mut towers = Assignments::new(2);
        towers.assign(A);
        towers.assign(B);
        towers.done(Tower(1), B);
        assert_eq!(towers.assign(B), None);
        towers.release(A);
        assert_eq!(towers.assign(B), Some(Tower(0)));
    }
}
