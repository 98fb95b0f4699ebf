//! `main` of cifar-ps: from the command line to the end of the run.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use cifar_cli::exit::{Exit, Failure, OrExit, report};
use cifar_cli::{logging, signals};
use cifar_params::{Layout, RunConfig, Stored, TrainingState, checkpoint};
use cifar_sequence::GlobalStep;
use cifar_wire::messages::Session;
use clap::Parser;
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::args::{Args, RunArgs};
use crate::config;
use crate::inquiry::answer;
use crate::serve::{Keeper, serve};
use crate::service::{Service, note_of};
use crate::step_log::StepLog;
use crate::train_dir::{TrainDir, TrainDirError};
use crate::training::{Limits, Training, initial_state};

/// Threads that answer the wire: one can receive a push while the other commits.
const RUNTIME_THREADS: usize = 2;

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.verb {
        Some(verb) => answer(verb),
        None => run(&args),
    };
    report("cifar-ps", result)
}

fn run(args: &Args) -> Result<Exit, Failure> {
    logging::init(&args.log).or_exit(Exit::Usage)?;
    if args.leave_with_parent {
        signals::leave_with_parent()?;
    }
    let layout = Arc::new(Layout::cifar10());
    // What can be wrong with the command line shows before anything is moved or written.
    let listener = bind(&args.listen)?;
    if let Some(path) = args.run.init_from.as_deref().filter(|_| args.fresh) {
        load_initial(path, &layout).or_exit(Exit::Permanent)?;
    }
    let train_dir = TrainDir::open(&args.train_dir, args.keep_checkpoints as usize, args.fresh)
        .map_err(|error| Failure::new(exit_of(&error), error))?;
    let start = resume_or_begin(&args.run, &train_dir, &layout)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    runtime.block_on(train(args, listener, Arc::new(train_dir), layout, start))
}

fn bind(address: &str) -> Result<std::net::TcpListener, Failure> {
    let listener = std::net::TcpListener::bind(address).map_err(|error| {
        let exit = match error.kind() {
            io::ErrorKind::AddrInUse => Exit::TryAgain,
            _ => Exit::Permanent,
        };
        Failure::new(exit, anyhow!("cannot listen on {address}: {error}"))
    })?;
    listener
        .set_nonblocking(true)
        .context("cannot listen without blocking")?;
    Ok(listener)
}

fn exit_of(error: &TrainDirError) -> Exit {
    match error {
        TrainDirError::Io { .. } => Exit::Disk,
        TrainDirError::InUse { .. } => Exit::TryAgain,
        TrainDirError::NothingGood { .. } => Exit::Permanent,
    }
}

/// With what the run goes on, or begins.
struct Start {
    state: TrainingState,
    run: RunConfig,
    /// The step of the newest checkpoint that is whole, if there is one.
    saved_step: Option<GlobalStep>,
}

fn resume_or_begin(
    args: &RunArgs,
    train_dir: &TrainDir,
    layout: &Layout,
) -> Result<Start, Failure> {
    let (kept, saved) = (train_dir.kept_state(layout), train_dir.newest(layout));
    let saved_step = saved
        .iter()
        .flatten()
        .map(|checkpoint| checkpoint.state.global_step)
        .next();
    let newest = match (kept, saved) {
        // A checkpoint can be newer only if the state file is an old copy, put back by hand.
        (Some(kept), Ok(Some(saved))) if saved.state.global_step > kept.state.global_step => saved,
        (Some(kept), _) => kept,
        (None, Ok(Some(saved))) => saved,
        (None, Ok(None)) => return begin(args, train_dir, layout),
        (None, Err(error)) => return Err(Failure::new(exit_of(&error), error)),
    };
    let before = newest.run.ok_or_else(|| {
        anyhow!(
            "the newest checkpoint in the train dir was made by another program; to begin with it, \
             give it as --init-from and another --train-dir"
        )
    });
    // The file that the run began with may be gone by now.
    let init_from = args
        .init_from
        .as_deref()
        .and_then(|path| match load_initial(path, layout) {
            Ok(state) => Some(state.digest()),
            Err(error) => {
                warn!("cannot compare --init-from with the run in the train dir: {error:#}");
                None
            }
        });
    let run = config::resumed_run(args, before.or_exit(Exit::Permanent)?, init_from)
        .or_exit(Exit::Permanent)?;
    info!(
        global_step = newest.state.global_step.0,
        "goes on with the run in the train dir"
    );
    Ok(Start {
        state: newest.state,
        run,
        saved_step,
    })
}

fn begin(args: &RunArgs, train_dir: &TrainDir, layout: &Layout) -> Result<Start, Failure> {
    let state = match &args.init_from {
        Some(path) => load_initial(path, layout).or_exit(Exit::Permanent)?,
        None => initial_state(layout, config::seed_of_new_run(args)),
    };
    let run = config::new_run(args, state.digest());
    // From here on the train dir knows which run it holds, even if no step is ever done.
    train_dir.save(layout, &state, &run).or_exit(Exit::Disk)?;
    info!(global_step = state.global_step.0, "begins a new run");
    let saved_step = Some(state.global_step);
    Ok(Start {
        state,
        run,
        saved_step,
    })
}

fn load_initial(path: &Path, layout: &Layout) -> anyhow::Result<TrainingState> {
    let checkpoint = checkpoint::load(path, layout).context("--init-from")?;
    Ok(checkpoint.state)
}

async fn train(
    args: &Args,
    listener: std::net::TcpListener,
    train_dir: Arc<TrainDir>,
    layout: Arc<Layout>,
    start: Start,
) -> Result<Exit, Failure> {
    let Start {
        state,
        run,
        saved_step,
    } = start;
    let leave = signals::asked_to_leave()?;
    let listener = TcpListener::from_std(listener).context("cannot listen")?;
    let address = listener
        .local_addr()
        .context("cannot learn the address listened on")?;
    announce(&format!("listening {address}")).context("cannot write to stdout")?;
    log_header(args, &run, &address.to_string());

    let step_log = StepLog::new(args.log_frequency, args.log.log_format, &run);
    let keeper = Keeper {
        train_dir,
        layout: Arc::clone(&layout),
        interval: args.checkpoint_secs,
        saved_step,
    };
    let limits = Limits {
        max_steps: GlobalStep(args.max_steps),
        checkpoint_steps: args.checkpoint_steps,
        worker_lease: args.worker_lease_secs,
        mixed: args.mixed,
        min_workers: args.min_workers,
        stall_timeout: args.stall_timeout_secs,
    };
    let now = tokio::time::Instant::now().into_std();
    let stored = Stored {
        digest: state.digest(),
        state,
        note: note_of(&run),
    };
    let state_file = keeper
        .train_dir
        .state_file(&layout, &stored)
        .or_exit(Exit::Disk)?;
    let training = Training::new(now, new_session(), run, limits, stored.state);
    let service = Arc::new(Service::new(training, state_file, &layout));
    serve(service, listener, leave, keeper, step_log).await
}

fn new_session() -> Session {
    use std::hash::{BuildHasher, RandomState};
    // Its key is drawn anew by the operating system for each process.
    Session(RandomState::new().hash_one(std::process::id()))
}

/// Writes a line that programs read to stdout.
fn announce(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// The full configuration, so that a log says what it is of.
fn log_header(args: &Args, run: &RunConfig, address: &str) {
    info!(
        version = cifar_cli::VERSION,
        address,
        train_dir = %args.train_dir.display(),
        data = %run.data,
        input = %run.input,
        num_towers = run.num_towers,
        batch_size = run.batch_size,
        max_steps = args.max_steps,
        seed = run.seed,
        learning_rate = %run.learning_rate,
        num_epochs_per_decay = run.num_epochs_per_decay,
        decay_by = %run.decay_by,
        moving_average_decay = %run.moving_average_decay,
        kernels = %run.kernels,
        threads = run.threads,
        initial_digest = %run.initial_digest,
        "parameter server starts"
    );
}
