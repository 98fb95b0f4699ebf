//! A worker without a server: takes batches and computes gradients, at variables that stay as they are.
//!
//! Two of these are what two workers and a server would come to if being distributed cost nothing.

use std::env;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cifar_data::prefetch::TrainBatches;
use cifar_data::{Dataset, Prefetcher, WhenAbsent};
use cifar_worker::engine::Engine;
use clap::Args;
use pserver_cli::args::number_of_seconds;
use pserver_run::{DataSet, GlobalStep, InputKind, Kernels, SampleSequence, Tower, TowerStep};
use pserver_state::Values;
use pserver_state::initial::initial_variables;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts};
use tch::Device;

use crate::figures::{
    COMPUTE_MS, EXAMPLES_PER_SEC, FRACTION_OF_SGEMM, Figures, SGEMM_GFLOPS, WORKER_RESIDENT_MB,
};
use crate::machine::Sgemm;
use crate::process_usage::ProcessUsage;
use crate::statistics::{mean, median};

const SEED: u64 = 1;
const BATCH_SIZE: u32 = 128;
const DATA: &str = "synthetic";

/// Operations of one tower step, convolutions counted in their direct form whatever the kernels
/// do: 14.06 thousand million.
const OPERATIONS_OF_STEP: f64 = 14.06e9;

/// Steps until caches and allocators are as they stay.
const WARM_UP_STEPS: u64 = 3;

/// The matrix product is measured once after this long.
const TIME_BETWEEN_PRODUCTS: Duration = Duration::from_secs(2);

/// What is measured.
#[derive(Clone, Debug, Args)]
pub struct LoneArgs {
    /// Kernels of the worker: torch, direct or winograd
    #[arg(long, default_value = "winograd", value_name = "KERNELS")]
    pub kernels: Kernels,

    /// For how long
    #[arg(long, default_value_t = 20.0, value_name = "SECS", value_parser = number_of_seconds)]
    pub seconds: f64,

    /// How many such workers at once, each a process of its own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub processes: u32,
}

/// Measures one worker in this process, or several in processes of their own.
///
/// # Errors
///
/// If one fails.
pub fn measure(args: &LoneArgs) -> anyhow::Result<Figures> {
    match args.processes {
        1 => measure_here(args),
        _ => measure_several(args),
    }
}

fn measure_here(args: &LoneArgs) -> anyhow::Result<Figures> {
    tch::set_num_threads(1);
    let mut worker = LoneWorker::new(args.kernels)?;
    let mut sgemm = Sgemm::new()?;
    for _ in 0..WARM_UP_STEPS {
        worker.step()?;
    }
    let (mut gflops, mut steps) = (Vec::new(), Vec::new());
    let (time, mut training) = (Duration::from_secs_f64(args.seconds), Duration::ZERO);
    while training < time {
        gflops.push(sgemm.gflops()?);
        let began = Instant::now();
        while began.elapsed() < TIME_BETWEEN_PRODUCTS {
            steps.push(1000.0 * worker.step()?.as_secs_f64());
        }
        training += began.elapsed();
    }
    let examples = f64::from(BATCH_SIZE) * steps.len() as f64;
    let compute_ms = median(&steps).context("a step was computed")?;
    let gflops = median(&gflops).context("a product was computed")?;
    let usage = ProcessUsage::of_this()?;
    Ok(Figures::default()
        .with(EXAMPLES_PER_SEC, examples / training.as_secs_f64())
        .with(COMPUTE_MS, compute_ms)
        .with(SGEMM_GFLOPS, gflops)
        .with(
            FRACTION_OF_SGEMM,
            OPERATIONS_OF_STEP / (compute_ms / 1000.0) / (gflops * 1e9),
        )
        .with(WORKER_RESIDENT_MB, usage.resident_bytes as f64 / 1e6))
}

/// Everything that a worker computes with.
struct LoneWorker {
    engine: Engine,
    variables: Values,
    parts: Parts,
    batches: Prefetcher,
    next: GlobalStep,
}

impl LoneWorker {
    fn new(kernels: Kernels) -> anyhow::Result<Self> {
        let layout = cifar_model::layout();
        let data_set: DataSet = DATA.parse()?;
        let input = InputKind::Distorted;
        let num_examples = data_set.num_train_examples();
        let dataset = Dataset::open(data_set, "".as_ref(), &WhenAbsent::Fail)?;
        let batches = Prefetcher::start(TrainBatches {
            dataset: Arc::new(dataset),
            sequence: SampleSequence::new(SEED, 1, BATCH_SIZE, num_examples, input),
            input,
            seed: SEED,
        })?;
        Ok(LoneWorker {
            engine: Engine::new(Device::Cpu, kernels, &layout, BATCH_SIZE as usize)?,
            variables: initial_variables(&layout, SEED),
            parts: Parts::new(layout.num_values(), &Engine::CUTS),
            batches,
            next: GlobalStep(0),
        })
    }

    /// One tower step; the time of its gradient.
    fn step(&mut self) -> anyhow::Result<Duration> {
        let tower_step = TowerStep {
            global_step: self.next,
            tower: Tower(0),
        };
        self.next = self.next.next();
        let batch = self.batches.take(tower_step)?;
        let began = Instant::now();
        let mut gradients = GradientBuffer::to_keep(&self.parts);
        self.engine
            .gradients(&self.variables, batch, &mut gradients)?;
        Ok(began.elapsed())
    }
}

/// The examples of all of them, and the mean of everything else.
fn measure_several(args: &LoneArgs) -> anyhow::Result<Figures> {
    let this = env::current_exe().context("cannot tell where this program lies")?;
    let start = |_| {
        Command::new(&this)
            .args(["lone", "--kernels", &args.kernels.to_string()])
            .args(["--seconds", &args.seconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start this program again")
    };
    let processes: Vec<Child> = (0..args.processes).map(start).collect::<Result<_, _>>()?;
    let mut results = Vec::new();
    for process in processes {
        let output = process.wait_with_output()?;
        ensure!(output.status.success(), "one ended with {}", output.status);
        results.push(Figures::printed(&String::from_utf8_lossy(&output.stdout))?);
    }
    Ok(together(&results))
}

fn together(results: &[Figures]) -> Figures {
    let names = results
        .first()
        .map_or(Vec::new(), |it| it.names().collect());
    names.into_iter().fold(Figures::default(), |figures, name| {
        let numbers = results.iter().filter_map(|result| result.get(name));
        let number = match name {
            EXAMPLES_PER_SEC => Some(numbers.sum()),
            _ => mean(numbers),
        };
        figures.with_some(name, number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_several_add_up() {
        let one = |examples| {
            Figures::default()
                .with(EXAMPLES_PER_SEC, examples)
                .with(COMPUTE_MS, examples / 10.0)
        };
        let both = together(&[one(100.0), one(200.0)]);
        assert_eq!(both.get(EXAMPLES_PER_SEC), Some(300.0));
        assert_eq!(both.get(COMPUTE_MS), Some(15.0));
    }
}
