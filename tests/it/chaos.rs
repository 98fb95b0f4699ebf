//! A run in which something dies again and again, for as long as one likes.
//!
//! `CIFAR_CHAOS_MINUTES` says for how long (a few faults without it), `CIFAR_CHAOS_SEED` which faults.

use std::env;
use std::time::{Duration, Instant};

use pserver_cli::exit::Exit;
use pserver_run::stream::{Purpose, Stream};
use rustix::process::Signal;

use crate::cluster::{Builder, Cluster};

/// Faults of the short form.
const FEW_FAULTS: u64 = 8;

/// Steps between two faults, at most.
const MAX_STEPS_BETWEEN: u32 = 12;

/// Something that befalls a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillServer,
    KillWorker,
    AskWorkerToLeave,
    /// Stopped at this fault, it goes on at the next.
    StopWorker,
}

/// What befell a run.
#[derive(Debug, Default)]
struct Toll {
    servers_killed: u32,
    workers_killed: u32,
    workers_asked_to_leave: u32,
    workers_stopped: u32,
}

impl Toll {
    fn total(&self) -> u32 {
        self.servers_killed
            + self.workers_killed
            + self.workers_asked_to_leave
            + self.workers_stopped
    }
}

/// Small batches, so that much can happen in a minute, and a learning rate that they can take for
/// thousands of steps.
fn run() -> Builder {
    let flags = ["--worker-lease-secs", "2", "--learning-rate", "0.001"];
    Cluster::builder().batch_size(4).server_flags(&flags)
}

fn from_env<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    let number = text.parse().ok();
    assert!(number.is_some(), "{name}={text} is no number");
    number
}

#[test]
fn a_run_in_which_something_dies_again_and_again_comes_to_the_same_bits() {
    let minutes: Option<f64> = from_env("CIFAR_CHAOS_MINUTES");
    let seed = from_env("CIFAR_CHAOS_SEED").unwrap_or(1);
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    let mut cluster = run().workers(3).max_steps(100_000_000).start();
    let (mut toll, mut step) = (Toll::default(), 0);
    for index in 0.. {
        let is_over = match end {
            Some(end) => Instant::now() >= end,
            None => index >= FEW_FAULTS,
        };
        if is_over {
            break;
        }
        let mut stream = Stream::new(seed, Purpose::Chaos, index, 0);
        step += 1 + u64::from(stream.below(MAX_STEPS_BETWEEN));
        step = cluster.wait_for_step(step).0;
        befall(&mut cluster, fault(&mut stream), &mut stream, &mut toll);
    }
    let last_step = cluster.stop_server();
    let digest = cluster.load(last_step).state.digest();
    let faults = toll.total();
    eprintln!("seed {seed}: {faults} faults, {toll:?}, {last_step} steps, state {digest}");

    let mut undisturbed = run().workers(2).max_steps(last_step).start();
    for step in (0..last_step).step_by(100) {
        undisturbed.wait_for_step(step);
    }
    assert_eq!(digest, undisturbed.finish(), "seed {seed}");
}

fn fault(stream: &mut Stream) -> Fault {
    match stream.below(8) {
        0..3 => Fault::KillServer,
        3..6 => Fault::KillWorker,
        6 => Fault::AskWorkerToLeave,
        _ => Fault::StopWorker,
    }
}

fn befall(cluster: &mut Cluster, fault: Fault, stream: &mut Stream, toll: &mut Toll) {
    // The worker that was stopped goes on: its gradient comes late.
    for worker in &cluster.workers {
        worker.signal(Signal::CONT);
    }
    let worker = stream.below(cluster.workers.len() as u32) as usize;
    match fault {
        Fault::KillServer => {
            cluster.server.program.kill();
            cluster.start_server_again();
            toll.servers_killed += 1;
        }
        Fault::KillWorker => {
            cluster.workers.swap_remove(worker).kill();
            cluster.add_worker(&[]);
            toll.workers_killed += 1;
        }
        Fault::AskWorkerToLeave => {
            let mut leaving = cluster.workers.swap_remove(worker);
            // Before that a signal simply ends it.
            leaving.wait_until_said("registered");
            leaving.signal(Signal::TERM);
            assert_eq!(leaving.wait(), Exit::Terminated);
            cluster.add_worker(&[]);
            toll.workers_asked_to_leave += 1;
        }
        Fault::StopWorker => {
            cluster.workers[worker].signal(Signal::STOP);
            toll.workers_stopped += 1;
        }
    }
}
