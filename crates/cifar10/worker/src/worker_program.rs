//! `main` of cifar-worker.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cifar_data::Prefetcher;
use cifar_data::args::DataArgs;
use cifar_data::prefetch::TrainBatches;
use clap::Parser;
use pserver_cli::args::{self, seconds};
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_cli::logging::LogArgs;
use pserver_cli::{console, logging, signals};
use pserver_guard::Credentials;
use pserver_guard::address::to_connect_to;
use pserver_guard::args::CredentialArgs;
use pserver_wire::data_plane::DataPlane;
use pserver_wire::gradient_buffer::Parts;
use pserver_wire::messages::Goodbye;
use pserver_worker::worker_link::ServerLink;
use tracing::info;

use crate::engine::Engine;
use crate::summarizer::Summarizer;
use crate::training_loop::{or_exit, train};
use crate::{device, numerics};

/// A worker of a training run: computes gradients for the parameter server at --server until the
/// run is complete.
///
/// Everything about the run (towers, batch size, seed, data set) comes from the server. Workers may
/// join and leave at any time.
#[derive(Clone, Debug, Parser)]
#[command(name = "cifar-worker", version = pserver_cli::VERSION)]
pub struct Args {
    /// Address of the parameter server, HOST:PORT
    #[arg(long, default_value = "127.0.0.1:2222", value_name = "ADDR", value_parser = to_connect_to)]
    pub server: String,

    /// Compute on this GPU, counted from 0; without this flag, on the CPU
    #[arg(long, value_name = "K")]
    pub gpu: Option<usize>,

    /// Threads on a CPU; other than the run's, the worker is refused (see --mixed of cifar-ps)
    /// [default: the run's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,

    /// Say where each variable is placed
    #[arg(long)]
    pub log_device_placement: bool,

    /// How variables and gradients get to and from the server: shm is memory that both share on one
    /// host, wire the network, auto shm where that works and else wire
    #[arg(long, default_value_t, value_name = "WAY")]
    pub data_plane: DataPlane,

    /// Give up when the server stays away for this long
    #[arg(long, default_value = "300", value_name = "SECS", value_parser = seconds)]
    pub retry_window_secs: Duration,

    /// Where the data set is.
    #[command(flatten)]
    pub data: DataArgs,

    /// How to show the server who this is, and to know the server.
    #[command(flatten)]
    pub credentials: CredentialArgs,

    /// Where logs go and what is in them.
    #[command(flatten)]
    pub log: LogArgs,

    /// Leave when the process that started this one ends, and with it the pipe that is stdin.
    #[arg(long, hide = true)]
    pub leave_with_parent: bool,
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    console::report("cifar-worker", run(&args::parse()))
}

fn run(args: &Args) -> Result<Exit, Failure> {
    logging::init(&args.log).or_exit(Exit::Usage)?;
    if args.leave_with_parent {
        signals::leave_with_parent()?;
    }
    let layout = cifar_model::layout();
    let device = device::select(args.gpu).or_exit(Exit::Permanent)?;
    let credentials = Credentials::new(&args.credentials).or_exit(Exit::Permanent)?;
    let mut server = ServerLink::new(&args.server, &layout, &credentials, args.retry_window_secs)
        .map_err(or_exit)?;

    let run = server.run().map_err(or_exit)?;
    let threads = args.threads.unwrap_or(run.threads);
    // At most 1,024, as both flags and the wire see to.
    tch::set_num_threads(threads as i32);
    let numerics = numerics::of_this_process(device, &run, threads).or_exit(Exit::Permanent)?;
    let mut engine = Engine::new(device, numerics.kernels, &layout, run.batch_size as usize)
        .with_context(|| format!("cannot set up the model on {device:?}"))?;
    if args.log_device_placement {
        for spec in layout.specs() {
            info!(variable = spec.name, ?device, "is placed");
        }
    }
    let (data, data_set) = (args.data.clone(), run.data);
    let dataset = server
        .meanwhile(move || data.open_or_exit(data_set))
        .map_err(or_exit)??;
    let mut batches = Prefetcher::start(TrainBatches {
        dataset: Arc::new(dataset),
        sequence: run.sequence(),
        input: run.input,
        seed: run.seed,
    })?;
    let mut server = server
        .register(args.data_plane, run.data.digest(), numerics)
        .map_err(or_exit)?;
    let parts = Parts::new(layout.num_values(), &Engine::CUTS);

    let summarizer = Summarizer::start(layout.clone(), server.summary_sender())?;
    let result = train(&mut server, &parts, &mut engine, &mut batches, &summarizer);
    summarizer.finish();
    if result.is_err() {
        server.leave();
    }
    let goodbye = result?;
    info!(?goodbye, "the run is over");
    Ok(match goodbye {
        Goodbye::Complete => Exit::Complete,
        Goodbye::Stopping => Exit::TryAgain,
        Goodbye::Diverged => Exit::Diverged,
        Goodbye::Quarantined => Exit::Permanent,
    })
}
