//! `main` of cifar-ps: from the command line to the end of the run.

use std::io;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use pserver_cli::console;
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_cli::{logging, signals};
use pserver_core::{Limits, Phase};
use pserver_guard::Guard;
use pserver_guard::args::GuardArgs;
use pserver_guard::limits::raise_open_files;
use pserver_guard::reach;
use pserver_guard::tls::Speaks;
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_run::{GlobalStep, Layout, RunConfig, StateDigest};
use pserver_wire::messages::{Goodbye, Order, Status};
use pserver_wire::traffic::Traffic;
use tokio::net::TcpListener;
use tracing::info;

use crate::administration::give;
use crate::args::{AbortAt, Args, ServerArgs, Verb};
use crate::calendar::Calendar;
use crate::commit_path::{CommitPath, Files};
use crate::commit_point::WatchedFiles;
use crate::follower_files::FollowerFiles;
use crate::inquiry::answer;
use crate::page::{Page, Source};
use crate::run::{Intervals, Run};
use crate::serve::{Entrance, Keeper, serve};
use crate::server_file::{ServerFile, address_for_clients};
use crate::service::Service;
use crate::start::{Start, exit_of, load_initial, open_files, resume_or_begin};
use crate::step_log::StepLog;
use crate::summary_writer::SummaryWriter;
use crate::train_dir::TrainDir;
use crate::{config, date_header};

/// Threads that answer the wire: one can receive a push while the other commits.
const RUNTIME_THREADS: usize = 2;

const NO_ADDRESS: &str = "cannot learn the address listened on";

/// The beginning of the year 10000, since 1970.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

/// Runs the server of a model with variables of this layout, with the arguments of this process.
#[must_use]
pub fn main(layout: Layout) -> ExitCode {
    let args: Args = pserver_cli::args::parse();
    let result = match &args.verb {
        Some(Verb::Top(args)) => top(args),
        Some(Verb::Checkpoint(args)) => give(Order::SaveCheckpoint, args),
        Some(Verb::Drain(args)) => give(Order::Drain, args),
        Some(Verb::Stop(args)) => give(Order::Stop, args),
        Some(Verb::View {
            train_dir,
            http,
            guard,
        }) => view(train_dir, http, guard),
        Some(Verb::Ask(question)) => answer(question),
        None => run(&args, Arc::new(layout)),
    };
    console::report("cifar-ps", result)
}

fn top(args: &ServerArgs) -> Result<Exit, Failure> {
    let address = args.place.address().or_exit(Exit::TryAgain)?;
    pserver_top::run(&address, &args.credentials())
}

fn run(args: &Args, layout: Arc<Layout>) -> Result<Exit, Failure> {
    logging::init(&args.log).or_exit(Exit::Usage)?;
    if args.leave_with_parent {
        signals::leave_with_parent()?;
    }
    // What can be wrong with the machine or the command line shows before anything is moved or written.
    let calendar = calendar()?;
    let guard = Guard::new(&args.guard).or_exit(Exit::Permanent)?;
    let listeners = Listeners {
        workers: bind(&guard, "--listen", &args.listen)?,
        page: args
            .http
            .as_deref()
            .map(|address| bind(&guard_of_page(args, &guard), "--http", address))
            .transpose()?,
        // Whether a server is well is no secret: any address will do.
        health: args
            .health
            .as_deref()
            .map(|address| bind_to(address, address))
            .transpose()?,
    };
    raise_open_files();
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
        .on_thread_start(date_header::make_first)
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    let train_dir = Arc::new(train_dir);
    runtime.block_on(train(
        args, &guard, listeners, train_dir, layout, start, calendar,
    ))
}

/// Where the server listens.
struct Listeners {
    workers: std::net::TcpListener,
    page: Option<std::net::TcpListener>,
    health: Option<std::net::TcpListener>,
}

impl Listeners {
    /// Says where, in lines for programs; the address for the workers.
    fn announce(&self) -> Result<String, Failure> {
        let address = address_of(&self.workers)?;
        let mut lines = format!("listening {address}\n");
        if let Some(page) = &self.page {
            let address = address_of(page)?;
            info!(address, "page is shown");
            lines.push_str(&format!("http {address}\n"));
        }
        if let Some(health) = &self.health {
            lines.push_str(&format!("health {}\n", address_of(health)?));
        }
        console::announce(&lines)?;
        Ok(address)
    }
}

fn address_of(listener: &std::net::TcpListener) -> anyhow::Result<String> {
    let address = listener.local_addr();
    let address = address.context(NO_ADDRESS)?;
    Ok(address.to_string())
}

/// Shows the page of a run until it is told to leave.
fn view(train_dir: &Path, address: &str, args: &GuardArgs) -> Result<Exit, Failure> {
    let guard = Guard::new(args).or_exit(Exit::Permanent)?;
    let calendar = calendar()?;
    let listener = bind(&guard, "--http", address)?;
    if !train_dir.join(LEDGER_FILE).is_file() {
        let train_dir = train_dir.display();
        let error = anyhow!("{train_dir} holds no ledger; name the train dir of a run");
        return Err(Failure::new(Exit::Permanent, error));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop of the page")?;
    runtime.block_on(async {
        let leave = signals::asked_to_leave()?;
        let shown_at = address_of(&listener)?;
        let source = Source {
            train_dir: train_dir.to_owned(),
            calendar,
            status: None,
            traffic: None,
        };
        let page = Page::start(listener, address, source, &guard)?;
        console::announce(&format!("http {shown_at}\n"))?;
        let train_dir = train_dir.display();
        let scheme = match guard.is_encrypted() {
            true => "https",
            false => "http",
        };
        console::say(&format!(
            "the page of {train_dir} is at {scheme}://{shown_at}/ until Ctrl-C"
        ));
        let exit = leave.await;
        page.finish().await;
        Ok(exit)
    })
}

fn guard_of_page(args: &Args, guard: &Guard) -> Guard {
    match args.open_page {
        true => guard.without_tokens(),
        false => guard.clone(),
    }
}

/// Listens on the address of a flag, if that is safe.
fn bind(
    guard: &Guard,
    flag: &'static str,
    address: &str,
) -> Result<std::net::TcpListener, Failure> {
    let sockets = guard.listen_on(flag, address).or_exit(Exit::Permanent)?;
    bind_to(address, &sockets[..])
}

fn bind_to(address: &str, sockets: impl ToSocketAddrs) -> Result<std::net::TcpListener, Failure> {
    let listener = reach::bind(sockets).map_err(|error| {
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

async fn train(
    args: &Args,
    guard: &Guard,
    listeners: Listeners,
    train_dir: Arc<TrainDir>,
    layout: Arc<Layout>,
    start: Start,
    calendar: Calendar,
) -> Result<Exit, Failure> {
    let leave = signals::asked_to_leave()?;
    let (files, calendar) = open_files(&train_dir, &layout, &start, calendar)?;
    let bound = listeners.workers.local_addr().context(NO_ADDRESS)?;
    let for_clients = address_for_clients(&args.listen, bound);
    let server_file = ServerFile::write(train_dir.folder(), &for_clients)
        .context("cannot keep the address of the server in the train dir")
        .or_exit(Exit::Disk)?;
    let address = listeners.announce()?;
    log_header(args, &start.run, &address);
    let traffic = Arc::new(Traffic::default());
    let entrance = entrance(guard, listeners.workers, listeners.health, &traffic)?;
    let step_log = StepLog::new(args.log_frequency, args.log.log_format, &start.run);
    let summary_writer = || {
        let (layout, global_step) = (Arc::clone(&layout), start.state.global_step);
        SummaryWriter::start(train_dir.folder(), layout, calendar, global_step)
    };
    let keeper = Keeper {
        interval: args.checkpoint_secs,
        summary_writer: (args.summary_steps > 0).then(summary_writer).transpose()?,
        train_dir: Arc::clone(&train_dir),
        layout: Arc::clone(&layout),
    };
    let mut run = run_of(args, start, calendar);
    if !server_file.replaces_another() {
        run.core.expect_nobody();
    }
    let commit_path = commit_path(files, calendar, args.abort_at);
    let follower_files = FollowerFiles::new(train_dir.folder(), calendar);
    let service = Service::new(run, commit_path, &layout, follower_files);
    let service = Arc::new(service);
    let source = Source {
        train_dir: args.train_dir.clone(),
        calendar,
        status: Some(status_of(Arc::clone(&service))),
        traffic: Some(traffic),
    };
    let page = listeners.page.zip(args.http.as_deref());
    let guard = guard_of_page(args, guard);
    let page = page.map(|(listener, address)| Page::start(listener, address, source, &guard));
    let page = page.transpose()?;
    let result = serve(Arc::clone(&service), entrance, leave, keeper, step_log).await;
    let is_complete = |phase| phase == Phase::Closed(Goodbye::Complete);
    server_file
        .end(service.ask(|run, now| !is_complete(run.core.phase()) || run.core.everyone_told(now)));
    if let Some(page) = page {
        page.finish().await;
    }
    result
}

fn entrance(
    guard: &Guard,
    workers: std::net::TcpListener,
    health: Option<std::net::TcpListener>,
    traffic: &Arc<Traffic>,
) -> Result<Entrance, Failure> {
    let listen = |listener| TcpListener::from_std(listener).context("cannot listen");
    Ok(Entrance {
        listener: listen(workers)?,
        tls: guard.tls(Speaks::Http2),
        gate: guard.gate().clone(),
        health: health.map(listen).transpose()?,
        traffic: Arc::clone(traffic),
    })
}

/// The run that goes on from `start`.
fn run_of(args: &Args, start: Start, calendar: Calendar) -> Run {
    let limits = Limits {
        max_steps: GlobalStep(args.max_steps),
        worker_lease: args.worker_lease_secs,
        mixed: args.mixed,
        min_workers: args.min_workers,
        stall_timeout: args.stall_timeout_secs,
        audit_fraction: args.audit_fraction,
    };
    let intervals = Intervals {
        checkpoint_steps: args.checkpoint_steps,
        summary_steps: args.summary_steps,
    };
    let mut run = Run::new(
        calendar.moment,
        start.run,
        limits,
        start.state,
        start.applied,
        intervals,
    );
    if let Some(step) = start.saved_step {
        run.saves.finished(step);
    }
    run
}

/// The way of commits into `files`; in a test it ends at one of its points.
fn commit_path(files: Files, calendar: Calendar, abort_at: Option<AbortAt>) -> CommitPath {
    let Some(death) = abort_at else {
        return CommitPath::new(files, calendar);
    };
    let watched = WatchedFiles::new(files, move |point, global_step| {
        if death == (AbortAt { point, global_step }) {
            std::process::abort();
        }
    });
    CommitPath::new(watched, calendar)
}

fn status_of(service: Arc<Service>) -> Box<dyn Fn() -> Status + Send + Sync> {
    Box::new(move || service.ask(|run, _| run.status()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the ledger learns the date; all else follows from tokio's clock"
)]
fn calendar() -> Result<Calendar, Failure> {
    Ok(Calendar {
        moment: tokio::time::Instant::now().into_std(),
        since_1970: since_1970(SystemTime::now())?,
    })
}

/// The time since 1970, if answers of HTTP can have the date: a clock that lost its power says another.
fn since_1970(now: SystemTime) -> Result<Duration, Failure> {
    let since_1970 = now.duration_since(UNIX_EPOCH).ok();
    since_1970
        .filter(|since| *since < YEAR_10000)
        .context(
            "the clock of this machine is not in the years 1970 to 9999: set it, and start again",
        )
        .or_exit(Exit::TryAgain)
}

/// The full configuration, so that a log says what it is of.
fn log_header(args: &Args, run: &RunConfig, address: &str) {
    info!(
        version = pserver_cli::VERSION,
        server = address,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_answers_of_http_cannot_tell_is_refused() {
        let day = Duration::from_secs(86_400);
        assert_eq!(since_1970(UNIX_EPOCH + day).unwrap(), day);
        for wrong in [UNIX_EPOCH - day, UNIX_EPOCH + YEAR_10000] {
            let refused = since_1970(wrong).unwrap_err();
            assert_eq!(refused.exit(), Exit::TryAgain);
        }
    }
}
