//! Watches the programs until the run is over.

use std::time::Duration;

use pserver_cli::console;
use pserver_cli::exit::{Exit, Failure};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::processes::{Plan, Program, is_final, was_killed};

/// A worker that ends though the run goes on is started again after this long.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// A program that has been started again this often is given up.
const MAX_RESTARTS: u32 = 10;

/// How long workers that were told that the run is complete may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// A server that runs, and what it takes to start it again where it listens.
#[derive(Debug)]
pub struct Server {
    /// The program that runs.
    pub program: Program,
    /// How it is started again.
    pub restart: Plan,
    /// Whether it shows a page.
    pub has_page: bool,
}

/// Runs the workers beside `server` until it ends or `leave` resolves; returns how the run ended.
///
/// A worker that ends though the run goes on is started again; one that cannot do better at another
/// start, as long as there are others, is done without.
///
/// # Errors
///
/// A [`Failure`] with the exit code of the program that failed.
pub async fn supervise(
    server: Server,
    workers: Vec<Plan>,
    leave: impl Future<Output = Exit>,
) -> Result<Exit, Failure> {
    let plans = workers;
    let mut workers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for plan in plans {
        workers.spawn_local(keep_running(plan));
    }
    tokio::pin!(leave);
    let mut left = None;
    let mut restarts = 0;
    let Server {
        program: mut server,
        restart,
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
                server = Program::start(&restart)?;
                server.listening(has_page).await?;
            }
            exit = &mut leave, if left.is_none() => {
                left = Some(exit);
                console::say("Interrupted: saving a checkpoint");
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
    exit_of(code, left).ok_or_else(|| server.failure(code))
}

/// How the launcher ends after a server that ended with `code`, if that is no failure. `left`: it was told to leave.
fn exit_of(code: i32, left: Option<Exit>) -> Option<Exit> {
    let is_complete = code == Exit::Complete as i32;
    match left {
        Some(exit) if is_complete || code == Exit::Terminated as i32 => Some(exit),
        None if is_complete => Some(Exit::Complete),
        _ => None,
    }
}

/// Runs a worker until it ends well; starts it again where that may help.
async fn keep_running(plan: Plan) -> Result<(), Failure> {
    let mut restarts = 0;
    loop {
        let mut worker = Program::start(&plan)?;
        match worker.wait().await? {
            0 => return Ok(()),
            // The server ends with the same code and says why.
            code if code == Exit::Diverged as i32 => return Ok(()),
            code if is_final(code) || restarts == MAX_RESTARTS => return Err(worker.failure(code)),
            code => warn!(
                program = plan.name,
                exit_code = code,
                "ended though the run goes on; is started again"
            ),
        }
        restarts += 1;
        sleep(RESTART_PAUSE).await;
    }
}
