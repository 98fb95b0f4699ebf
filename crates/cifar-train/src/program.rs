//! `main` of cifar-train.

use std::ffi::OsString;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitCode, Stdio};
use std::thread;

use anyhow::Context;
use cifar_cli::exit::{Exit, Failure, OrExit, report};
use cifar_cli::logging::{self, LogFormat};
use cifar_cli::signals;
use cifar_guard::Credentials;
use cifar_guard::args::CredentialArgs;
use cifar_params::checkpoint;
use cifar_sequence::GlobalStep;
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::args::Args;
use crate::data_choice;
use crate::evaluator::Evaluator;
use crate::processes::{Listening, Program, Programs, ended};
use crate::progress::Progress;
use crate::summary;
use crate::supervise::{Server, WorkerPlan, supervise};

/// A free port of this machine, which the server names in its first line.
const ANY_PORT: &str = "127.0.0.1:0";

/// Flags of the server that say where it listens.
const LISTEN: &str = "--listen";
const HTTP: &str = "--http";

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    report("cifar-train", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit, Failure> {
    logging::init(&args.launch.log).or_exit(Exit::Usage)?;
    // One thread: the programs end when the thread that started them does.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the launcher's event loop")?;
    LocalSet::new().block_on(&runtime, launch(args))
}

async fn launch(args: &Args) -> Result<Exit, Failure> {
    let mut leave = pin!(signals::asked_to_leave()?);
    let launch = &args.launch;
    let programs = Programs::find(launch)?;
    // What is wrong with the token shows before anything is started.
    let credentials = Credentials::new(&CredentialArgs {
        token_file: launch.token_file.clone(),
        ..CredentialArgs::default()
    })
    .or_exit(Exit::Permanent)?;
    if let Some(step) = complete_run(args)? {
        let train_dir = args.train_dir.display();
        eprintln!(
            "the run in {train_dir} is complete at step {step}; a higher --max-steps goes on with it, \
             --fresh begins a new one"
        );
        return finish(args, &programs, IsScored::NotYet, leave).await;
    }
    let data = tokio::select! {
        data = choose_data(args) => data?,
        exit = &mut leave => return Ok(exit),
    };

    let num_workers = number_of_workers(args);
    let progress = Progress::new(args.max_steps);
    let server_flags = server_flags(args, data, num_workers, progress.is_shown());
    let mut server = Program::start(
        "cifar-ps",
        &programs.server,
        &server_flags,
        progress.is_shown(),
    )?;
    progress.pass_on(server.take_stderr());
    let has_page = server_flags.iter().any(|flag| flag == HTTP);
    let listening = server.listening(has_page).await?;
    if let Some(page) = &listening.page {
        progress.say(&format!("the page of the run is at http://{page}/"));
    }
    let address = listening.address.clone();

    let plans = (0..num_workers)
        .map(|number| WorkerPlan {
            name: format!("cifar-worker {number}"),
            file: programs.worker.clone(),
            flags: worker_flags(args, &address, number),
        })
        .collect();
    let evaluator = match launch.eval {
        true => {
            let flags = evaluator_flags(args, &address);
            Some(Evaluator::start(&programs.eval, &flags, &progress)?)
        }
        false => None,
    };
    let server = Server {
        program: server,
        flags: flags_of_restart(&server_flags, &listening),
        file: programs.server.clone(),
        has_page,
    };
    let drawing = tokio::task::spawn_local(progress.clone().follow(address, credentials));
    let result = supervise(server, plans, &progress, leave.as_mut()).await;
    drawing.abort();
    progress.clear();
    match result? {
        Exit::Complete => {}
        exit => return Ok(exit),
    }
    let is_scored = match evaluator {
        None => IsScored::NotYet,
        Some(evaluator) => tokio::select! {
            is_done = evaluator.finish() => if is_done { IsScored::Already } else { IsScored::NotYet },
            exit = &mut leave => return Ok(exit),
        },
    };
    finish(args, &programs, is_scored, leave).await
}

/// Whether the last checkpoint was scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsScored {
    Already,
    NotYet,
}

/// Scores the complete run, if that is wanted and was not done meanwhile, and tells how it went.
async fn finish(
    args: &Args,
    programs: &Programs,
    is_scored: IsScored,
    leave: impl Future<Output = Exit>,
) -> Result<Exit, Failure> {
    if is_scored == IsScored::NotYet && !args.launch.no_eval {
        tokio::select! {
            scored = score(args, &programs.eval) => scored?,
            exit = leave => return Ok(exit),
        }
    }
    match args.launch.log.log_format {
        LogFormat::Text => eprint!("\n{}", summary::text(&args.train_dir, programs)),
        LogFormat::Json => summary::log(&args.train_dir),
    }
    Ok(Exit::Complete)
}

/// The newest step in the train dir, if that completes the run that is asked for.
///
/// Where a setting of the run was typed, the server is to say whether it is the same run.
fn complete_run(args: &Args) -> Result<Option<GlobalStep>, Failure> {
    const SAY_NOTHING_OF_THE_RUN: [&str; 7] = [
        "--max-steps",
        "--train-dir",
        "--http",
        "--insecure",
        "--token-file",
        "--log-format",
        "--log-level",
    ];
    let flags = || args.server_flags.iter().filter_map(|flag| flag.to_str());
    let mut settings = flags().filter(|flag| flag.starts_with("--"));
    if settings.any(|flag| !SAY_NOTHING_OF_THE_RUN.contains(&flag)) {
        return Ok(None);
    }
    let newest = checkpoint::list(&args.train_dir)
        .or_exit(Exit::Disk)?
        .into_iter()
        .next();
    Ok(newest
        .map(|(step, _)| step)
        .filter(|step| step.0 >= args.max_steps))
}

fn is_fresh(args: &Args) -> bool {
    args.server_flags.iter().any(|flag| flag == "--fresh")
}

/// Runs [`data_choice::server_flags`], which may take as long as a download, on a thread of its own.
/// Nobody waits for that thread once this future is dropped: it ends with the process.
async fn choose_data(args: &Args) -> Result<[String; 2], Failure> {
    let launch = &args.launch;
    let fresh = is_fresh(args);
    let (choice, train_dir, data_args) = (
        launch.data,
        args.train_dir.clone(),
        launch.data_args.clone(),
    );
    let (done, chosen) = oneshot::channel();
    thread::Builder::new()
        .name("data".to_owned())
        .spawn(move || {
            // Nobody may be waiting any more.
            let _ = done.send(data_choice::server_flags(
                choice, &train_dir, fresh, &data_args,
            ));
        })?;
    chosen
        .await
        .context("the thread that fetches the data set panicked")?
}

fn number_of_workers(args: &Args) -> u32 {
    let cores = || thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    args.launch
        .workers
        .or(args.launch.gpus)
        .unwrap_or_else(cores)
}

fn server_flags(args: &Args, data: [String; 2], num_workers: u32, drawn: bool) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec![LISTEN.into(), ANY_PORT.into()];
    flags.extend(data.map(OsString::from));
    flags.extend(["--default-towers".into(), num_workers.to_string().into()]);
    flags.extend(args.server_flags.iter().cloned());
    if drawn {
        flags.extend(quiet(args));
        flags.extend(["--log-frequency".into(), "0".into()]);
    }
    flags
}

/// Flags of the server when it is started again: it goes on with the run where its workers and
/// browsers know it.
fn flags_of_restart(flags: &[OsString], listening: &Listening) -> Vec<OsString> {
    let mut before: Option<&OsString> = None;
    let mut again: Vec<OsString> = Vec::new();
    for flag in flags.iter().filter(|flag| *flag != "--fresh") {
        let place = match before {
            Some(before) if before == LISTEN => Some(&listening.address),
            Some(before) if before == HTTP => listening.page.as_ref(),
            _ => None,
        };
        again.push(place.map_or_else(|| flag.clone(), OsString::from));
        before = Some(flag);
    }
    again
}

/// Where the server is, and how to show it who asks.
fn client_flags(args: &Args, address: &str) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec!["--server".into(), address.into()];
    if let Some(token_file) = &args.launch.token_file {
        flags.extend(["--token-file".into(), token_file.into()]);
    }
    flags
}

fn worker_flags(args: &Args, address: &str, number: u32) -> Vec<OsString> {
    let mut flags = client_flags(args, address);
    let data_plane = args.launch.data_plane.to_string();
    flags.extend(["--data-plane".into(), data_plane.into()]);
    if let Some(gpus) = args.launch.gpus {
        flags.extend(["--gpu".into(), (number % gpus).to_string().into()]);
    }
    flags.extend(args.data_flags.iter().chain(&args.log_flags).cloned());
    flags.extend(quiet(args));
    flags
}

/// Flags of an evaluator beside the workers, which leaves them the machine but for one thread.
fn evaluator_flags(args: &Args, address: &str) -> Vec<OsString> {
    let mut flags = client_flags(args, address);
    flags.extend(["--threads".into(), "1".into()]);
    flags.extend(args.data_flags.iter().chain(&args.log_flags).cloned());
    flags.extend(quiet(args));
    flags
}

/// Warnings only, unless the user has said which logs to write.
fn quiet(args: &Args) -> Vec<OsString> {
    if args.log_flags.iter().any(|flag| flag == "--log-level") {
        return Vec::new();
    }
    vec!["--log-level".into(), "warn".into()]
}

/// Scores the newest checkpoint; the score goes to this program's stdout.
async fn score(args: &Args, eval_program: &Path) -> Result<(), Failure> {
    let status = Command::new(eval_program)
        .arg("--run-once")
        .arg("--checkpoint-dir")
        .arg(&args.train_dir)
        .args(&args.data_flags)
        .args(&args.log_flags)
        .args(quiet(args))
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("cannot start {}", eval_program.display()))?;
    if status.success() {
        Ok(())
    } else {
        Err(ended("cifar-eval", status.code().unwrap_or(1)))
    }
}
