//! The decisions of a run, without a clock or a network.

use pserver_run::Tower;
use pserver_run::member::SECRET_BYTES;

use super::*;
use crate::fixtures::{self, Toy, run_config, some_time};

mod doubt;
mod drain;
mod modes;

const LEASE: Duration = Duration::from_secs(10);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A run of two towers over two numbers, which begin as 1 and 2, and a clock.
struct Bench {
    core: Core<Toy>,
    variables: [f32; 2],
    now: Instant,
}

/// A tower step for a worker.
#[derive(Clone, Copy, Debug)]
struct Work {
    tower_step: TowerStep,
    attempt: u32,
    state_digest: StateDigest,
}

/// A stand-in for the digest of the state at a step.
fn at(step: u64) -> At {
    At {
        global_step: GlobalStep(step),
        digest: StateDigest(u128::from(step) + 1000),
    }
}

impl Bench {
    fn new(max_steps: u64) -> Self {
        Bench::of(run_config(), max_steps, 0.0)
    }

    fn of(run: RunConfig, max_steps: u64, audit_fraction: f64) -> Self {
        let limits = Limits {
            max_steps: GlobalStep(max_steps),
            worker_lease: LEASE,
            mixed: false,
            min_workers: 1,
            stall_timeout: STALL_TIMEOUT,
            audit_fraction,
        };
        let now = some_time();
        Bench {
            core: Core::new(now, run, limits, at(0), AppliedSerials::default()),
            variables: [1.0, 2.0],
            now,
        }
    }

    fn join(&mut self) -> Member {
        self.register(registration(1)).unwrap().member
    }

    fn register(&mut self, registration: Registration) -> Result<Registered, Refusal> {
        let secret = Secret([self.core.members.ids().count() as u8; SECRET_BYTES]);
        self.core.register(self.now, registration, secret)
    }

    fn pull(&mut self, member: Member) -> Option<Given> {
        self.core.pull(self.now, Pull { member, held: None })
    }

    fn work(&mut self, member: Member) -> Work {
        match self.pull(member) {
            Some(Given::Work(assigned)) => Work {
                tower_step: assigned.tower_step,
                attempt: assigned.attempt,
                state_digest: self.core.at().digest,
            },
            other => panic!("expected work, got {other:?}"),
        }
    }

    fn push(&mut self, member: Member, work: &Work, gradient: [f32; 2]) -> Verdict {
        self.hand_in(self.push_of(member, work), gradient)
    }

    /// What an honest worker says of its gradient.
    fn push_of(&self, member: Member, work: &Work) -> Push {
        let mut sequence = self.core.sequence.clone();
        Push {
            state_digest: work.state_digest,
            examples_digest: ExamplesDigest::of(sequence.samples(work.tower_step)).0,
            attempt: work.attempt,
            ..fixtures::push(member, work.tower_step)
        }
    }

    fn hand_in(&mut self, push: Push, gradient: [f32; 2]) -> Verdict {
        let update = match self.core.push(self.now, push, Toy(gradient)) {
            Decision::Answer(verdict) => return verdict,
            Decision::Complete(update) => update,
        };
        let count = update.contributions.len() as f32;
        let mut next = self.variables;
        for (index, variable) in next.iter_mut().enumerate() {
            let towers = update.contributions.iter().map(|one| one.gradient.0[index]);
            *variable -= update.learning_rate * towers.sum::<f32>() / count;
        }
        if !next.iter().all(|variable| variable.is_finite()) {
            return self.core.overflowed(&update);
        }
        self.variables = next;
        let digest = at(update.at.global_step.next().0).digest;
        self.core.committed(self.now, &update, digest);
        Verdict::Accepted
    }

    fn step(&mut self, member: Member) {
        for _ in 0..2 {
            let work = self.work(member);
            assert_eq!(self.push(member, &work, [0.5, 0.5]), Verdict::Accepted);
        }
    }

    /// Lets time pass as the server does, a tick at a time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(250));
            self.core.tick(self.now);
        }
    }
}

fn registration(threads: u32) -> Registration {
    Registration {
        protocol_version: 1,
        layout_fingerprint: 0,
        data_digest: run_config().data.digest(),
        numerics: Numerics::example(threads),
        name: "test".to_owned(),
    }
}

#[test]
fn a_step_is_committed_when_all_towers_are_in() {
    let mut bench = Bench::new(10);
    let (a, b) = (bench.join(), bench.join());
    let (work_a, work_b) = (bench.work(a), bench.work(b));
    assert_ne!(work_a.tower_step, work_b.tower_step);
    assert_eq!(bench.push(b, &work_b, [3.0, 0.0]), Verdict::Accepted);
    assert_eq!(bench.variables, [1.0, 2.0]);
    assert_eq!(
        bench.pull(b),
        None,
        "nothing to do until the other tower is in"
    );
    assert_eq!(bench.push(a, &work_a, [1.0, 4.0]), Verdict::Accepted);
    assert_eq!(bench.variables, [0.0, 1.0]);
    assert_eq!(bench.work(b).tower_step.global_step, GlobalStep(1));
}

#[test]
fn a_gradient_pushed_twice_counts_once() {
    let mut bench = Bench::new(10);
    let a = bench.join();
    let work = bench.work(a);
    assert_eq!(bench.push(a, &work, [1.0, 1.0]), Verdict::Accepted);
    assert_eq!(bench.push(a, &work, [1.0, 1.0]), Verdict::Accepted);
    assert_eq!(bench.core.at().global_step, GlobalStep(0));
    let other = bench.work(a);
    bench.push(a, &other, [1.0, 1.0]);
    assert_eq!(bench.variables, [0.5, 1.5]);
    assert_eq!(
        bench.push(a, &work, [1.0, 1.0]),
        Verdict::Stale { staleness: 1 }
    );
    assert_eq!(bench.variables, [0.5, 1.5]);
}

#[test]
fn a_gradient_of_another_state_does_not_count() {
    let mut bench = Bench::new(10);
    let a = bench.join();
    let work = bench.work(a);
    let other_state = Work {
        state_digest: StateDigest(1),
        ..work
    };
    assert_eq!(
        bench.push(a, &other_state, [1.0, 1.0]),
        Verdict::Stale { staleness: 0 }
    );
    let mut later = work;
    later.tower_step.global_step = GlobalStep(5);
    assert_eq!(
        bench.push(a, &later, [1.0, 1.0]),
        Verdict::Ahead {
            global_step: GlobalStep(0)
        }
    );
}

#[test]
fn the_tower_of_a_silent_worker_goes_to_another() {
    let mut bench = Bench::new(10);
    let (a, b) = (bench.join(), bench.join());
    bench.work(a);
    let work = bench.work(b);
    bench.push(b, &work, [1.0, 1.0]);
    bench.pass(LEASE);
    assert!(bench.core.heartbeat(bench.now, b));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.work(b).tower_step.tower, Tower(0));
    assert_eq!(bench.pull(a), Some(Given::Unregistered));
}

#[test]
fn without_its_secret_a_workers_number_is_nobodys() {
    let mut bench = Bench::new(10);
    let (honest, own) = (bench.join(), bench.join());
    let (work, _) = (bench.work(honest), bench.work(own));
    let impostor = Member {
        worker: honest.worker,
        ..own
    };
    assert_eq!(bench.pull(impostor), Some(Given::Unregistered));
    assert!(!bench.core.heartbeat(bench.now, impostor));
    bench.core.leave(impostor);
    assert_eq!(
        bench.push(impostor, &work, [f32::NAN; 2]),
        Verdict::Unregistered
    );
    assert_eq!(bench.core.take_facts().len(), 2, "two have joined");
    assert_eq!(bench.push(honest, &work, [0.5; 2]), Verdict::Accepted);
}

#[test]
fn a_complete_run_is_saved_before_the_workers_are_told() {
    let mut bench = Bench::new(1);
    let a = bench.join();
    bench.step(a);
    assert_eq!(bench.core.phase(), Phase::Closing(Goodbye::Complete));
    assert_eq!(bench.pull(a), None);
    bench.core.saved(bench.now);
    assert!(!bench.core.everyone_told(bench.now));
    assert_eq!(bench.pull(a), Some(Given::Goodbye(Goodbye::Complete)));
    assert!(bench.core.everyone_told(bench.now));
}

#[test]
fn a_run_that_was_complete_lingers_for_one_lease() {
    let mut bench = Bench::new(0);
    bench.core.saved(bench.now);
    assert!(!bench.core.everyone_told(bench.now));
    assert!(bench.core.everyone_told(bench.now + LEASE));
    bench.core.expect_nobody();
    assert!(bench.core.everyone_told(bench.now));
}

#[test]
fn workers_of_other_numerics_or_data_are_refused() {
    let mut bench = Bench::new(10);
    bench.join();
    let refusal = bench.register(registration(2)).unwrap_err();
    assert!(matches!(refusal, Refusal::Numerics { .. }), "{refusal}");
    let other_data = Registration {
        data_digest: [0; 32],
        ..registration(1)
    };
    let refusal = bench.register(other_data).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::DataSet {
            expected: "synthetic:100".to_owned()
        }
    );
}

#[test]
fn a_worker_that_left_before_any_update_fixes_no_numerics() {
    let other = || Registration {
        numerics: Numerics {
            libtorch: "0.0".to_owned(),
            ..Numerics::example(1)
        },
        ..registration(1)
    };
    let mut bench = Bench::new(10);
    let first = bench.register(other()).unwrap().member;
    assert_eq!(bench.core.run_to_join().numerics, Some(other().numerics));
    assert!(
        bench.register(registration(1)).is_err(),
        "both cannot take part"
    );
    bench.core.leave(first);
    let second = bench.join();
    bench.step(second);
    bench.core.leave(second);
    assert!(bench.register(other()).is_err(), "there was an update");
}

#[test]
fn an_overdue_tower_step_is_also_given_to_an_idle_worker_and_counts_once() {
    let mut bench = Bench::new(100);
    let (a, b) = (bench.join(), bench.join());
    for _ in 0..10 {
        bench.step(a);
    }
    let slow = bench.work(b);
    let quick = bench.work(a);
    bench.push(a, &quick, [1.0, 1.0]);
    assert_eq!(bench.pull(a), None);
    bench.now += Duration::from_secs(1);
    let again = bench.work(a);
    assert_eq!(again.tower_step, slow.tower_step);
    assert!(matches!(
        bench.core.take_facts().last(),
        Some(Fact::Kept(Record::Overdue { .. }))
    ));
    bench.push(a, &again, [1.0, 1.0]);
    let variables = bench.variables;
    assert_eq!(
        bench.push(b, &slow, [1.0, 1.0]),
        Verdict::Stale { staleness: 1 }
    );
    assert_eq!(bench.variables, variables);
}

#[test]
fn a_run_that_stands_still_says_who_is_missing() {
    let mut bench = Bench::new(10);
    let (a, b) = (bench.join(), bench.join());
    bench.work(a);
    let work = bench.work(b);
    bench.push(b, &work, [1.0, 1.0]);
    bench.core.take_facts();
    bench.pass(Duration::from_secs(7));
    let events = bench.core.take_facts();
    let [Fact::Kept(Record::StoodStill { waits_for })] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        waits_for,
        "step 0 tower 0, which worker 0 (test) since 5 s computes"
    );
    let work = bench.work(a);
    bench.push(a, &work, [1.0, 1.0]);
    assert!(matches!(
        bench.core.take_facts()[..],
        [Fact::Told(Notice::GoesOn { .. })]
    ));
}

#[test]
fn a_run_without_workers_ends_for_now_after_the_stall_timeout() {
    let mut bench = Bench::new(10);
    bench.pass(STALL_TIMEOUT);
    assert_eq!(bench.core.phase(), Phase::Training);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.core.phase(), Phase::Closing(Goodbye::Stopping));
}

#[test]
fn the_time_that_the_server_was_suspended_costs_no_worker_its_lease() {
    let mut bench = Bench::new(10);
    let a = bench.join();
    bench.work(a);
    bench.pass(LEASE / 2);
    bench.now += 100 * LEASE;
    bench.core.tick(bench.now);
    assert!(matches!(
        bench.core.take_facts()[..],
        [.., Fact::Kept(Record::Suspended { .. })]
    ));
    bench.pass(LEASE / 2);
    assert!(bench.core.heartbeat(bench.now, a));
}

#[test]
fn a_worker_that_hangs_but_gives_signs_of_life_does_not_keep_a_run_from_its_end() {
    let mut bench = Bench::new(1);
    let (a, hanging) = (bench.join(), bench.join());
    bench.step(a);
    bench.core.saved(bench.now);
    bench.pull(a);
    assert!(!bench.core.everyone_told(bench.now));
    for _ in 0..LEASE.as_secs() {
        bench.pass(Duration::from_secs(1));
        assert!(bench.core.heartbeat(bench.now, hanging));
    }
    assert!(bench.core.everyone_told(bench.now));
}
