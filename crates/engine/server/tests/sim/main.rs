//! Does the run survive the network, and everything else? A simulation of whole runs, each from a
//! seed: the real service and state file over simulated TCP and a simulated clock, with workers that
//! make up their gradients, while processes are killed, links break and messages come twice.
//!
//! A tower step is a pure function, so whatever happens there is one right end: the bits that
//! [`reference`] computes in a loop. On the way no step that anybody has heard of may be lost.
//!
//! `CIFAR_SIM_SEED=7` simulates that seed alone, `CIFAR_SIM_SEEDS=10000` the seeds below that number.

#![expect(clippy::unwrap_used, reason = "this is a test")]
#![expect(clippy::print_stderr, reason = "a test tells what it saw")]

mod model;
mod reference;

mod dice;
mod plan;

mod death;
mod fake_follower;
mod fake_worker;
mod history;
mod server_host;
mod wire;
mod world;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::history::Totals;
use crate::world::{Outcome, simulate};

/// Seeds that are simulated unless the environment says otherwise.
const DEFAULT_SEEDS: u64 = 100;

/// Seeds that are simulated twice, to see that nothing but the seed decides.
const SEEDS_REPEATED: u64 = 10;

/// The seeds that the environment asks for.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        Some(
            text.parse()
                .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        )
    };
    match number("CIFAR_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CIFAR_SIM_SEEDS").unwrap_or(DEFAULT_SEEDS),
    }
}

/// What a thread found, with the seed that failed.
#[derive(Debug, Default)]
struct Found {
    totals: Totals,
    failure: Option<(u64, String)>,
}

impl Found {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.totals.add(&outcome.totals);
        if let Some(failure) = outcome.failure
            && self.failure.as_ref().is_none_or(|(first, _)| seed < *first)
        {
            self.failure = Some((seed, failure));
        }
    }
}

/// Simulates the seeds on all cores, up to the first that fails.
fn simulate_all(seeds: std::ops::Range<u64>) -> Found {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let found = Mutex::new(Found::default());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = simulate_caught(seed);
                    failed.fetch_or(outcome.failure.is_some(), Ordering::Relaxed);
                    found.lock().unwrap().add(seed, outcome);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// A panic is a failure of its seed too.
fn simulate_caught(seed: u64) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| simulate(seed))).unwrap_or_else(|_| Outcome {
        totals: Totals::default(),
        events: Vec::new(),
        failure: Some("it panicked, as said above".to_owned()),
    })
}

fn report(totals: &Totals, took: Duration) {
    let Totals {
        seeds,
        server_kills,
        kills_at_a_moment,
        worker_kills,
        link_faults,
        duplicates,
        impersonations,
        fetched,
        in_slots,
        stale,
        lost_leases,
        overdue,
        doubts,
        commits,
        checkpoints,
        simulated,
    } = totals;
    eprintln!(
        "simulation: {seeds} seeds, {server_kills} server kills ({kills_at_a_moment} in the middle \
         of an answer), {worker_kills} worker kills, {lost_leases} leases lost, {link_faults} \
         partitions and held links, {duplicates} duplicates and {impersonations} pushes under other numbers sent, {in_slots} gradients in slots, \
         {stale} pushes found stale, {overdue} tower steps overdue, {doubts} gradients in doubt, {commits} commits, {checkpoints} checkpoints, {fetched} fetched by followers, {} s \
         simulated, {:.1} s of wall time",
        simulated.as_secs(),
        took.as_secs_f64()
    );
}

#[test]
fn whatever_happens_a_run_ends_with_the_bits_of_an_undisturbed_one() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long the simulations take is real time; nothing in them depends on it"
    )]
    let start = std::time::Instant::now();
    let found = simulate_all(seeds());
    report(&found.totals, start.elapsed());
    if let Some((seed, failure)) = found.failure {
        panic!("seed {seed} fails, CIFAR_SIM_SEED={seed} repeats it: {failure}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut before = Vec::new();
    for seed in 0..SEEDS_REPEATED {
        let (first, second) = (simulate(seed).events, simulate(seed).events);
        let differs = first
            .iter()
            .zip(&second)
            .find(|(first, second)| first != second);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert_ne!(first, before, "another seed, another trace");
        before = first;
    }
}
