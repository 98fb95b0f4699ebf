//! The evaluator that runs beside the training and follows its server.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use cifar_cli::exit::{Exit, Failure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use crate::processes::Program;
use crate::progress::Progress;

/// How long the evaluator may take to end after its server has: that one waits for the last score.
const FAREWELL: Duration = Duration::from_secs(30);

/// An evaluator that runs. Dropped, it is ended.
#[derive(Debug)]
pub struct Evaluator {
    program: Program,
    scores: JoinHandle<()>,
}

impl Evaluator {
    /// Starts `file`, whose scores appear on stdout as they come in.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(file: &Path, flags: &[OsString], progress: &Progress) -> Result<Self, Failure> {
        let mut program = Program::start("cifar-eval", file, flags, progress.is_shown())?;
        progress.pass_on(program.take_stderr());
        let stdout = program.take_stdout();
        let progress = progress.clone();
        let scores = tokio::task::spawn_local(async move {
            let Some(stdout) = stdout else { return };
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if progress.result(&line).is_err() {
                    return;
                }
            }
        });
        Ok(Evaluator { program, scores })
    }

    /// Waits for its end after that of the run; whether it has scored the last checkpoint.
    pub async fn finish(mut self) -> bool {
        let ended = async {
            let code = self.program.wait().await;
            // The last score may still be in the pipe.
            let _ = (&mut self.scores).await;
            code
        };
        match timeout(FAREWELL, ended).await {
            Ok(Ok(code)) if code == Exit::Complete as i32 => true,
            Ok(Ok(code)) => {
                warn!(
                    exit_code = code,
                    "the evaluator beside the training did not come to the end"
                );
                false
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }
}
