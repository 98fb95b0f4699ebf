//! `main` of cifar-train.

use std::ffi::OsString;
use std::process::{ExitCode, Stdio};
use std::thread;

use anyhow::Context;
use cifar_cli::exit::{Exit, Failure, OrExit, report};
use cifar_cli::{logging, signals};
use tokio::process::Command;
use tokio::task::LocalSet;

use crate::args::Args;
use crate::data_choice;
use crate::processes::{Program, ended, find};
use crate::progress::Progress;
use crate::supervise::{WorkerPlan, supervise};

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
    let leave = signals::asked_to_leave()?;
    let launch = &args.launch;
    let server_program = find(launch.ps_program.as_ref(), "cifar-ps")?;
    let worker_program = find(launch.worker_program.as_ref(), "cifar-worker")?;
    let eval_program = find(launch.eval_program.as_ref(), "cifar-eval")?;
    let fresh = args.server_flags.iter().any(|flag| flag == "--fresh");
    let data = data_choice::server_flags(launch.data, &args.train_dir, fresh, &launch.data_args)?;

    let num_workers = number_of_workers(args);
    let progress = Progress::new(args.max_steps);
    let server_flags = server_flags(args, data, num_workers, progress.is_shown());
    let mut server = Program::start(
        "cifar-ps",
        &server_program,
        &server_flags,
        progress.is_shown(),
    )?;
    progress.pass_on(server.take_stderr());
    let address = server.listening().await?;

    let plans = (0..num_workers)
        .map(|number| WorkerPlan {
            name: format!("cifar-worker {number}"),
            file: worker_program.clone(),
            flags: worker_flags(args, &address, number),
        })
        .collect();
    let drawing = tokio::task::spawn_local(progress.clone().follow(address));
    let result = supervise(server, plans, &progress, leave).await;
    drawing.abort();
    progress.clear();
    let exit = result?;
    if exit == Exit::Complete && !launch.no_eval {
        score(args, &eval_program).await?;
    }
    Ok(exit)
}

fn number_of_workers(args: &Args) -> u32 {
    let cores = || thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    args.launch
        .workers
        .or(args.launch.gpus)
        .unwrap_or_else(cores)
}

fn server_flags(args: &Args, data: [String; 2], num_workers: u32, drawn: bool) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec!["--listen".into(), "127.0.0.1:0".into()];
    flags.extend(data.map(OsString::from));
    flags.extend(["--default-towers".into(), num_workers.to_string().into()]);
    flags.extend(args.server_flags.iter().cloned());
    if drawn {
        flags.extend(quiet(args));
        flags.extend(["--log-frequency".into(), "0".into()]);
    }
    flags
}

fn worker_flags(args: &Args, address: &str, number: u32) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec!["--server".into(), address.into()];
    if let Some(gpus) = args.launch.gpus {
        flags.extend(["--gpu".into(), (number % gpus).to_string().into()]);
    }
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
async fn score(args: &Args, eval_program: &std::path::Path) -> Result<(), Failure> {
    let status = Command::new(eval_program)
        .arg("--run-once")
        .arg("--checkpoint-dir")
        .arg(&args.train_dir)
        .args(&args.data_flags)
        .args(&args.log_flags)
        .args(quiet(args))
        .stdin(Stdio::null())
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
