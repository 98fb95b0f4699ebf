//! The workers of a run, and what each did last.
//!
//! ```text
//!   given out        gradient computed   gradient arrived        all gradients there
//!   |---- compute ---|------ push -------|-------- wait ---------|
//! ```

use std::collections::{BTreeMap, VecDeque};

use pserver_ledger::history::Worker;
use pserver_ledger::median;
use pserver_ledger::record::{Commit, Record, TowerRecord};
use pserver_ledger::straggler::{MIN_TOWER_STEPS, beside};
use pserver_run::TowerStep;
use serde::{Serialize, Serializer};

/// Gradients that did not count since the last commit of which the times are kept.
const MAX_UNPLACED: usize = 1024;

/// Tower steps that are kept of each worker.
pub const WINDOW: usize = 60;

/// Workers that are no longer there of which something is kept.
pub const MAX_GONE: usize = 16;

/// What a worker computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneStep {
    /// Grows with every tower step of every worker.
    pub serial: u64,
    /// What it was.
    pub of: TowerStep,
    /// When it was given out, in microseconds since 1970.
    pub given_micros: u64,
    /// How long it was computed; for one that did not count, as long as it took.
    pub compute_micros: u64,
    /// How long its gradient and variables travelled.
    pub push_micros: u64,
    /// How long the gradient waited for the last one of its step.
    pub wait_micros: u64,
    /// Whether the gradient was applied.
    pub counted: bool,
}

impl LaneStep {
    /// When its gradient arrived.
    #[must_use]
    pub fn arrived_micros(&self) -> u64 {
        self.given_micros
            .saturating_add(self.compute_micros)
            .saturating_add(self.push_micros)
    }

    /// From giving it out to having its gradient.
    #[must_use]
    pub fn held_micros(&self) -> u64 {
        self.compute_micros.saturating_add(self.push_micros)
    }
}

/// As numbers in a row: there are many.
impl Serialize for LaneStep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = (
            self.given_micros,
            self.compute_micros,
            self.push_micros,
            self.wait_micros,
            self.of.global_step.0,
            self.of.tower.0,
            self.counted,
        );
        row.serialize(serializer)
    }
}

/// Whether a worker takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It is registered.
    Active,
    /// It said that it leaves, or its server did.
    Left,
    /// It sent no heartbeat for its lease.
    Lost,
    /// It computed something wrong.
    Quarantined,
}

/// A tower step that is overdue now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OverdueStep {
    /// What it is.
    #[serde(flatten)]
    pub of: TowerStep,
    /// Since when the worker has it, as far as can be told, in microseconds since 1970.
    pub since_micros: u64,
}

/// A worker and what it did last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lane {
    /// Stays the same as long as the lane is kept.
    pub id: u64,
    /// Its number at the newest start of the server that it registered with.
    pub number: u32,
    /// Its name, if it is on record.
    pub name: Option<String>,
    /// What it computes with.
    pub numerics: String,
    /// Whether it takes part.
    pub state: WorkerState,
    /// Gradients of it that were applied.
    pub tower_steps: u64,
    /// Tower steps of it that were overdue.
    pub overdue: u64,
    /// Gradients of it that did not count.
    pub dropped: u64,
    /// The tower step that it is late with.
    pub late_with: Option<OverdueStep>,
    /// What it did last, the newest last.
    #[serde(skip)]
    pub steps: VecDeque<LaneStep>,
}

impl Lane {
    /// Median time of its last tower steps from giving one out to having the gradient; `None` if
    /// there are too few to tell.
    #[must_use]
    pub fn median_held_micros(&self) -> Option<u64> {
        let is_enough = self.steps.len() as u64 >= MIN_TOWER_STEPS;
        is_enough.then(|| median(self.steps.iter().map(LaneStep::held_micros)))
    }

    /// Median time that it computed one of its last tower steps that counted, in microseconds.
    #[must_use]
    pub fn median_compute_micros(&self) -> u64 {
        let counted = self.steps.iter().filter(|step| step.counted);
        median(counted.map(|step| step.compute_micros))
    }

    fn push(&mut self, step: LaneStep) {
        if let Some(before) = self.steps.back_mut() {
            // It waits no longer than until it has something else to do.
            let free = step.given_micros.saturating_sub(before.arrived_micros());
            before.wait_micros = before.wait_micros.min(free);
        }
        if self.steps.len() == WINDOW {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
        self.late_with.take_if(|late| late.of <= step.of);
    }

    fn last_arrived(&self) -> u64 {
        self.steps.back().map_or(0, LaneStep::arrived_micros)
    }

    fn is_active(&self) -> bool {
        self.state == WorkerState::Active
    }
}

/// The workers of a run: all that take part, and some of those that did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lanes {
    lanes: Vec<Lane>,
    /// Where the worker of a number at the newest start of the server is.
    by_number: BTreeMap<u32, usize>,
    last_serial: u64,
    /// Lanes that there have been.
    num_lanes: u64,
    /// When the last commit ended, in microseconds since 1970.
    committed_micros: u64,
    /// What did not count since then: where it began shows when the next commit tells what else its
    /// worker did.
    unplaced: Vec<Unplaced>,
}

/// A gradient that did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unplaced {
    worker: u32,
    of: TowerStep,
    /// Since when its worker had it at the most.
    since_micros: u64,
    arrived_micros: u64,
}

impl Lanes {
    /// The workers, in the order in which they came.
    #[must_use]
    pub fn iter(&self) -> &[Lane] {
        &self.lanes
    }

    /// The number of the newest tower step.
    #[must_use]
    pub fn last_serial(&self) -> u64 {
        self.last_serial
    }

    /// The worker of this number at the newest start of the server, for people.
    #[must_use]
    pub fn worker(&self, number: u32) -> Worker {
        let lane = self.by_number.get(&number).map(|index| &self.lanes[*index]);
        Worker {
            number,
            name: lane.and_then(|lane| lane.name.clone()),
        }
    }

    /// How many times as long as the others each worker takes, and whether that makes it a straggler:
    /// those that take part, or in the end those that did. `None` if there are no others, or too
    /// little is known.
    #[must_use]
    pub fn slowness(&self) -> Vec<Option<Slowness>> {
        let is_over = !self.lanes.iter().any(Lane::is_active);
        let takes_part = |lane: &Lane| lane.is_active() || is_over;
        let held = |lane: &Lane| lane.median_held_micros().filter(|_| takes_part(lane));
        let held: Vec<Option<u64>> = self.lanes.iter().map(held).collect();
        let slowness = |index: usize| {
            let others = held.iter().enumerate().filter(|(other, _)| *other != index);
            let own = held[index]?;
            let (others, is_straggler) = beside(own, others.filter_map(|(_, held)| *held))?;
            Some(Slowness {
                times: own as f64 / others.max(1) as f64,
                is_straggler,
            })
        };
        (0..held.len()).map(slowness).collect()
    }

    /// Learns from a record what it tells of workers.
    pub(crate) fn add(&mut self, at_micros: u64, record: &Record) {
        match record {
            Record::Start(_) => self.restart(),
            Record::Commit(commit) => self.commit(at_micros, commit),
            Record::Joined {
                worker,
                name,
                numerics,
            } => self.join(*worker, name, numerics),
            Record::Left { worker } => self.end(*worker, WorkerState::Left),
            Record::Lost { worker } => self.end(*worker, WorkerState::Lost),
            Record::Quarantined { worker, .. } => self.end(*worker, WorkerState::Quarantined),
            Record::Overdue { of, slow, .. } => self.overdue(at_micros, *of, *slow),
            Record::Dropped { of, worker, .. } => self.dropped(at_micros, *of, *worker),
            Record::End { .. } => self.nobody_is_active(),
            Record::Rewind(_)
            | Record::InDoubt { .. }
            | Record::Audited { .. }
            | Record::Checkpoint { .. }
            | Record::StoodStill { .. }
            | Record::Suspended { .. } => {}
        }
    }

    /// A server starts: it gives numbers anew.
    fn restart(&mut self) {
        self.nobody_is_active();
        self.by_number.clear();
        self.committed_micros = 0;
        self.unplaced.clear();
    }

    fn nobody_is_active(&mut self) {
        for lane in &mut self.lanes {
            if lane.is_active() {
                lane.state = WorkerState::Left;
            }
            lane.late_with = None;
        }
    }

    /// One worker has another number at each start of the server; it is known by its name.
    fn join(&mut self, number: u32, name: &str, numerics: &str) {
        let is_back = |lane: &Lane| !lane.is_active() && lane.name.as_deref() == Some(name);
        let index = match self.lanes.iter().position(is_back) {
            Some(index) => {
                self.lanes[index].number = number;
                self.lanes[index].state = WorkerState::Active;
                index
            }
            None => {
                self.forget_one();
                self.num_lanes += 1;
                self.lanes.push(Lane {
                    id: self.num_lanes,
                    number,
                    name: Some(name.to_owned()),
                    numerics: numerics.to_owned(),
                    state: WorkerState::Active,
                    tower_steps: 0,
                    overdue: 0,
                    dropped: 0,
                    late_with: None,
                    steps: VecDeque::new(),
                });
                self.lanes.len() - 1
            }
        };
        self.by_number.insert(number, index);
    }

    /// Forgets the first of those that are gone, if those are many.
    fn forget_one(&mut self) {
        let gone = || self.lanes.iter().filter(|lane| !lane.is_active());
        if gone().count() < MAX_GONE {
            return;
        }
        if let Some(index) = self.lanes.iter().position(|lane| !lane.is_active()) {
            self.lanes.remove(index);
            self.by_number.retain(|_, of| *of != index);
            for of in self.by_number.values_mut() {
                *of -= usize::from(*of > index);
            }
        }
    }

    fn lane(&mut self, number: u32) -> Option<&mut Lane> {
        let index = self.by_number.get(&number)?;
        self.lanes.get_mut(*index)
    }

    fn end(&mut self, number: u32, state: WorkerState) {
        if let Some(lane) = self.lane(number) {
            lane.state = state;
            lane.late_with = None;
        }
    }

    /// The record was made when the new state's digest had been taken.
    fn commit(&mut self, at_micros: u64, commit: &Commit) {
        let phases = commit.phases;
        let since_gathered = phases.apply_micros.saturating_add(phases.digest_micros);
        let gathered_micros = at_micros.saturating_sub(since_gathered);
        let counted = |tower: &TowerRecord| (tower.worker, counted_step(gathered_micros, tower));
        let mut steps: Vec<(u32, LaneStep)> = commit.towers.iter().map(counted).collect();
        let placed = std::mem::take(&mut self.unplaced);
        let placed = placed
            .into_iter()
            .map(|unplaced| self.placed(unplaced, &steps));
        let mut placed: Vec<(u32, LaneStep)> = placed.collect();
        steps.append(&mut placed);
        steps.sort_by_key(|(_, step)| step.given_micros);
        for (worker, step) in steps {
            self.last_serial += 1;
            let serial = self.last_serial;
            if let Some(lane) = self.lane(worker) {
                lane.tower_steps += u64::from(step.counted);
                lane.push(LaneStep { serial, ..step });
            }
        }
        self.committed_micros = at_micros.saturating_add(phases.write_micros);
    }

    fn overdue(&mut self, at_micros: u64, of: TowerStep, slow: u32) {
        let opened = self.committed_micros;
        if let Some(lane) = self.lane(slow) {
            let since_micros = lane.last_arrived().max(opened).min(at_micros);
            lane.overdue += 1;
            lane.late_with = Some(OverdueStep { of, since_micros });
        }
    }

    fn dropped(&mut self, arrived_micros: u64, of: TowerStep, worker: u32) {
        let committed_micros = self.committed_micros;
        let Some(lane) = self.lane(worker) else {
            return;
        };
        lane.dropped += 1;
        let late = lane.late_with.take_if(|late| late.of == of);
        let since_micros = late.map_or(committed_micros, |late| late.since_micros);
        if self.unplaced.len() < MAX_UNPLACED {
            self.unplaced.push(Unplaced {
                worker,
                of,
                since_micros,
                arrived_micros,
            });
        }
    }

    /// When a tower step that did not count was given out is not on record: after the one that its
    /// worker did before, which may be one of `steps`.
    fn placed(&self, unplaced: Unplaced, steps: &[(u32, LaneStep)]) -> (u32, LaneStep) {
        let Unplaced {
            worker,
            of,
            since_micros,
            arrived_micros,
        } = unplaced;
        let index = self.by_number.get(&worker);
        let before = index.map_or(0, |index| self.lanes[*index].last_arrived());
        let own = steps.iter().filter(|(by, _)| *by == worker);
        let own = own.map(|(_, step)| step.arrived_micros());
        let own = own.filter(|arrived| *arrived <= arrived_micros);
        let given_micros = own.fold(since_micros.max(before), u64::max);
        let step = LaneStep {
            serial: 0,
            of,
            given_micros: given_micros.min(arrived_micros),
            compute_micros: arrived_micros.saturating_sub(given_micros),
            push_micros: 0,
            wait_micros: 0,
            counted: false,
        };
        (worker, step)
    }
}

/// How slow a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slowness {
    /// How many times as long as the median of the others it takes.
    pub times: f64,
    /// Whether that holds the others up.
    pub is_straggler: bool,
}

/// A tower step that counted, of whose gradient all of its step were there at a moment.
fn counted_step(gathered_micros: u64, tower: &TowerRecord) -> LaneStep {
    let arrived = gathered_micros.saturating_sub(tower.waited_micros);
    let compute_micros = tower.compute_micros.min(tower.held_micros);
    LaneStep {
        serial: 0,
        of: tower.of,
        given_micros: arrived.saturating_sub(tower.held_micros),
        compute_micros,
        push_micros: tower.held_micros - compute_micros,
        wait_micros: tower.waited_micros,
        counted: true,
    }
}

#[cfg(test)]
mod tests {
    use pserver_ledger::fixtures::{commit, joined, started, unit};
    use pserver_ledger::record::Dropped;

    use super::*;

    fn lanes_of(records: impl IntoIterator<Item = Record>) -> Lanes {
        let mut lanes = Lanes::default();
        for (second, record) in (1..).zip(records) {
            lanes.add(second * 1_000_000, &record);
        }
        lanes
    }

    /// Commits of two towers, of which worker 1 takes so many times as long as worker 0.
    fn commits(steps: u64, times: u64) -> impl Iterator<Item = Record> {
        (0..steps).map(move |step| {
            let mut commit = commit(step, &[0, 1]);
            commit.towers[0].held_micros = 100_000;
            commit.towers[0].compute_micros = 80_000;
            commit.towers[0].waited_micros = 100_000 * (times - 1);
            commit.towers[1].held_micros = 100_000 * times;
            Record::Commit(commit)
        })
    }

    fn two_workers() -> Vec<Record> {
        vec![started(0), joined(0, "host/10"), joined(1, "host/11")]
    }

    #[test]
    fn a_lane_has_the_last_tower_steps_of_its_worker() {
        let mut records = two_workers();
        records.extend(commits(200, 3));
        let lanes = lanes_of(records);
        let [first, second] = lanes.iter() else {
            panic!("two workers");
        };
        assert_eq!((first.steps.len(), second.steps.len()), (WINDOW, WINDOW));
        assert_eq!(first.tower_steps, 200);
        let step = first.steps.back().unwrap();
        assert_eq!(step.of, unit(199, 0));
        assert_eq!(step.given_micros, 203_000_000 - 300_000);
        let parts = (step.compute_micros, step.push_micros, step.wait_micros);
        assert_eq!(parts, (80_000, 20_000, 200_000));
        assert_eq!(lanes.last_serial(), 400);
    }

    #[test]
    fn a_straggler_is_seen() {
        let mut records = two_workers();
        records.extend(commits(10, 3));
        let slowness = lanes_of(records).slowness();
        assert_eq!(slowness[1].unwrap().times, 3.0);
        assert!(slowness[1].unwrap().is_straggler);
        assert!(!slowness[0].unwrap().is_straggler);
    }

    #[test]
    fn a_worker_by_itself_or_new_is_no_straggler() {
        let records = [started(0), joined(0, "host/10")];
        let alone = records.into_iter().chain(commits(10, 3));
        assert_eq!(lanes_of(alone).slowness(), [None]);
        let new = two_workers().into_iter().chain(commits(4, 3));
        assert_eq!(lanes_of(new).slowness(), [None, None]);
        let gone = two_workers().into_iter().chain(commits(10, 3));
        let gone = gone.chain([Record::Left { worker: 0 }]);
        assert_eq!(lanes_of(gone).slowness(), [None, None]);
    }

    #[test]
    fn in_the_end_it_is_still_seen_who_was_slow() {
        let mut records = two_workers();
        records.extend(commits(10, 3));
        records.extend([0, 1].map(|worker| Record::Left { worker }));
        assert!(lanes_of(records).slowness()[1].unwrap().is_straggler);
    }

    #[test]
    fn what_another_was_faster_with_shows_as_not_counted() {
        let mut records = two_workers();
        records.extend(commits(1, 1));
        let of = unit(1, 1);
        records.push(Record::Overdue {
            of,
            slow: 1,
            also_given_to: 0,
        });
        let lanes = lanes_of(records.clone());
        let late = OverdueStep {
            of,
            since_micros: 4_000_000,
        };
        assert_eq!(lanes.iter()[1].late_with, Some(late));
        records.push(Record::Dropped {
            of,
            worker: 1,
            reason: Dropped::Stale,
        });
        records.push(Record::Commit(commit(1, &[0, 0])));
        let lanes = lanes_of(records);
        let lane = &lanes.iter()[1];
        assert_eq!((lane.late_with, lane.overdue, lane.dropped), (None, 1, 1));
        let step = lane.steps.back().unwrap();
        assert!(!step.counted);
        assert_eq!(
            (step.given_micros, step.compute_micros),
            (4_000_000, 2_000_000)
        );
    }

    #[test]
    fn what_did_not_count_begins_after_what_its_worker_did_before() {
        let mut records = two_workers();
        records.extend(commits(1, 1));
        // It arrives at 5 s, after a tower step that arrived at 4.9 s and is told of at 6 s.
        records.push(Record::Dropped {
            of: unit(1, 0),
            worker: 1,
            reason: Dropped::Duplicate,
        });
        let mut next = commit(1, &[0, 1]);
        next.towers[1].waited_micros = 1_100_000;
        records.push(Record::Commit(next));
        let lanes = lanes_of(records);
        let steps: Vec<&LaneStep> = lanes.iter()[1].steps.iter().collect();
        let [.., counted, dropped] = steps[..] else {
            panic!("two tower steps");
        };
        assert_eq!(counted.arrived_micros(), 4_900_000);
        assert_eq!(
            (dropped.given_micros, dropped.compute_micros),
            (4_900_000, 100_000)
        );
    }

    #[test]
    fn a_worker_that_has_two_towers_does_not_wait_for_itself() {
        let mut both = commit(0, &[0, 0]);
        both.towers[0].waited_micros = 100_000;
        both.towers[0].held_micros = 100_000;
        both.towers[1].held_micros = 90_000;
        both.towers[1].waited_micros = 0;
        let records = [started(0), joined(0, "host/10"), Record::Commit(both)];
        let lanes = lanes_of(records);
        assert_eq!(lanes.iter()[0].steps[0].wait_micros, 10_000);
    }

    #[test]
    fn a_worker_is_known_again_after_a_restart_of_the_server() {
        let mut records = two_workers();
        records.extend(commits(3, 1));
        records.extend([started(3), joined(0, "host/11")]);
        let lanes = lanes_of(records);
        assert_eq!(lanes.iter().len(), 2);
        let told: Vec<_> = lanes
            .iter()
            .iter()
            .map(|lane| (lane.number, lane.state))
            .collect();
        assert_eq!(told, [(0, WorkerState::Left), (0, WorkerState::Active)]);
        assert_eq!(lanes.iter()[1].tower_steps, 3);
        assert_eq!(lanes.worker(0).name.as_deref(), Some("host/11"));
    }

    #[test]
    fn of_workers_that_come_and_go_only_the_last_are_kept() {
        let mut records = two_workers();
        for number in 2..500 {
            records.push(joined(number, &format!("host/{number}")));
            records.push(Record::Lost { worker: number });
        }
        records.extend(commits(1, 1));
        let lanes = lanes_of(records);
        assert_eq!(lanes.iter().len(), 2 + MAX_GONE);
        assert_eq!(lanes.iter()[1].tower_steps, 1);
        assert_eq!(lanes.iter().last().unwrap().number, 499);
    }
}
