//! Runs that are not synchronous.

use pserver_run::record::Dropped;

use super::*;

fn bench(mode: Mode) -> Bench {
    let run = RunConfig {
        mode,
        ..run_config()
    };
    Bench::of(run, 10, 0.0)
}

pub(super) fn asynchronous(max_staleness: u32, scaled: bool) -> Bench {
    bench(Mode::Asynchronous {
        max_staleness,
        scaled,
    })
}

fn serial(work: &Work) -> u64 {
    work.tower_step.serial(2)
}

#[test]
fn a_quorum_takes_the_first_gradients_and_drops_the_others() {
    let mut bench = bench(Mode::Quorum {
        replicas_to_aggregate: 1,
    });
    let (a, b) = (bench.join(), bench.join());
    let (work_a, work_b) = (bench.work(a), bench.work(b));
    assert_eq!(bench.push(b, &work_b, [2.0, 2.0]), Verdict::Accepted);
    assert_eq!(
        bench.variables,
        [0.0, 1.0],
        "the mean divides by one, not by two"
    );
    assert_eq!(
        bench.push(a, &work_a, [9.0, 9.0]),
        Verdict::Stale { staleness: 1 }
    );
    assert_eq!(bench.variables, [0.0, 1.0]);
    assert!(matches!(
        bench.core.take_facts()[..],
        [
            ..,
            Fact::Kept(Record::Dropped {
                reason: Dropped::Stale,
                ..
            })
        ]
    ));
}

#[test]
fn each_gradient_is_applied_when_it_comes() {
    let mut bench = asynchronous(4, false);
    let (a, b) = (bench.join(), bench.join());
    let (work_a, work_b) = (bench.work(a), bench.work(b));
    assert_eq!([serial(&work_a), serial(&work_b)], [0, 1]);
    assert_eq!(bench.push(b, &work_b, [1.0, 0.0]), Verdict::Accepted);
    assert_eq!(bench.variables, [0.5, 2.0]);
    let next_b = bench.work(b);
    assert_eq!(serial(&next_b), 2, "nobody waits for a");
    assert_eq!(bench.push(a, &work_a, [0.0, 1.0]), Verdict::Accepted);
    assert_eq!(bench.variables, [0.5, 1.5]);
    assert_eq!(bench.core.at().global_step, GlobalStep(2));
}

#[test]
fn a_gradient_that_too_many_updates_have_overtaken_is_dropped_and_computed_anew() {
    let mut bench = asynchronous(2, false);
    let (a, b) = (bench.join(), bench.join());
    let work_a = bench.work(a);
    for _ in 0..3 {
        let work = bench.work(b);
        assert_eq!(bench.push(b, &work, [1.0, 0.0]), Verdict::Accepted);
    }
    let variables = bench.variables;
    assert_eq!(
        bench.push(a, &work_a, [9.0, 9.0]),
        Verdict::Stale { staleness: 3 }
    );
    assert_eq!(bench.variables, variables);
    let again = bench.work(a);
    assert_eq!(serial(&again), serial(&work_a));
    assert_eq!(bench.push(a, &again, [1.0, 1.0]), Verdict::Accepted);
}

#[test]
fn a_repeated_push_does_not_count_twice_even_after_the_servers_death() {
    let mut before = asynchronous(4, false);
    let (a, b) = (before.join(), before.join());
    let (work_a, work_b) = (before.work(a), before.work(b));
    before.push(b, &work_b, [1.0, 0.0]);
    let applied = before.core.asynchronous.applied.clone();

    let mut after = asynchronous(4, false);
    after.core = Core::new(
        after.now,
        after.core.run.clone(),
        after.core.limits.clone(),
        before.core.at(),
        applied,
    );
    let (a_again, b_again) = (after.join(), after.join());
    let variables = after.variables;
    assert_eq!(
        after.push(b_again, &work_b, [1.0, 0.0]),
        Verdict::Accepted,
        "it counts already"
    );
    assert_eq!(after.variables, variables);
    assert_eq!(serial(&after.work(a_again)), serial(&work_a));
    assert_eq!(serial(&after.work(b_again)), 2);
    assert_eq!(before.push(a, &work_a, [0.0, 1.0]), Verdict::Accepted);
}

#[test]
fn the_learning_rate_may_be_scaled_by_the_staleness() {
    let mut bench = asynchronous(4, true);
    let (a, b) = (bench.join(), bench.join());
    let (work_a, work_b) = (bench.work(a), bench.work(b));
    bench.push(b, &work_b, [0.0, 0.0]);
    bench.push(a, &work_a, [1.0, 0.0]);
    assert_eq!(bench.variables, [0.75, 2.0], "half of the rate of 0.5");
}

#[test]
fn a_lost_worker_leaves_its_serial_to_another() {
    let mut bench = asynchronous(4, false);
    let (a, b) = (bench.join(), bench.join());
    let work_a = bench.work(a);
    bench.core.leave(a);
    assert_eq!(serial(&bench.work(b)), serial(&work_a));
}

#[test]
fn variables_that_have_moved_are_nobodys_fault() {
    let mut bench = asynchronous(4, false);
    let (a, b) = (bench.join(), bench.join());
    let work = bench.work(a);
    assert_eq!(bench.push(a, &work, [f32::NAN, 0.0]), Verdict::InDoubt);
    let again = bench.work(b);
    assert_eq!(again.tower_step, work.tower_step);
    assert_eq!(bench.push(b, &again, [1.0, 0.0]), Verdict::Accepted);
    assert!(matches!(bench.pull(a), Some(Given::Work(_))));
}

#[test]
fn what_is_overdue_is_also_given_to_another() {
    let mut bench = asynchronous(4, false);
    let (slow, quick) = (bench.join(), bench.join());
    let held = bench.work(slow);
    for _ in 0..8 {
        let work = bench.work(quick);
        bench.push(quick, &work, [0.0, 0.0]);
    }
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.work(quick).tower_step, held.tower_step);
}
