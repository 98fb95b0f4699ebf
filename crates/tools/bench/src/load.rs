//! How the cost of a server grows with its workers: many that compute nothing, in this process, each
//! with a connection of its own.

use std::fmt;
use std::iter;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use pserver_cli::args::number_of_seconds;
use pserver_cli::console::say;
use pserver_guard::Credentials;
use pserver_run::RunConfig;
use pserver_wire::client::Client;
use pserver_wire::messages::{Assignment, Member, PROTOCOL_VERSION, Pull, Registration, Then};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fake_worker::{Answers, gradient, numerics};
use crate::ledger_window::{Commits, Window, now_micros};
use crate::process_usage::ProcessUsage;
use crate::server_process::{ProgramPaths, ServerProcess};
use crate::statistics::Line;
use crate::table::{Table, cell};

/// Threads of the workers: as many as the server has for the wire.
pub(crate) const RUNTIME_THREADS: usize = 2;

/// Steps until buffers and connections have grown.
const WARM_UP_STEPS: u64 = 3;

/// Steps that are measured at least, however long they take.
const LEAST_STEPS: u64 = 5;

/// The longest wait for these steps.
const PATIENCE: Duration = Duration::from_secs(120);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The server is to stay below this, and what each tower in flight adds.
const GOAL_MB: f64 = 60.0;
const GOAL_MB_A_TOWER: f64 = 4.3;

/// A point this far from the straight line is a cliff.
const LINEAR_WITHIN: f64 = 0.25;

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Most workers; measured are 1, 2, 4 and so on up to this many, with as many towers
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub workers: u32,

    /// For how long each
    #[arg(long, default_value_t = 8.0, value_name = "SECS", value_parser = number_of_seconds)]
    pub seconds: f64,

    /// Where the programs are.
    #[command(flatten)]
    pub programs: ProgramPaths,
}

/// What a server with so many workers needs.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Workers, and towers.
    pub workers: u32,
    /// Steps that were measured.
    pub steps: usize,
    /// Time of a step.
    pub step_ms: f64,
    /// CPU time of the server for a step.
    pub server_cpu_ms_per_step: f64,
    /// CPU time of all workers for a step.
    pub workers_cpu_ms_per_step: f64,
    /// The part of the step in which the server commits.
    pub commit_ms: f64,
    /// Resident memory of the server at the end.
    pub server_resident_mb: f64,
    /// The most that the server ever had resident.
    pub server_peak_mb: f64,
    /// Where its memory is to stay below.
    pub server_goal_mb: f64,
    /// Tower steps of the worker that had the fewest.
    pub fewest_tower_steps: u64,
    /// Tower steps of the worker that had the most.
    pub most_tower_steps: u64,
}

/// The measurements of 1, 2, 4 and so on workers.
#[derive(Clone, Debug, Serialize)]
pub struct Loads {
    /// In order of workers.
    pub loads: Vec<Load>,
    /// How far the time of a step is from a straight line in the number of workers, at most; `None`
    /// of fewer than three numbers of workers.
    pub largest_deviation: Option<f64>,
}

/// Measures a server with 1, 2, 4 and so on workers.
///
/// # Errors
///
/// If a server ends, or a worker is told anything but work.
pub fn measure(args: &LoadArgs) -> anyhow::Result<Loads> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .context("cannot start the threads of the workers")?;
    let mut loads = Vec::new();
    for workers in numbers_of_workers(args.workers) {
        say(&format!("{workers} of {} workers", args.workers));
        let load = measure_one(&runtime, args, workers)
            .with_context(|| format!("with {workers} workers"))?;
        loads.push(load);
    }
    Ok(Loads::new(loads))
}

/// 1, 2, 4 and so on, and `most` itself.
fn numbers_of_workers(most: u32) -> Vec<u32> {
    let powers = iter::successors(Some(1_u32), |number| number.checked_mul(2));
    powers
        .take_while(|number| *number < most)
        .chain([most])
        .collect()
}

fn measure_one(runtime: &Runtime, args: &LoadArgs, workers: u32) -> anyhow::Result<Load> {
    let flags = [
        "--data=synthetic".to_owned(),
        format!("--towers={workers}"),
        // Written by the way, it would hit one number of workers and not the other.
        "--checkpoint-steps=1000000000".to_owned(),
    ];
    let server = ServerProcess::start(&args.programs, &flags)?;
    let mut crowd = Crowd::start(runtime, &server, workers)?;
    crowd.wait_for_step(WARM_UP_STEPS)?;

    let usage = || anyhow::Ok((server.usage()?, ProcessUsage::of_this()?));
    let (from_micros, before) = (now_micros(), usage()?);
    crowd.wait(Duration::from_secs_f64(args.seconds))?;
    crowd.wait_for_step(WARM_UP_STEPS + LEAST_STEPS)?;
    let (to_micros, after) = (now_micros(), usage()?);
    crowd.stop()?;

    let history = server.history()?;
    let window = Window {
        from_micros,
        to_micros,
    };
    let commits = Commits::within(&history, window);
    let steps = commits.len();
    let tower_steps = commits.tower_steps_by_worker(workers);
    let step_time = commits.step_time().context("no two steps were done")?;
    let millis_a_step = |time: Duration| 1000.0 * time.as_secs_f64() / steps as f64;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    Ok(Load {
        workers,
        steps,
        step_ms: 1000.0 * step_time.as_secs_f64(),
        server_cpu_ms_per_step: millis_a_step(after.0.cpu - before.0.cpu),
        workers_cpu_ms_per_step: millis_a_step(after.1.cpu - before.1.cpu),
        commit_ms: millis_a_step(commits.commit_time()),
        server_resident_mb: megabytes(after.0.resident_bytes),
        server_peak_mb: megabytes(after.0.peak_bytes),
        server_goal_mb: GOAL_MB + GOAL_MB_A_TOWER * f64::from(workers),
        fewest_tower_steps: tower_steps.iter().copied().min().unwrap_or(0),
        most_tower_steps: tower_steps.iter().copied().max().unwrap_or(0),
    })
}

/// Workers at work.
pub(crate) struct Crowd<'a> {
    runtime: &'a Runtime,
    tasks: JoinSet<anyhow::Result<()>>,
    /// Tells the workers to stop.
    stop: watch::Sender<bool>,
    /// For asking how the run stands.
    client: Client,
}

impl<'a> Crowd<'a> {
    pub(crate) fn start(
        runtime: &'a Runtime,
        server: &ServerProcess,
        workers: u32,
    ) -> anyhow::Result<Self> {
        let layout = cifar_model::layout();
        let (stop, stopped) = watch::channel(false);
        let _context = runtime.enter();
        let unencrypted = Credentials::default();
        let mut client = Client::new(server.address(), &layout, &unencrypted)?;
        let run = runtime.block_on(client.run())?;
        let mut tasks = JoinSet::new();
        for number in 0..workers {
            let client = Client::new(server.address(), &layout, &unencrypted)?;
            let answers = Answers::new(&run, &gradient(&layout, number));
            let worker = work(client, run.clone(), answers, stopped.clone());
            tasks.spawn(worker);
        }
        Ok(Crowd {
            runtime,
            tasks,
            stop,
            client,
        })
    }

    /// Waits until the run has come to a step.
    pub(crate) fn wait_for_step(&mut self, step: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let status = self.runtime.block_on(self.client.status())?;
            if status.global_step.0 >= step {
                return Ok(());
            }
            self.wait(LOOK_AGAIN)?;
        }
        bail!("the run does not come to step {step}")
    }

    /// Lets the workers work for so long.
    pub(crate) fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        let tasks = &mut self.tasks;
        self.runtime.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(time) => Ok(()),
                Some(ended) = tasks.join_next() => ended?.and_then(|()| bail!("a worker ended")),
            }
        })
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.runtime.block_on(async {
            while let Some(ended) = self.tasks.join_next().await {
                ended??;
            }
            Ok(())
        })
    }
}

/// The life of a worker: registers, and answers work until it is told to stop.
async fn work(
    mut client: Client,
    run: RunConfig,
    mut answers: Answers,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let registration = Registration {
        protocol_version: PROTOCOL_VERSION,
        layout_fingerprint: cifar_model::layout().fingerprint(),
        data_digest: run.data.digest(),
        numerics: numerics(),
        name: "fake".to_owned(),
    };
    let member = client.register(registration).await?.member;
    tokio::select! {
        never = answer_all(&mut client, member, &mut answers) => never,
        _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
    }
}

/// Pulls and pushes for ever, as a real worker does.
async fn answer_all(
    client: &mut Client,
    member: Member,
    answers: &mut Answers,
) -> anyhow::Result<()> {
    let mut next = None;
    loop {
        let assignment = match next.take() {
            Some(assignment) => assignment,
            None => client.pull(Pull { member, held: None }).await?,
        };
        match assignment {
            Assignment::Work(work) => {
                let (push, gradients) = answers.to(member, &work);
                next = client.push(push, gradients, Then::Pull).await?.next;
            }
            Assignment::Wait => {}
            other => bail!("a worker is told {other:?}"),
        }
    }
}

impl Loads {
    fn new(loads: Vec<Load>) -> Self {
        let points: Vec<(f64, f64)> = loads
            .iter()
            .map(|load| (f64::from(load.workers), load.step_ms))
            .collect();
        // Two points always lie on a line.
        let line = Line::through(&points).filter(|_| points.len() > 2);
        Loads {
            largest_deviation: line.map(|line| line.largest_deviation(&points)),
            loads,
        }
    }
}

impl fmt::Display for Loads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            "workers",
            "steps",
            "ms a step",
            "ms a tower",
            "server CPU ms a step",
            "a tower",
            "commit ms",
            "server MB",
            "peak MB",
            "goal MB",
            "tower steps of a worker",
        ]);
        for load in &self.loads {
            let a_tower = |number: f64| cell(Some(number / f64::from(load.workers)), 2);
            table.row(vec![
                load.workers.to_string(),
                load.steps.to_string(),
                cell(Some(load.step_ms), 2),
                a_tower(load.step_ms),
                cell(Some(load.server_cpu_ms_per_step), 2),
                a_tower(load.server_cpu_ms_per_step),
                cell(Some(load.commit_ms), 2),
                cell(Some(load.server_resident_mb), 0),
                cell(Some(load.server_peak_mb), 0),
                cell(Some(load.server_goal_mb), 0),
                format!("{} to {}", load.fewest_tower_steps, load.most_tower_steps),
            ]);
        }
        write!(f, "{table}")?;
        let Some(deviation) = self.largest_deviation else {
            return Ok(());
        };
        let percent = 100.0 * deviation;
        if deviation <= LINEAR_WITHIN {
            writeln!(f, "\nlinear: at most {percent:.0} % from a straight line")
        } else {
            writeln!(f, "\nnot linear: up to {percent:.0} % from a straight line")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_workers_doubles_up_to_the_most() {
        assert_eq!(numbers_of_workers(1), [1]);
        assert_eq!(numbers_of_workers(8), [1, 2, 4, 8]);
        assert_eq!(numbers_of_workers(11), [1, 2, 4, 8, 11]);
    }

    fn load(workers: u32, step_ms: f64) -> Load {
        Load {
            workers,
            steps: 10,
            step_ms,
            server_cpu_ms_per_step: step_ms / 2.0,
            workers_cpu_ms_per_step: step_ms / 2.0,
            commit_ms: 1.0,
            server_resident_mb: 50.0,
            server_peak_mb: 55.0,
            server_goal_mb: 64.3,
            fewest_tower_steps: 9,
            most_tower_steps: 11,
        }
    }

    #[test]
    fn a_straight_line_is_told_from_a_cliff() {
        let told = |times: [f64; 4]| {
            let workers = [1, 2, 4, 8];
            let loads = iter::zip(workers, times).map(|(workers, ms)| load(workers, ms));
            Loads::new(loads.collect()).to_string()
        };
        let straight = told([10.0, 19.0, 39.0, 80.0]);
        assert!(straight.contains("\nlinear"), "{straight}");
        assert!(straight.contains(" 9 to 11 |"), "{straight}");
        let cliff = told([10.0, 20.0, 40.0, 400.0]);
        assert!(cliff.contains("\nnot linear"), "{cliff}");
    }

    #[test]
    fn two_points_say_nothing_of_a_line() {
        let loads = Loads::new(vec![load(1, 1.0), load(2, 9.0)]);
        assert_eq!(loads.largest_deviation, None);
        assert!(!loads.to_string().contains("linear"));
    }
}
