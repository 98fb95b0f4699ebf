//! The evaluator that runs beside the training and follows its server.

use std::time::Duration;

use pserver_cli::exit::{Exit, Failure};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use crate::processes::{Plan, Program};

/// How long the evaluator may take to end after its server has: that one waits for the last score.
const FAREWELL: Duration = Duration::from_secs(30);

/// An evaluator that runs, whose scores appear on stdout as they come in. Dropped, it is ended.
#[derive(Debug)]
pub struct Evaluator {
    program: Program,
    scores: Option<JoinHandle<Result<(), Failure>>>,
}

impl Evaluator {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let mut program = Program::start(plan)?;
        let scores = program.print_results();
        Ok(Evaluator { program, scores })
    }

    /// Waits for its end, however long that takes.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with its exit code, if it does not end well; [`Exit::Disk`] if its scores cannot be
    /// written to stdout.
    pub async fn ended(&mut self) -> Result<(), Failure> {
        let code = self.program.wait().await?;
        if let Some(scores) = &mut self.scores {
            // The last score may still be in the pipe.
            scores.await??;
        }
        match code == Exit::Complete as i32 {
            true => Ok(()),
            false => Err(self.program.failure(code)),
        }
    }

    /// Waits for its end after that of the run, and then for the reader of its scores; whether it has scored
    /// the last checkpoint.
    pub async fn finish(mut self) -> bool {
        if timeout(FAREWELL, self.program.wait()).await.is_err() {
            return false;
        }
        let ended = self.ended().await;
        if let Err(error) = &ended {
            warn!(%error, "the evaluator beside the training did not come to the end");
        }
        ended.is_ok()
    }
}
