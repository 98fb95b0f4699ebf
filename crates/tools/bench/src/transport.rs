//! What a push and a pull cost where nothing is computed: one worker, two towers, a real server.
//!
//! Of each step, in this order:
//!
//! ```text
//! push of the first tower     the answer brings the second tower step    push
//! a question and its answer   a few bytes each                           messages alone
//! push of the second tower    the server commits, and the answer         push + commit + pull
//!                             brings the new variables
//! ```
//!
//! Gradients are written where a worker computes them, in its slot of shared memory or in memory that is
//! lent to the connection, before the time of a push begins. So what is timed is transport, together with
//! what the server does to every gradient that comes (its norm). The time of the commits, which the ledger
//! knows, is taken off: from the third line, and from the server's CPU time; that of the writing is taken off
//! the worker's.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cifar_worker::engine::Engine;
use clap::Args;
use pserver_cli::args::number_of_seconds;
use pserver_guard::Credentials;
use pserver_run::Layout;
use pserver_state::Values;
use pserver_wire::data_plane::DataPlane;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts};
use pserver_wire::messages::{Delivery, Verdict, Work};
use pserver_worker::worker_link::{Pulled, ServerLink, WorkerLink};
use rustix::time::{ClockId, clock_gettime};

use crate::fake_worker::{Answers, gradient, numerics};
use crate::figures::{
    CLIENT_CPU_S_PER_GB, COMMIT_MS, CONTROL_MS, DATA_MS, Figures, PULL_MS, PUSH_MS, PUSH_PULL_MS,
    SERVER_CPU_S_PER_GB,
};
use crate::ledger_window::{Commits, Window, now_micros};
use crate::process_usage::ProcessUsage;
use crate::server_process::{ProgramPaths, ServerProcess};
use crate::statistics::median;

const SEED: u32 = 1;

/// How long a server may take to answer at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Buffers and connections have grown by then.
const WARM_UP_STEPS: usize = 20;

/// Times that the model's bytes travel in a step: a pull and two pushes.
const TRIPS_A_STEP: usize = 3;

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct TransportArgs {
    /// For how long
    #[arg(long, default_value_t = 5.0, value_name = "SECS", value_parser = number_of_seconds)]
    pub seconds: f64,

    /// Way of variables and gradients: wire or shm
    #[arg(long, default_value = "wire", value_name = "PLANE")]
    pub data_plane: DataPlane,

    /// Where the programs are.
    #[command(flatten)]
    pub programs: ProgramPaths,
}

/// Measures pushes and pulls over the worker's own link to a server.
///
/// # Errors
///
/// If the server ends, or does not do as the protocol says.
pub fn measure(args: &TransportArgs) -> anyhow::Result<Figures> {
    let flags = ["--data=synthetic", "--towers=2"].map(str::to_owned);
    let server = ServerProcess::start(&args.programs, &flags)?;
    let layout = cifar_model::layout();
    let mut worker = Worker::register(&server, &layout, args.data_plane)?;
    for _ in 0..WARM_UP_STEPS {
        worker.step()?;
    }

    let time = Duration::from_secs_f64(args.seconds);
    let usage = || anyhow::Ok((ProcessUsage::of_this()?.cpu, server.usage()?.cpu));
    let (from_micros, before) = (now_micros(), usage()?);
    let (began, mut steps) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        steps.push(worker.step()?);
    }
    let (to_micros, after) = (now_micros(), usage()?);

    let window = Window {
        from_micros,
        to_micros,
    };
    let history = server.history()?;
    let commits = Commits::within(&history, window);
    let gigabytes = (TRIPS_A_STEP * steps.len() * layout.size_bytes()) as f64 / 1e9;
    let commit_ms = 1000.0 * commits.commit_time().as_secs_f64() / commits.len() as f64;
    let writing: Duration = steps.iter().map(|step| step.writing).sum();
    let client_cpu = (after.0 - before.0).saturating_sub(writing);
    let server_cpu = (after.1 - before.1).saturating_sub(commits.commit_time());
    Ok(medians(&steps, commit_ms)
        .with(COMMIT_MS, commit_ms)
        .with(CLIENT_CPU_S_PER_GB, client_cpu.as_secs_f64() / gigabytes)
        .with(SERVER_CPU_S_PER_GB, server_cpu.as_secs_f64() / gigabytes))
}

/// The times of one step.
struct StepTimes {
    push: Duration,
    control: Duration,
    push_commit_pull: Duration,
    /// CPU time that both gradients took to write.
    writing: Duration,
}

fn medians(steps: &[StepTimes], commit_ms: f64) -> Figures {
    let of = |part: fn(&StepTimes) -> Duration| {
        let millis = |step| 1000.0 * part(step).as_secs_f64();
        median(&steps.iter().map(millis).collect::<Vec<f64>>())
    };
    let push = of(|step| step.push);
    let both = of(|step| step.push_commit_pull).map(|time| time - commit_ms);
    let pull = both.zip(push).map(|(both, push)| both - push);
    let control = of(|step| step.control);
    let data = both.zip(control).map(|(both, control)| both - control);
    Figures::default()
        .with_some(PULL_MS, pull)
        .with_some(PUSH_MS, push)
        .with_some(PUSH_PULL_MS, both)
        .with_some(CONTROL_MS, control)
        .with_some(DATA_MS, data)
}

/// The one worker.
struct Worker {
    link: WorkerLink,
    answers: Answers,
    parts: Parts,
    gradients: Values,
    /// What the answer to the last push brought.
    work: Work,
}

impl Worker {
    fn register(
        server: &ServerProcess,
        layout: &Layout,
        data_plane: DataPlane,
    ) -> anyhow::Result<Self> {
        let unencrypted = Credentials::default();
        let mut link = ServerLink::new(server.address(), layout, &unencrypted, PATIENCE)?;
        let run = link.run()?;
        let mut link = link.register(data_plane, run.data.digest(), numerics())?;
        let gradients = gradient(layout, SEED);
        Ok(Worker {
            answers: Answers::new(&run, &gradients),
            parts: Parts::new(layout.num_values(), &Engine::CUTS),
            gradients,
            work: pull(&mut link)?,
            link,
        })
    }

    fn step(&mut self) -> anyhow::Result<StepTimes> {
        let first = self.work.tower_step;
        let (first_writing, gradients) = self.write_gradients();
        let push = self.push_and_pull(gradients)?;
        ensure!(
            self.work.tower_step.global_step == first.global_step,
            "the step was done without its second tower"
        );
        let began = Instant::now();
        self.link.run().context("cannot ask for the run")?;
        let control = began.elapsed();
        let (second_writing, gradients) = self.write_gradients();
        let push_commit_pull = self.push_and_pull(gradients)?;
        ensure!(
            self.work.variables != Delivery::Held,
            "the new step brings no variables"
        );
        Ok(StepTimes {
            push,
            control,
            push_commit_pull,
            writing: first_writing + second_writing,
        })
    }

    /// The gradients where a worker would have computed them, and the CPU time of writing them there.
    fn write_gradients(&mut self) -> (Duration, GradientBuffer) {
        let mut buffer = self.link.gradient_buffer(&self.parts);
        let [cut] = Engine::CUTS;
        let (trunk, head) = self.gradients.split_at(cut);
        let before = cpu_time_of_this_thread();
        buffer.part(1).copy_from_slice(head);
        buffer.part(0).copy_from_slice(trunk);
        (cpu_time_of_this_thread() - before, buffer)
    }

    fn push_and_pull(&mut self, gradients: GradientBuffer) -> anyhow::Result<Duration> {
        let computed = self.answers.computed(&self.work);
        let began = Instant::now();
        let pushed = self.link.push(&self.work, computed, gradients);
        let verdict = pushed.context("cannot push")?;
        ensure!(verdict == Verdict::Accepted, "a push is {verdict:?}");
        self.work = pull(&mut self.link)?;
        Ok(began.elapsed())
    }
}

fn cpu_time_of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn pull(link: &mut WorkerLink) -> anyhow::Result<Work> {
    match link.pull().context("cannot pull")? {
        Pulled::Work(work) => Ok(work),
        Pulled::Over(goodbye) => bail!("the run is over: {goodbye:?}"),
    }
}
