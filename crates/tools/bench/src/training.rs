//! A server and its workers, as users start them, for a stretch of time.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use pserver_cli::args::number_of_seconds;

use crate::figures::{
    EXAMPLES_PER_SEC, Figures, SERVER_CPU_MS_PER_STEP, SERVER_CPU_SHARE, SERVER_PEAK_MB,
    SERVER_RESIDENT_MB, WORKER_RESIDENT_MB, WORKERS_CPU_MS_PER_STEP,
};
use crate::ledger_window::{Commits, Window, now_micros};
use crate::process_usage::ProcessUsage;
use crate::server_process::{ProgramPaths, ServerProcess};
use crate::spectators::{self, Spectators};

const BATCH_SIZE: u32 = 128;

/// Until this step caches and allocators have come to be as they stay.
const WARM_UP_STEPS: usize = 5;

/// Steps that are measured at least, however long they take.
const LEAST_STEPS: usize = 5;

/// Longest wait for a step: before the first, the workers draw their data set.
const PATIENCE: Duration = Duration::from_secs(120);

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct TrainingArgs {
    /// Workers, and towers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub workers: u32,

    /// For how long
    #[arg(long, default_value_t = 20.0, value_name = "SECS", value_parser = number_of_seconds)]
    pub seconds: f64,

    /// A flag of cifar-ps, such as --server-flag=--kernels=torch; may be given again
    #[arg(long, value_name = "FLAG")]
    pub server_flag: Vec<String>,

    /// A flag of each cifar-worker; may be given again
    #[arg(long, value_name = "FLAG")]
    pub worker_flag: Vec<String>,

    /// Has the page open in this browser, a Chromium, and the metrics collected every second
    #[arg(long, value_name = "FILE")]
    pub watched_with: Option<PathBuf>,

    /// Where the programs are.
    #[command(flatten)]
    pub programs: ProgramPaths,
}

/// Starts a run, waits until it is under way, and measures it.
///
/// # Errors
///
/// If a process ends, with what it said.
pub fn measure(args: &TrainingArgs) -> anyhow::Result<Figures> {
    let mut flags = vec![
        "--data=synthetic".to_owned(),
        format!("--towers={}", args.workers),
        format!("--batch-size={BATCH_SIZE}"),
    ];
    if args.watched_with.is_some() {
        flags.push("--http=127.0.0.1:0".to_owned());
    }
    flags.extend_from_slice(&args.server_flag);
    let mut run = ServerProcess::start(&args.programs, &flags)?;
    for _ in 0..args.workers {
        run.add_worker(&args.worker_flag)?;
    }
    wait_for_step(&mut run, WARM_UP_STEPS)?;
    let spectators = match &args.watched_with {
        Some(browser) => Some(Spectators::come(browser, &run.page_address()?)?),
        None => None,
    };
    if spectators.is_some() {
        thread::sleep(spectators::TIME_TO_START);
    }

    let first = run.history()?.commits.len();
    let (from_micros, before) = (now_micros(), Used::by(&run)?);
    thread::sleep(Duration::from_secs_f64(args.seconds));
    wait_for_step(&mut run, first + LEAST_STEPS)?;
    let (to_micros, after) = (now_micros(), Used::by(&run)?);
    run.check()?;
    if let Some(spectators) = spectators {
        spectators.leave()?;
    }

    let history = run.history()?;
    let window = Window {
        from_micros,
        to_micros,
    };
    let commits = Commits::within(&history, window);
    let examples = f64::from(args.workers * BATCH_SIZE);
    let step_time = commits.step_time().context("no two steps were done")?;
    let figures = commits
        .phases()
        .with(EXAMPLES_PER_SEC, examples / step_time.as_secs_f64());
    Ok(after
        .since(&before, commits.len())
        .into_iter()
        .fold(figures, |figures, (name, number)| {
            figures.with(name, number)
        }))
}

fn wait_for_step(run: &mut ServerProcess, step: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        run.check()?;
        if run.history().is_ok_and(|it| it.commits.len() >= step) {
            return Ok(());
        }
        thread::sleep(LOOK_AGAIN);
    }
    bail!("the run does not come to step {step}")
}

/// What the processes of a run have used.
struct Used {
    server: ProcessUsage,
    workers: Vec<ProcessUsage>,
}

impl Used {
    fn by(run: &ServerProcess) -> anyhow::Result<Self> {
        Ok(Used {
            server: run.usage()?,
            workers: run.usage_of_workers()?,
        })
    }

    /// The figures of the time since `before`, in which so many steps were done.
    fn since(&self, before: &Used, steps: usize) -> [(&'static str, f64); 6] {
        let server = (self.server.cpu - before.server.cpu).as_secs_f64();
        let cpu_of_workers =
            |used: &Used| -> Duration { used.workers.iter().map(|it| it.cpu).sum() };
        let workers = (cpu_of_workers(self) - cpu_of_workers(before)).as_secs_f64();
        let largest_worker = self.workers.iter().map(|it| it.resident_bytes).max();
        let millis_a_step = |seconds: f64| 1000.0 * seconds / steps as f64;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        [
            (SERVER_CPU_SHARE, server / (server + workers)),
            (SERVER_CPU_MS_PER_STEP, millis_a_step(server)),
            (WORKERS_CPU_MS_PER_STEP, millis_a_step(workers)),
            (SERVER_RESIDENT_MB, megabytes(self.server.resident_bytes)),
            (SERVER_PEAK_MB, megabytes(self.server.peak_bytes)),
            (WORKER_RESIDENT_MB, megabytes(largest_worker.unwrap_or(0))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_share_is_of_all_cpu_time() {
        let usage = |millis, megabytes: u64| ProcessUsage {
            cpu: Duration::from_millis(millis),
            resident_bytes: megabytes * 1_000_000,
            peak_bytes: megabytes * 2_000_000,
        };
        let used = |server, workers: [u64; 2]| Used {
            server: usage(server, 50),
            workers: workers.map(|millis| usage(millis, millis / 10)).into(),
        };
        let figures = used(130, [1500, 1400]).since(&used(100, [1000, 930]), 10);
        let expected = [0.03, 3.0, 97.0, 50.0, 100.0, 150.0];
        for ((name, number), expected) in figures.into_iter().zip(expected) {
            assert!((number - expected).abs() < 1e-9, "{name} is {number}");
        }
    }
}
