//! Watches the programs until the run is over.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cifar_cli::exit::{Exit, Failure};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::processes::{Program, ended};
use crate::progress::Progress;

/// A worker that ends though the run goes on is started again after this long.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A program that has been started again this often is given up.
const MAX_RESTARTS: u32 = 10;

/// How long workers that were told that the run is complete may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a worker needs to be started, and started again.
#[derive(Clone, Debug)]
pub struct WorkerPlan {
    /// For people.
    pub name: String,
    /// The program.
    pub file: PathBuf,
    /// Its flags.
    pub flags: Vec<OsString>,
}

/// A server that runs, and what it takes to start it again where it listens.
#[derive(Debug)]
pub struct Server {
    /// The program that runs.
    pub program: Program,
    /// The file of the program.
    pub file: PathBuf,
    /// Its flags at another start.
    pub flags: Vec<OsString>,
    /// Whether it shows a page.
    pub has_page: bool,
}

/// Runs the workers beside `server` until it ends or `leave` resolves; returns how the run ended.
///
/// A server that was killed is started again: it goes on from its last step. A worker that fails for
/// good is left out as long as there are others.
///
/// # Errors
///
/// A [`Failure`] with the exit code of the program that failed.
pub async fn supervise(
    server: Server,
    plans: Vec<WorkerPlan>,
    progress: &Progress,
    leave: impl Future<Output = Exit>,
) -> Result<Exit, Failure> {
    let mut workers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for plan in plans {
        workers.spawn_local(keep_running(plan, progress.clone()));
    }
    tokio::pin!(leave);
    let mut left = None;
    let mut restarts = 0;
    let Server {
        program: mut server,
        file,
        flags,
        has_page,
    } = server;
    let code = loop {
        tokio::select! {
            code = server.wait() => {
                let code = code?;
                if !was_killed(code) || left.is_some() || restarts == MAX_RESTARTS {
                    break code;
                }
                restarts += 1;
                warn!(exit_code = code, "server ended suddenly; is started again and goes on from its last step");
                server = Program::start(server.name(), &file, &flags, progress.is_shown())?;
                progress.pass_on(server.take_stderr());
                server.listening(has_page).await?;
            }
            exit = &mut leave, if left.is_none() => {
                left = Some(exit);
                progress.say("asked to leave: the server writes a checkpoint");
                server.signal(Signal::TERM);
            }
            Some(failed) = workers.join_next() => {
                if let Ok(Err(failure)) = failed {
                    if !workers.is_empty() {
                        warn!(error = %failure, "goes on without a worker");
                        continue;
                    }
                    server.signal(Signal::TERM);
                    server.wait_or_kill().await?;
                    return Err(failure);
                }
            }
        }
    };
    // The workers of a complete run were told and end by themselves. One that was too late to be
    // told, and those of a run that stops, would look for the server for minutes; they are ended as
    // this set is dropped.
    if code == Exit::Complete as i32 {
        let all_ended = async { while workers.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, all_ended).await;
    }
    match (code, left) {
        (0, None) => Ok(Exit::Complete),
        (_, Some(exit)) => Ok(exit),
        (code, None) => Err(ended(server.name(), code)),
    }
}

/// Runs a worker until it ends well; starts it again where that may help.
async fn keep_running(plan: WorkerPlan, progress: Progress) -> Result<(), Failure> {
    for _ in 0..=MAX_RESTARTS {
        let mut worker = Program::start(&plan.name, &plan.file, &plan.flags, progress.is_shown())?;
        progress.pass_on(worker.take_stderr());
        match worker.wait().await? {
            0 => return Ok(()),
            // The server ends with the same code and says why.
            code if code == Exit::Diverged as i32 => return Ok(()),
            code if is_final(code) => return Err(ended(&plan.name, code)),
            code => warn!(
                program = plan.name,
                exit_code = code,
                "ended though the run goes on; is started again"
            ),
        }
        sleep(RESTART_PAUSE).await;
    }
    Err(ended(&plan.name, Exit::TryAgain as i32))
}

/// Whether a program with this code was ended by a signal that it knew nothing about.
fn was_killed(code: i32) -> bool {
    code > 128 && ![Exit::Interrupted as i32, Exit::Terminated as i32].contains(&code)
}

/// Whether starting the program again cannot change how it ends.
fn is_final(code: i32) -> bool {
    [Exit::Usage, Exit::Permanent, Exit::Disk]
        .iter()
        .any(|exit| *exit as i32 == code)
}
