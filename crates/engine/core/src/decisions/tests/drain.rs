//! A run that ends at the next good moment.

use super::modes::asynchronous;
use super::*;

fn is_closing(bench: &Bench) -> bool {
    bench.core.phase() == Phase::Closing(Goodbye::Stopping)
}

#[test]
fn the_step_under_way_is_completed_and_no_other_begun() {
    let mut bench = Bench::new(10);
    let member = bench.join();
    let work = bench.work(member);
    assert_eq!(bench.push(member, &work, [0.5, 0.5]), Verdict::Accepted);
    // The worker has nothing at this moment, but its gradient is in.
    bench.core.drain(bench.now);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.core.phase(), Phase::Training);
    let work = bench.work(member);
    assert_eq!(bench.push(member, &work, [0.5, 0.5]), Verdict::Accepted);
    assert!(is_closing(&bench));
    assert_eq!(bench.core.at().global_step, GlobalStep(1));
    assert_eq!(bench.pull(member), None);
}

#[test]
fn a_run_that_nobody_works_on_ends_at_once() {
    let mut bench = Bench::new(10);
    bench.core.drain(bench.now);
    assert!(is_closing(&bench));
}

#[test]
fn a_step_that_is_never_complete_is_given_up() {
    let mut bench = Bench::new(10);
    let member = bench.join();
    bench.work(member);
    bench.core.drain(bench.now);
    let seconds = crate::decisions::drain::DRAIN_PATIENCE.as_secs();
    for second in 0..seconds {
        assert!(!is_closing(&bench), "after {second} s");
        assert!(bench.core.heartbeat(bench.now, member));
        bench.pass(Duration::from_secs(1));
    }
    assert!(is_closing(&bench));
}

#[test]
fn a_run_that_waits_for_no_step_completes_what_is_given_out() {
    let mut bench = asynchronous(4, false);
    let (a, b) = (bench.join(), bench.join());
    let (work_a, work_b) = (bench.work(a), bench.work(b));
    bench.core.drain(bench.now);
    assert_eq!(bench.push(a, &work_a, [0.5, 0.5]), Verdict::Accepted);
    assert_eq!(bench.pull(a), None);
    assert!(!is_closing(&bench));
    assert_eq!(bench.push(b, &work_b, [0.5, 0.5]), Verdict::Accepted);
    assert!(is_closing(&bench));
}
