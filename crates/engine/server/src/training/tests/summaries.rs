//! What is asked for and kept for people to look at.

use pserver_events::Histogram;
use pserver_wire::messages::{Activations, SECRET_BYTES};

use super::*;

/// A run whose every other step is summarised.
fn bench() -> Bench {
    let mut bench = Bench::new(10);
    bench.training.summaries = Wanted::every(2);
    bench
}

fn summary(step: u64) -> TowerSummary {
    let activations = Activations {
        histogram: Histogram::of(&[1.0]),
        sparsity: 0.0,
    };
    TowerSummary {
        summary_step: GlobalStep(step),
        activations: [(); 5].map(|()| activations.clone()),
        images: Vec::new(),
    }
}

#[test]
fn every_so_many_steps_an_update_is_summarised_as_it_was_applied() {
    let mut bench = bench();
    let member = bench.join();
    for _ in 0..3 {
        bench.step(member);
    }
    let due = bench
        .training
        .take_events()
        .into_iter()
        .filter_map(|it| match it {
            Event::SummaryDue(update) => Some(update),
            _ => None,
        });
    let due: Vec<_> = due.collect();
    let steps: Vec<u64> = due.iter().map(|update| update.global_step().0).collect();
    assert_eq!(steps, [0, 2]);
    let [first, last] = [&due[0], &due[1]];
    assert_eq!(first.before.state.variables[..], [1.0, 2.0]);
    assert_eq!(last.before.state.variables[..], [0.5, 1.5]);
    assert_eq!(
        first.gradients,
        [
            Values::from([0.5, 0.5].as_slice()),
            Values::from([0.5, 0.5].as_slice())
        ]
    );
    assert_eq!((first.learning_rate, first.losses.total), (0.5, 2.0));
    assert!((first.loss_averages.total - 0.2).abs() < 1e-6);
    // 0.2, 0.38, 0.542: the steps between count too.
    assert!((last.loss_averages.total - 0.542).abs() < 1e-6);
}

#[test]
fn a_workers_part_is_asked_for_with_the_work_and_taken_once() {
    let mut bench = bench();
    let (a, b) = (bench.join(), bench.join());
    let (of_a, of_b) = (bench.work(a), bench.work(b));
    assert_eq!(of_a.summary_step, Some(GlobalStep(0)));
    assert_eq!(of_b.summary_step, None, "tower 1");
    let stranger = Member {
        secret: Secret([8; SECRET_BYTES]),
        ..a
    };
    let now = bench.now;
    assert!(!bench.training.summarize(now, stranger, summary(0)));
    assert!(
        !bench.training.summarize(now, a, summary(2)),
        "not asked for"
    );
    assert!(bench.training.summarize(now, a, summary(0)));
    assert!(
        !bench.training.summarize(now, b, summary(0)),
        "a second one"
    );
    let kept = bench.training.take_events();
    let kept = kept
        .iter()
        .filter(|it| matches!(it, Event::TowerSummarised { .. }));
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_server_that_cannot_keep_summaries_asks_for_no_more() {
    let mut bench = bench();
    let member = bench.join();
    bench.training.stop_summaries();
    assert_eq!(bench.work(member).summary_step, None);
}
