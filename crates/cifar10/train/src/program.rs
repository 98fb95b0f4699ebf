//! `main` of cifar-train.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use pserver_cli::console;
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_cli::logging::{self, LogFormat};
use pserver_cli::shell::quoted;
use pserver_cli::signals;
use pserver_guard::Credentials;
use pserver_guard::args::CredentialArgs;
use pserver_run::GlobalStep;
use pserver_state::checkpoint;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tracing::warn;

use crate::args::Args;
use crate::data_choice;
use crate::evaluator::Evaluator;
use crate::flags::Flags;
use crate::processes::{Listening, Plan, Program, Programs};
use crate::progress;
use crate::summary;
use crate::supervise::{Server, supervise};
use crate::token::token_file_in;

/// A free port of this machine, which the server names in its first line.
const ANY_PORT: &str = "127.0.0.1:0";

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    console::report("cifar-train", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit, Failure> {
    logging::init(&args.launch.log).or_exit(Exit::Usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the launcher's event loop")?;
    let result = LocalSet::new().block_on(&runtime, launch(args));
    // A result that its reader has not taken by now does not hold this program.
    runtime.shutdown_background();
    result
}

async fn launch(args: &Args) -> Result<Exit, Failure> {
    let mut leave = pin!(signals::asked_to_leave()?);
    let programs = Programs::find(&args.launch)?;
    // What is wrong with a token that was given shows before anything is looked for.
    if let Some(given) = &args.launch.token_file {
        credentials(given)?;
    }
    if let Some(step) = complete_run(args)? {
        say_that_it_is_complete(args, &programs, step);
        return finish(args, &programs, IsScored::NotYet, leave).await;
    }
    let data = tokio::select! {
        data = choose_data(args) => data?,
        exit = &mut leave => return Ok(exit),
    };

    let token_file = token_file(args)?;
    let credentials = credentials(&token_file)?;
    let plan = plan_of_server(args, &programs, data, &token_file);
    let has_page = plan.flags.contains("http");
    let mut program = Program::start(&plan)?;
    let listening = tokio::select! {
        listening = program.listening(has_page) => listening?,
        exit = &mut leave => return Ok(exit),
    };
    if let Some(page) = &listening.page {
        announce_page(page);
    }
    let address = listening.address.clone();
    let (workers, evaluator) = plans_of_clients(args, &programs, &address, &token_file);
    let evaluator = evaluator.as_ref().map(Evaluator::start).transpose()?;
    let server = Server {
        program,
        restart: restart(plan, &listening),
        has_page,
    };
    let drawing = tokio::task::spawn_local(progress::follow(address, credentials));
    let result = supervise(server, workers, leave.as_mut()).await;
    drawing.abort();
    progress::clear();
    let exit = result?;
    if exit != Exit::Complete {
        if args.launch.log.log_format == LogFormat::Text {
            console::say(&summary::of_interrupted(&args.train_dir));
        }
        return Ok(exit);
    }
    let is_scored = match evaluator {
        None => IsScored::NotYet,
        Some(evaluator) => tokio::select! {
            is_done = wait_for(evaluator) => is_done,
            exit = &mut leave => return Ok(exit),
        },
    };
    finish(args, &programs, is_scored, leave).await
}

fn plan_of_server(args: &Args, programs: &Programs, data: Flags, token_file: &Path) -> Plan {
    Plan {
        name: "cifar-ps".to_owned(),
        file: programs.server.clone(),
        flags: server_flags(args, data, token_file, number_of_workers(args)),
    }
}

/// With what the workers are started, and the evaluator where there is to be one.
fn plans_of_clients(
    args: &Args,
    programs: &Programs,
    address: &str,
    token_file: &Path,
) -> (Vec<Plan>, Option<Plan>) {
    let worker = |number| Plan {
        name: format!("cifar-worker {number}"),
        file: programs.worker.clone(),
        flags: worker_flags(args, address, token_file, number),
    };
    let workers = (0..number_of_workers(args)).map(worker).collect();
    let evaluator = args.launch.eval.then(|| Plan {
        name: "cifar-eval".to_owned(),
        file: programs.eval.clone(),
        // It leaves the workers the machine but for one thread.
        flags: client_flags(args, address, token_file).set("threads", "1"),
    });
    (workers, evaluator)
}

fn say_that_it_is_complete(args: &Args, programs: &Programs, step: GlobalStep) {
    console::say(&format!(
        "the run in {} is complete at step {step}; a higher --max-steps goes on with it, \
         --fresh begins a new one",
        args.train_dir.display()
    ));
    if args.server_flags.contains("http") {
        let server = quoted(&summary::from_here(&programs.server));
        let train_dir = quoted(&args.train_dir);
        console::say(&format!(
            "no server is started for a complete run, so --http shows no page; to see the run:\n  \
             {server} view --train-dir {train_dir}"
        ));
    }
}

fn announce_page(page: &str) {
    // The run goes on whether or not anybody reads where its page is.
    if let Err(error) = console::announce(&format!("http {page}\n")) {
        warn!(%error, "the address of the page is not printed");
    }
    console::say(&format!("the page of the run is at http://{page}/"));
}

/// Whether the last checkpoint was scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsScored {
    Already,
    NotYet,
}

/// Waits for the last score of the evaluator that ran beside the training.
async fn wait_for(evaluator: Evaluator) -> IsScored {
    progress::show("scoring the last checkpoint");
    let is_done = evaluator.finish().await;
    progress::clear();
    match is_done {
        true => IsScored::Already,
        false => IsScored::NotYet,
    }
}

/// Scores the complete run, if that is wanted and was not done meanwhile, and tells how it went.
async fn finish(
    args: &Args,
    programs: &Programs,
    is_scored: IsScored,
    leave: impl Future<Output = Exit>,
) -> Result<Exit, Failure> {
    if is_scored == IsScored::NotYet && !args.launch.no_eval {
        progress::show("scoring the last checkpoint");
        tokio::select! {
            scored = score(args, &programs.eval) => scored?,
            exit = leave => return Ok(exit),
        }
        progress::clear();
    }
    match args.launch.log.log_format {
        LogFormat::Text => console::say(&format!("\n{}", summary::text(&args.train_dir, programs))),
        LogFormat::Json => summary::log(&args.train_dir),
    }
    Ok(Exit::Complete)
}

/// The newest step in the train dir, if that completes the run that is asked for.
///
/// Where a setting of the run was typed, the server is to say whether it is the same run.
fn complete_run(args: &Args) -> Result<Option<GlobalStep>, Failure> {
    if args.names_the_run {
        return Ok(None);
    }
    let layout = cifar_model::layout();
    let load = |path: &Path| checkpoint::load(path, &layout);
    // The server or the evaluator, which is next, says what is wrong with a file.
    let newest = checkpoint::newest(&args.train_dir, load, |_, _| {}).or_exit(Exit::Disk)?;
    Ok(newest
        .filter(|newest| newest.run.is_some())
        .map(|newest| newest.state.global_step)
        .filter(|step| step.0 >= args.max_steps))
}

/// Runs [`data_choice::server_flags`], which may take as long as a download, on a thread of its own.
/// Nobody waits for that thread once this future is dropped: it ends with the process.
async fn choose_data(args: &Args) -> Result<Flags, Failure> {
    let launch = &args.launch;
    let fresh = args.server_flags.contains("fresh");
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

/// The file of the token that all programs show: the one that was given, or the train dir's own.
fn token_file(args: &Args) -> Result<PathBuf, Failure> {
    match &args.launch.token_file {
        Some(given) => Ok(given.clone()),
        None => token_file_in(&args.train_dir)
            .with_context(|| {
                let train_dir = args.train_dir.display();
                format!("cannot make the token of the programs in the train dir {train_dir}")
            })
            .or_exit(Exit::Disk),
    }
}

fn credentials(token_file: &Path) -> Result<Credentials, Failure> {
    let args = CredentialArgs {
        token_file: Some(token_file.to_owned()),
        ..CredentialArgs::default()
    };
    Credentials::new(&args).or_exit(Exit::Permanent)
}

fn server_flags(args: &Args, data: Flags, token_file: &Path, num_workers: u32) -> Flags {
    let flags = data
        .set("listen", ANY_PORT)
        .set("default-towers", num_workers.to_string())
        .set("token-file", token_file)
        .with(&args.server_flags);
    let flags = match &args.launch.token_file {
        // Nobody has a token to type.
        None => flags.switch("open-page"),
        Some(_) => flags,
    };
    match console::canvas() {
        // What is drawn takes the place of the server's lines.
        Some(_) => quiet(args, flags).set_default("log-frequency", "0"),
        None => flags,
    }
}

/// How the server is started again: it goes on with the run where its workers and browsers know it.
fn restart(mut plan: Plan, listening: &Listening) -> Plan {
    plan.flags = plan
        .flags
        .without("fresh")
        .set("listen", &listening.address);
    if let Some(page) = &listening.page {
        plan.flags = plan.flags.set("http", page);
    }
    plan
}

/// Flags of a program that looks for the server: where that is, how to show who asks, where the data
/// are, and which logs to write.
fn client_flags(args: &Args, address: &str, token_file: &Path) -> Flags {
    let flags = Flags::default()
        .set("server", address)
        .set("token-file", token_file)
        .with(&args.helper_flags);
    quiet(args, flags)
}

fn worker_flags(args: &Args, address: &str, token_file: &Path, number: u32) -> Flags {
    let data_plane = args.launch.data_plane.to_string();
    let flags = client_flags(args, address, token_file).set("data-plane", data_plane);
    match args.launch.gpus {
        Some(gpus) => flags.set("gpu", (number % gpus).to_string()),
        None => flags,
    }
}

/// Warnings only, unless somebody chose which logs to write.
fn quiet(args: &Args, flags: Flags) -> Flags {
    match args.chose_logs {
        true => flags,
        false => flags.set("log-level", "warn"),
    }
}

/// Scores the newest checkpoint; the score goes to this program's stdout.
async fn score(args: &Args, eval_program: &Path) -> Result<(), Failure> {
    let flags = Flags::default()
        .switch("run-once")
        .set("checkpoint-dir", &args.train_dir)
        .with(&args.helper_flags);
    let mut evaluator = Evaluator::start(&Plan {
        name: "cifar-eval".to_owned(),
        file: eval_program.to_owned(),
        flags: quiet(args, flags),
    })?;
    evaluator.ended().await
}
