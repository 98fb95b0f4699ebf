//! `main` of cifar-ps: from the command line to the end of the run.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use cifar_cli::exit::{Exit, Failure, OrExit, report};
use cifar_cli::{logging, signals};
use cifar_ledger::{LedgerFile, Line, opening_lines};
use cifar_params::{
    Checkpoint, Layout, RunConfig, StateDigest, StateFile, Stored, TrainingState, checkpoint,
};
use cifar_sequence::GlobalStep;
use cifar_wire::messages::Session;
use clap::Parser;
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::args::{AbortAt, Args, RunArgs};
use crate::commit_path::{AtPoint, CommitPath};
use crate::config::{self, ResumeError};
use crate::inquiry::answer;
use crate::note::Note;
use crate::recorder::{Calendar, Recorder};
use crate::serials::AppliedSerials;
use crate::serve::{Keeper, serve};
use crate::service::Service;
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
    if args.fresh {
        config::new_run(&args.run, StateDigest(0)).or_exit(Exit::Usage)?;
        if let Some(path) = &args.run.init_from {
            load_initial(path, &layout).or_exit(Exit::Permanent)?;
        }
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
    /// The ledger's line of the commit that led to the state, where that is known.
    last_commit: Option<Line>,
    /// The tower steps that made the state; matters in asynchronous mode only.
    applied: AppliedSerials,
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
    // A checkpoint can be newer only if the state file is an old copy, put back by hand.
    let kept = kept.filter(|(state, _)| saved_step.is_none_or(|saved| saved <= state.global_step));
    let (newest, note) = match (kept, saved) {
        (Some((state, note)), _) => {
            let run = Some(note.run.clone().into_owned());
            (Checkpoint { state, run }, Some(note))
        }
        (None, Ok(Some(saved))) => (saved, None),
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
    let run = config::resumed_run(args, before.or_exit(Exit::Permanent)?, init_from);
    let run = run.map_err(|error| {
        let exit = match error {
            ResumeError::AnotherRun { .. } => Exit::Permanent,
            ResumeError::Mode(_) => Exit::Usage,
        };
        Failure::new(exit, error)
    })?;
    info!(
        global_step = newest.state.global_step.0,
        "goes on with the run in the train dir"
    );
    let (last_commit, applied) = note.map_or((None, None), |note| (note.commit, note.applied));
    Ok(Start {
        last_commit: last_commit.map(Cow::into_owned),
        applied: applied.map_or_else(
            || AppliedSerials::first(newest.state.global_step.0),
            Cow::into_owned,
        ),
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
    let run = config::new_run(args, state.digest()).or_exit(Exit::Usage)?;
    // From here on the train dir knows which run it holds, even if no step is ever done.
    train_dir.save(layout, &state, &run).or_exit(Exit::Disk)?;
    info!(global_step = state.global_step.0, "begins a new run");
    let saved_step = Some(state.global_step);
    Ok(Start {
        last_commit: None,
        applied: AppliedSerials::first(state.global_step.0),
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
    let leave = signals::asked_to_leave()?;
    let listener = TcpListener::from_std(listener).context("cannot listen")?;
    let address = listener
        .local_addr()
        .context("cannot learn the address listened on")?;
    announce(&format!("listening {address}")).context("cannot write to stdout")?;
    log_header(args, &start.run, &address.to_string());

    let step_log = StepLog::new(args.log_frequency, args.log.log_format, &start.run);
    let keeper = Keeper {
        train_dir,
        layout: Arc::clone(&layout),
        interval: args.checkpoint_secs,
        saved_step: start.saved_step,
    };
    let limits = Limits {
        max_steps: GlobalStep(args.max_steps),
        checkpoint_steps: args.checkpoint_steps,
        worker_lease: args.worker_lease_secs,
        mixed: args.mixed,
        min_workers: args.min_workers,
        stall_timeout: args.stall_timeout_secs,
        audit_fraction: args.audit_fraction,
    };
    let calendar = calendar();
    let (state_file, ledger) = open_files(&keeper.train_dir, &layout, &start, calendar)?;
    let commit_path = CommitPath::new(state_file, Recorder::new(ledger, calendar));
    let training = Training::new(
        calendar.moment,
        new_session(),
        start.run,
        limits,
        start.state,
        start.applied,
    );
    let at_point = abort_at(args.abort_at);
    let service = Arc::new(Service::new(training, commit_path, &layout, at_point));
    serve(service, listener, leave, keeper, step_log).await
}

/// The state file and the ledger, both as far as the run is.
fn open_files(
    train_dir: &TrainDir,
    layout: &Layout,
    start: &Start,
    calendar: Calendar,
) -> Result<(StateFile, LedgerFile), Failure> {
    let digest = start.state.digest();
    let (mut ledger, head) = train_dir.ledger().or_exit(Exit::Disk)?;
    let started = cifar_ledger::record::Start {
        format_version: cifar_ledger::record::FORMAT_VERSION,
        version: cifar_cli::VERSION.to_owned(),
        run: start.run.clone(),
        global_step: start.state.global_step,
        digest,
    };
    let at_micros = calendar.micros(calendar.moment);
    for line in opening_lines(at_micros, head, started, start.last_commit.clone()) {
        ledger.append(&line).or_exit(Exit::Disk)?;
    }
    let note = Note {
        run: Cow::Borrowed(&start.run),
        commit: None,
        applied: Some(Cow::Borrowed(&start.applied)),
    };
    let stored = Stored {
        state: start.state.clone(),
        digest,
        note: note.to_bytes(),
    };
    let state_file = train_dir
        .state_file(layout, start.run.num_towers, &stored)
        .or_exit(Exit::Disk)?;
    Ok((state_file, ledger))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the ledger learns the date; all else follows from tokio's clock"
)]
fn calendar() -> Calendar {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    Calendar {
        moment: tokio::time::Instant::now().into_std(),
        since_1970: since_1970.unwrap_or_default(),
    }
}

/// What happens at the points of a commit: nothing, or in a test of them the sudden end.
fn abort_at(abort_at: Option<AbortAt>) -> AtPoint {
    Box::new(move |point, global_step| {
        if abort_at == Some(AbortAt { point, global_step }) {
            std::process::abort();
        }
    })
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
        mode = %run.mode,
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
