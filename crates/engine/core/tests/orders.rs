//! Whatever workers ask in whatever order, lost answers and lost workers among it: every tower step counts exactly
//! once, and the numbers are those of one worker that does one thing after the other.
//!
//! A gradient is one number here, which follows from the tower step and the state that it is taken at; so the state
//! after each step is known beforehand.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use pserver_core::{AppliedSerials, At, Core, Decision, Given, Limits, Phase};
use pserver_run::member::{Member, Registration, SECRET_BYTES, Secret};
use pserver_run::request::{Goodbye, Losses, Pull, Push, Verdict};
use pserver_run::{
    DataSet, Evidence, ExamplesDigest, GlobalStep, Mode, Numerics, RunConfig, SampleSequence,
    StateDigest, TowerStep,
};

const NUM_WORKERS: usize = 4;
const NUM_STEPS: u64 = 12;
const NUM_TOWERS: u32 = 3;
const LEASE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Number(f32);

impl Evidence for Number {
    fn norm(&self) -> f32 {
        self.0.abs()
    }

    fn same_bits(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Move {
    Register(usize),
    Pull(usize),
    /// The worker hands in what it was given last.
    Push(usize),
    /// It hands in the same once more, though it was answered: the answer was lost.
    PushAgain(usize),
    /// It hands in nonsense for what it was given last.
    PushNonsense(usize),
    Leave(usize),
    /// Time passes, with a tick; who does nothing in the meantime may lose its lease.
    Pass(u64),
}

fn any_move() -> impl Strategy<Value = Move> {
    let worker = 0..NUM_WORKERS;
    prop_oneof![
        1 => worker.clone().prop_map(Move::Register),
        8 => worker.clone().prop_map(Move::Pull),
        8 => worker.clone().prop_map(Move::Push),
        2 => worker.clone().prop_map(Move::PushAgain),
        1 => worker.clone().prop_map(Move::PushNonsense),
        1 => worker.prop_map(Move::Leave),
        2 => (1_u64..6000).prop_map(Move::Pass),
    ]
}

/// What a worker was given last.
#[derive(Clone, Copy, Debug)]
struct Work {
    tower_step: TowerStep,
    attempt: u32,
    at: At,
    variable: f32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    member: Option<Member>,
    work: Option<Work>,
    before: Option<Work>,
}

struct World {
    core: Core<Number>,
    variable: f32,
    now: Instant,
    workers: [Worker; NUM_WORKERS],
    sequence: SampleSequence,
    secrets: u8,
    /// The tower steps of each update, in order.
    updates: Vec<Vec<TowerStep>>,
}

fn run_config(mode: Mode) -> RunConfig {
    RunConfig {
        num_towers: NUM_TOWERS,
        batch_size: 2,
        data: DataSet::Synthetic { num_examples: 100 },
        learning_rate: 0.5,
        num_epochs_per_decay: 1000.0,
        mode,
        ..RunConfig::example()
    }
}

fn digest(variable: f32) -> StateDigest {
    StateDigest(u128::from(variable.to_bits()))
}

fn gradient(tower_step: TowerStep, variable: f32) -> f32 {
    let key = tower_step.global_step.0 as f32 + 0.25 * tower_step.tower.0 as f32;
    0.125 * variable + 0.01 * key
}

impl World {
    fn new(mode: Mode) -> Self {
        let run = run_config(mode);
        let sequence = run.sequence();
        let limits = Limits {
            max_steps: GlobalStep(NUM_STEPS),
            worker_lease: LEASE,
            mixed: false,
            min_workers: 0,
            stall_timeout: Duration::from_secs(1_000_000),
            audit_fraction: 0.25,
        };
        let at = At {
            global_step: GlobalStep(0),
            digest: digest(1.0),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "a test needs some time to begin with"
        )]
        let now = Instant::now();
        World {
            core: Core::new(now, run, limits, at, AppliedSerials::default()),
            variable: 1.0,
            now,
            workers: [Worker::default(); NUM_WORKERS],
            sequence,
            secrets: 0,
            updates: Vec::new(),
        }
    }

    fn make(&mut self, next: &Move) {
        match *next {
            Move::Register(worker) => self.register(worker),
            Move::Pull(worker) => self.pull(worker),
            Move::Push(worker) => self.push_last(worker, gradient),
            Move::PushNonsense(worker) => self.push_last(worker, |_, _| f32::NAN),
            Move::PushAgain(worker) => {
                let Worker { member, before, .. } = self.workers[worker];
                if let (Some(member), Some(work)) = (member, before) {
                    self.push(member, work, gradient(work.tower_step, work.variable));
                }
            }
            Move::Leave(worker) => {
                if let Some(member) = self.workers[worker].member.take() {
                    self.core.leave(member);
                }
            }
            Move::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.core.tick(self.now);
            }
        }
        self.core.take_facts();
    }

    fn register(&mut self, worker: usize) {
        self.secrets = self.secrets.wrapping_add(1);
        let registration = Registration {
            protocol_version: 1,
            layout_fingerprint: 0,
            data_digest: run_config(Mode::Synchronous).data.digest(),
            numerics: Numerics::example(1),
            name: format!("worker {worker}"),
        };
        let secret = Secret([self.secrets; SECRET_BYTES]);
        let registered = self.core.register(self.now, registration, secret).unwrap();
        self.workers[worker] = Worker {
            member: Some(registered.member),
            ..Worker::default()
        };
    }

    fn pull(&mut self, worker: usize) {
        let Some(member) = self.workers[worker].member else {
            return self.register(worker);
        };
        match self.core.pull(self.now, Pull { member, held: None }) {
            Some(Given::Work(assigned)) => {
                self.workers[worker].work = Some(Work {
                    tower_step: assigned.tower_step,
                    attempt: assigned.attempt,
                    at: self.core.at(),
                    variable: self.variable,
                });
            }
            Some(Given::Unregistered | Given::Goodbye(Goodbye::Quarantined)) => {
                self.workers[worker] = Worker::default();
            }
            Some(Given::Goodbye(_)) | None => {}
        }
    }

    fn push_last(&mut self, worker: usize, gradient: fn(TowerStep, f32) -> f32) {
        let Worker { member, work, .. } = self.workers[worker];
        if let (Some(member), Some(work)) = (member, work) {
            self.workers[worker].work = None;
            self.workers[worker].before = Some(work);
            self.push(member, work, gradient(work.tower_step, work.variable));
        }
    }

    fn push(&mut self, member: Member, work: Work, gradient: f32) {
        let push = Push {
            member,
            tower_step: work.tower_step,
            state_digest: work.at.digest,
            losses: Losses {
                cross_entropy: 1.0,
                total: 1.0,
                ..Losses::default()
            },
            examples_digest: ExamplesDigest::of(self.sequence.samples(work.tower_step)).0,
            compute_time: Duration::from_millis(1),
            attempt: work.attempt,
        };
        let present = self.core.at();
        match self.core.push(self.now, push, Number(gradient)) {
            Decision::Answer(Verdict::Accepted) if !self.core.is_asynchronous() => {
                assert_eq!(work.at, present, "it is of another state");
            }
            Decision::Answer(_) => {}
            Decision::Complete(update) => {
                assert_eq!(update.at, self.core.at(), "it is one of the present state");
                let contributions = update.contributions.iter();
                self.updates
                    .push(contributions.map(|one| one.of()).collect());
                let sum: f32 = update.contributions.iter().map(|one| one.gradient.0).sum();
                let count = update.contributions.len() as f32;
                self.variable -= update.learning_rate * sum / count;
                assert!(self.variable.is_finite());
                self.core
                    .committed(self.now, &update, digest(self.variable));
            }
        }
    }

    /// Whether all who could be asked came to nonsense.
    fn has_diverged(&self) -> bool {
        self.core.phase() == Phase::Closing(Goodbye::Diverged)
    }

    /// Honest workers do what is left.
    fn finish(&mut self) {
        for worker in 0..NUM_WORKERS {
            self.register(worker);
        }
        for _ in 0..10_000 {
            if self.core.phase() != Phase::Training {
                break;
            }
            for worker in 0..NUM_WORKERS {
                self.make(&Move::Pull(worker));
                self.make(&Move::Push(worker));
            }
            self.make(&Move::Pass(100));
        }
        assert_eq!(self.core.phase(), Phase::Closing(Goodbye::Complete));
    }
}

/// The variable after all steps, computed one after the other.
fn in_order() -> f32 {
    let mut world = World::new(Mode::Synchronous);
    world.register(0);
    while world.core.phase() == Phase::Training {
        world.make(&Move::Pull(0));
        world.make(&Move::Push(0));
    }
    world.variable
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn in_step_every_order_comes_to_the_same_bits(moves in prop::collection::vec(any_move(), 0..300)) {
        let mut world = World::new(Mode::Synchronous);
        for next in &moves {
            if world.core.phase() == Phase::Training {
                world.make(next);
            }
        }
        prop_assume!(!world.has_diverged());
        world.finish();
        prop_assert_eq!(world.variable.to_bits(), in_order().to_bits());
        for (step, update) in (0..).zip(&world.updates) {
            let expected: Vec<TowerStep> = (0..NUM_TOWERS)
                .map(|tower| TowerStep {
                    global_step: GlobalStep(step),
                    tower: pserver_run::Tower(tower),
                })
                .collect();
            prop_assert_eq!(update, &expected);
        }
    }

    #[test]
    fn out_of_step_each_tower_step_counts_at_most_once(
        moves in prop::collection::vec(any_move(), 0..300), max_staleness in 0_u32..4,
    ) {
        let mut world = World::new(Mode::Asynchronous { max_staleness, scaled: true });
        for next in &moves {
            if world.core.phase() == Phase::Training {
                world.make(next);
            }
        }
        prop_assume!(!world.has_diverged());
        world.finish();
        let mut counted: Vec<TowerStep> = world.updates.concat();
        prop_assert_eq!(counted.len() as u64, NUM_STEPS);
        counted.sort_unstable();
        counted.dedup();
        prop_assert_eq!(counted.len() as u64, NUM_STEPS);
    }
}
