//! What a run does besides deciding: states, checkpoints, and what people look at.

use pserver_core::Decision;
use pserver_run::{GlobalStep, StateDigest};
use pserver_state::Values;
use pserver_wire::messages::{SECRET_BYTES, Secret, Verdict, WorkerId};

use super::*;
use crate::fixtures::{self, push_of, registration, some_time, tower_summary};

/// A run of two towers over two numbers, which begin as 1 and 2; every other state is saved, and every other step
/// summarised.
struct Bench {
    run: Run,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = some_time();
        let intervals = Intervals {
            checkpoint_steps: 2,
            summary_steps: 2,
        };
        let run = fixtures::run(now, intervals);
        Bench { run, now }
    }

    fn join(&mut self, secret: u8) -> Member {
        let secret = Secret([secret; SECRET_BYTES]);
        let registered = self.run.core.register(self.now, registration(0), secret);
        registered.unwrap().member
    }

    fn work(&mut self, member: Member, held: Option<StateDigest>) -> Work {
        match self.run.pull(self.now, Pull { member, held }) {
            Some(Assignment::Work(work)) => work,
            other => panic!("expected work, got {other:?}"),
        }
    }

    /// Both towers of a step, by one worker.
    fn step(&mut self, member: Member) {
        for _ in 0..2 {
            let push = push_of(member, &self.work(member, None));
            let gradient = Gradient::new(Values::from([0.5, 0.5].as_slice()));
            match self.run.core.push(self.now, push, gradient) {
                Decision::Answer(verdict) => assert_eq!(verdict, Verdict::Accepted),
                Decision::Complete(update) => {
                    let before = self.run.snapshot();
                    let mut next = before.state.clone();
                    before.apply(&update, &mut next).unwrap();
                    self.run.commit(self.now, *update, Snapshot::new(next));
                }
            }
        }
    }
}

fn summary(step: u64) -> TowerSummary {
    tower_summary(step, Vec::new())
}

#[test]
fn variables_that_the_worker_holds_are_not_sent_again() {
    let mut bench = Bench::new();
    let member = bench.join(1);
    let work = bench.work(member, None);
    assert!(matches!(work.variables, Delivery::Sent(_)));
    let again = bench.work(member, Some(work.state_digest));
    let variables = Delivery::Held;
    assert_eq!(again, Work { variables, ..work });
}

#[test]
fn checkpoints_are_due_at_multiples_of_the_interval() {
    let mut bench = Bench::new();
    let member = bench.join(1);
    let mut due = Vec::new();
    for _ in 0..5 {
        bench.step(member);
        if let Some(snapshot) = bench.run.saves.begin() {
            due.push(snapshot.state.global_step.0);
            bench.run.saves.finished(snapshot.state.global_step);
        }
    }
    assert_eq!(due, [2, 4]);
}

#[test]
fn every_so_many_steps_an_update_is_summarised_as_it_was_applied() {
    let mut bench = Bench::new();
    let member = bench.join(1);
    for _ in 0..3 {
        bench.step(member);
    }
    let events = bench.run.take_events().into_iter();
    let due = events.filter_map(|it| match it {
        Event::Summary(Part::Update(update)) => Some(update),
        _ => None,
    });
    let due: Vec<_> = due.collect();
    let steps: Vec<u64> = due.iter().map(|update| update.global_step().0).collect();
    assert_eq!(steps, [0, 2]);
    let [first, last] = [&due[0], &due[1]];
    assert_eq!(first.before.state.variables[..], [1.0, 2.0]);
    assert_eq!(last.before.state.variables[..], [0.5, 1.5]);
    let halves = Values::from([0.5, 0.5].as_slice());
    assert_eq!(first.gradients, [halves.clone(), halves]);
    assert_eq!((first.learning_rate, first.losses.total), (0.5, 2.0));
    assert!((first.loss_averages.total - 0.2).abs() < 1e-6);
    // 0.2, 0.38, 0.542: the steps between count too.
    assert!((last.loss_averages.total - 0.542).abs() < 1e-6);
}

#[test]
fn a_workers_part_is_asked_for_with_the_work_and_taken_once() {
    let mut bench = Bench::new();
    let (a, b) = (bench.join(1), bench.join(2));
    let (of_a, of_b) = (bench.work(a, None), bench.work(b, None));
    assert_eq!(of_a.summary_step, Some(GlobalStep(0)));
    assert_eq!(of_b.summary_step, None, "tower 1");
    let stranger = Member {
        worker: WorkerId(0),
        ..b
    };
    let now = bench.now;
    assert!(!bench.run.summarize(now, stranger, summary(0)));
    assert!(!bench.run.summarize(now, a, summary(2)), "not asked for");
    assert!(bench.run.summarize(now, a, summary(0)));
    assert!(!bench.run.summarize(now, b, summary(0)), "a second one");
    let kept = bench.run.take_events();
    let kept = kept
        .iter()
        .filter(|it| matches!(it, Event::Summary(Part::Tower(..))));
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_server_that_cannot_keep_summaries_asks_for_no_more() {
    let mut bench = Bench::new();
    let member = bench.join(1);
    bench.run.stop_summaries();
    assert_eq!(bench.work(member, None).summary_step, None);
}
