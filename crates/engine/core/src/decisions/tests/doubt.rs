//! Gradients that look wrong, and workers that are.

use super::*;

/// The workers that were put into quarantine, and why.
fn quarantined(bench: &mut Bench) -> Vec<(WorkerId, String)> {
    let facts = bench.core.take_facts();
    let mut found = Vec::new();
    for fact in facts {
        if let Fact::Kept(Record::Quarantined { worker, reason }) = fact {
            found.push((WorkerId(worker), reason));
        }
    }
    found
}

/// Steps enough for the norms to have a median.
fn warmed_up(workers: usize) -> (Bench, Vec<Member>) {
    let mut bench = Bench::new(10_000);
    let members: Vec<Member> = (0..workers).map(|_| bench.join()).collect();
    for _ in 0..100 {
        bench.step(members[0]);
    }
    bench.core.take_facts();
    (bench, members)
}

#[test]
fn a_gradient_that_another_worker_makes_sense_of_costs_its_worker_the_membership() {
    let mut bench = Bench::new(10);
    let (a, b) = (bench.join(), bench.join());
    let (work_a, work_b) = (bench.work(a), bench.work(b));
    assert_eq!(bench.push(a, &work_a, [f32::NAN, 0.0]), Verdict::InDoubt);
    assert_eq!(bench.push(b, &work_b, [1.0, 1.0]), Verdict::Accepted);
    assert_eq!(bench.pull(a), None, "another is to check it");
    let again = bench.work(b);
    assert_eq!(again.tower_step, work_a.tower_step);
    assert_eq!(bench.push(b, &again, [1.0, 1.0]), Verdict::Accepted);
    assert_eq!(bench.variables, [0.5, 1.5]);
    let told = quarantined(&mut bench);
    assert_eq!(told[0].0, a.worker);
    assert_eq!(
        told[0].1,
        "its gradient of step 0 tower 0 is wrong: it is not finite, and that of worker 1 is not"
    );
    assert_eq!(bench.pull(a), Some(Given::Goodbye(Goodbye::Quarantined)));
    bench.step(b);
}

#[test]
fn nonsense_of_every_worker_is_the_models_fault() {
    let mut bench = Bench::new(10);
    let (a, b) = (bench.join(), bench.join());
    let work = bench.work(a);
    bench.push(a, &work, [f32::NAN, 0.0]);
    let again = bench.work(b);
    assert_eq!(again.tower_step, work.tower_step);
    assert_eq!(
        bench.push(b, &again, [f32::NAN, 0.0]),
        Verdict::Goodbye(Goodbye::Diverged)
    );
    assert_eq!(bench.core.phase(), Phase::Closing(Goodbye::Diverged));
    assert_eq!(bench.variables, [1.0, 2.0], "the last good state");
}

#[test]
fn two_bad_workers_do_not_outvote_a_good_one() {
    let mut bench = Bench::new(10);
    let (bad, worse, good) = (bench.join(), bench.join(), bench.join());
    let work = bench.work(bad);
    let other = bench.work(good);
    bench.push(bad, &work, [f32::NAN, 0.0]);
    let again = bench.work(worse);
    assert_eq!(again.tower_step, work.tower_step);
    assert_eq!(
        bench.push(worse, &again, [f32::NAN, 0.0]),
        Verdict::InDoubt,
        "the good one has not been asked"
    );
    bench.push(good, &other, [1.0, 1.0]);
    let third = bench.work(good);
    assert_eq!((third.tower_step, third.attempt), (work.tower_step, 2));
    assert_eq!(bench.push(good, &third, [1.0, 1.0]), Verdict::Accepted);
    let told = quarantined(&mut bench);
    let at_fault: Vec<WorkerId> = told.iter().map(|(worker, _)| *worker).collect();
    assert_eq!(at_fault, [bad.worker, worse.worker]);
    assert_eq!(bench.variables, [0.5, 1.5]);
}

#[test]
fn a_worker_that_is_alone_computes_it_once_more_itself() {
    let mut bench = Bench::new(10);
    let a = bench.join();
    let work = bench.work(a);
    assert_eq!(bench.push(a, &work, [f32::NAN, 0.0]), Verdict::InDoubt);
    let again = bench.work(a);
    assert_eq!((again.tower_step, again.attempt), (work.tower_step, 1));
    assert_eq!(
        bench.push(a, &work, [f32::NAN, 0.0]),
        Verdict::Accepted,
        "the first answer, sent twice, is no second answer"
    );
    assert_eq!(bench.push(a, &again, [1.0, 1.0]), Verdict::Accepted);
    assert_eq!(quarantined(&mut bench), []);

    let work = bench.work(a);
    bench.push(a, &work, [f32::NAN, 0.0]);
    let again = bench.work(a);
    assert_eq!(
        bench.push(a, &again, [f32::NAN, 0.0]),
        Verdict::Goodbye(Goodbye::Diverged)
    );
}

#[test]
fn an_absurd_gradient_is_checked_like_one_that_is_not_finite() {
    let (mut bench, members) = warmed_up(2);
    let [a, b] = members[..] else { unreachable!() };
    let work = bench.work(b);
    assert_eq!(bench.push(b, &work, [1e6, 0.0]), Verdict::InDoubt);
    bench.step(a);
    let told = quarantined(&mut bench);
    assert_eq!(told[0].0, b.worker);
    assert!(
        told[0].1.contains("its norm is 1000000, the median"),
        "{told:?}"
    );
}

#[test]
fn a_worker_that_used_other_examples_is_caught() {
    let mut bench = Bench::new(10);
    let (a, b) = (bench.join(), bench.join());
    let work = bench.work(a);
    let push = Push {
        examples_digest: [7; 16],
        ..bench.push_of(a, &work)
    };
    assert_eq!(
        bench.hand_in(push, [1.0, 1.0]),
        Verdict::Goodbye(Goodbye::Quarantined)
    );
    let told = quarantined(&mut bench);
    assert_eq!(
        told,
        [(
            a.worker,
            "it did not use the examples of step 0 tower 0".to_owned()
        )]
    );
    bench.step(b);
}

#[test]
fn an_audit_that_does_not_agree_names_both_and_a_third_decides() {
    let mut bench = Bench::of(run_config(), 10, 1.0);
    let [a, b, c] = [(); 3].map(|()| bench.join());
    let first = bench.work(a);
    assert_eq!(bench.push(a, &first, [1.0, 1.0]), Verdict::Accepted);
    let second = bench.work(b);
    assert_eq!(second.tower_step, first.tower_step, "b is to do it again");
    assert_eq!(bench.push(b, &second, [2.0, 1.0]), Verdict::Accepted);
    let disagreement = bench.core.take_facts();
    let Some(Fact::Kept(Record::Audited {
        workers,
        equal: false,
        ..
    })) = disagreement.last()
    else {
        panic!("{disagreement:?}")
    };
    assert_eq!(workers.map(WorkerId), [a.worker, b.worker]);
    let third = bench.work(c);
    assert_eq!(third.tower_step, first.tower_step);
    bench.push(c, &third, [1.0, 1.0]);
    assert_eq!(quarantined(&mut bench)[0].0, b.worker);
}

#[test]
fn an_audited_run_comes_to_the_same_state() {
    let mut audited = Bench::of(run_config(), 4, 0.5);
    let mut plain = Bench::new(4);
    let mut audits = 0;
    for bench in [&mut audited, &mut plain] {
        let members = [bench.join(), bench.join()];
        while bench.core.phase() == Phase::Training {
            for member in members {
                if let Some(Given::Work(_)) = bench.pull(member) {
                    let work = bench.work(member);
                    bench.push(member, &work, [0.25, 0.5]);
                }
            }
            let facts = bench.core.take_facts();
            audits += facts
                .iter()
                .filter(|fact| matches!(fact, Fact::Kept(Record::Audited { equal: true, .. })))
                .count();
        }
    }
    assert_eq!(audited.variables, plain.variables);
    assert!((1..8).contains(&audits), "{audits}");
}

#[test]
fn a_second_opinion_is_not_waited_for_from_a_worker_that_hangs() {
    let (mut bench, members) = warmed_up(2);
    let [a, hanging] = members[..] else {
        unreachable!()
    };
    let work = bench.work(a);
    assert_eq!(bench.push(a, &work, [f32::NAN, 0.0]), Verdict::InDoubt);
    let other = bench.work(a);
    assert_ne!(other.tower_step, work.tower_step);
    bench.push(a, &other, [0.5, 0.5]);
    assert_eq!(bench.pull(a), None, "the other may still come for it");
    for _ in 0..15 {
        bench.pass(Duration::from_secs(1));
        bench.core.heartbeat(bench.now, hanging);
        bench.core.heartbeat(bench.now, a);
    }
    let again = bench.work(a);
    assert_eq!(again.tower_step, work.tower_step);
    assert_eq!(bench.push(a, &again, [0.5, 0.5]), Verdict::Accepted);
}
