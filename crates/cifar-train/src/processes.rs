//! Starts and ends the programs of a run.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use cifar_cli::exit::{Exit, Failure, OrExit};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::args::Launch;

/// How long the server may take until it listens: it reads a checkpoint before.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a program may take to end once it was asked to: the server writes a checkpoint.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For workers.
    pub address: String,
    /// For browsers, where it shows a page.
    pub page: Option<String>,
}

/// A program that was started here and ends with this process at the latest.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
}

/// The files of the programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This one.
    pub launcher: PathBuf,
    /// cifar-ps.
    pub server: PathBuf,
    /// cifar-worker.
    pub worker: PathBuf,
    /// cifar-eval.
    pub eval: PathBuf,
}

impl Programs {
    /// Those that were given, or else lie beside this program.
    ///
    /// # Errors
    ///
    /// A sentence that names the file, if one is not there.
    pub fn find(launch: &Launch) -> Result<Self, Failure> {
        let launcher = env::current_exe().context("cannot tell where this program lies")?;
        let find = |given: &Option<PathBuf>, name| find(given.as_ref(), name, &launcher);
        Ok(Programs {
            server: find(&launch.ps_program, "cifar-ps")?,
            worker: find(&launch.worker_program, "cifar-worker")?,
            eval: find(&launch.eval_program, "cifar-eval")?,
            launcher: launcher.clone(),
        })
    }
}

/// The file of a program: the one given, or `name` beside the launcher.
fn find(given: Option<&PathBuf>, name: &str, launcher: &Path) -> Result<PathBuf, Failure> {
    let path = match given {
        Some(path) => path.clone(),
        None => launcher.with_file_name(name),
    };
    if path.is_file() {
        return Ok(path);
    }
    let error = anyhow!(
        "the program {name} is not at {}; build it, or say where it is",
        path.display()
    );
    Err(Failure::new(Exit::Permanent, error))
}

impl Program {
    /// Starts `file`. With `quiet`, what it writes to stderr is kept for [`take_stderr`].
    ///
    /// It is in a process group of its own: Ctrl-C on a terminal goes to the launcher alone, which
    /// passes it on in order.
    ///
    /// [`take_stderr`]: Self::take_stderr
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(
        name: &str,
        file: &Path,
        flags: &[OsString],
        quiet: bool,
    ) -> Result<Self, Failure> {
        let stderr = || {
            if quiet {
                Stdio::piped()
            } else {
                Stdio::inherit()
            }
        };
        let child = Command::new(file)
            .args(flags)
            .arg("--leave-with-parent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", file.display()))?;
        Ok(Program {
            name: name.to_owned(),
            child,
        })
    }

    /// What it writes to stderr, once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// What it writes to stdout, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Where it listens, which a server writes first; with `has_page`, for browsers too.
    ///
    /// # Errors
    ///
    /// If it ends before, with its exit code, or does not say in time.
    pub async fn listening(&mut self, has_page: bool) -> Result<Listening, Failure> {
        let stdout = self
            .child
            .stdout
            .take()
            .context("the server's output was read before")?;
        let mut lines = BufReader::new(stdout).lines();
        let read = async {
            let address = after(lines.next_line().await?, "listening ");
            let page = match address.is_some() && has_page {
                true => after(lines.next_line().await?, "http "),
                false => None,
            };
            Ok::<_, io::Error>((address, page))
        };
        let read = tokio::time::timeout(START_TIMEOUT, read)
            .await
            .context("the server does not say where it listens")
            .or_exit(Exit::TryAgain)?;
        match read.context("cannot read what the server writes")? {
            (Some(address), page) if page.is_some() == has_page => Ok(Listening { address, page }),
            // It has said why on stderr.
            _ => {
                let code = self.wait().await?;
                Err(ended(&self.name, code))
            }
        }
    }

    /// Waits for its end and returns its exit code; a signal counts as 128 and its number.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub async fn wait(&mut self) -> Result<i32, Failure> {
        use std::os::unix::process::ExitStatusExt;
        let status = self
            .child
            .wait()
            .await
            .with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Asks it to end; nothing happens if it has.
    pub fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended in this moment.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end, and ends it by force if that does not come.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub async fn wait_or_kill(&mut self) -> Result<i32, Failure> {
        if let Ok(code) = tokio::time::timeout(END_TIMEOUT, self.wait()).await {
            return code;
        }
        self.child
            .start_kill()
            .with_context(|| format!("cannot end {}", self.name))?;
        self.wait().await
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What comes after a word at the beginning of a line.
fn after(line: Option<String>, word: &str) -> Option<String> {
    Some(line?.strip_prefix(word)?.to_owned())
}

/// The failure of the launcher when a program has ended with `code`.
#[must_use]
pub fn ended(name: &str, code: i32) -> Failure {
    let exit = Exit::from_code(code)
        .filter(|exit| *exit != Exit::Complete)
        .unwrap_or(Exit::Unexpected);
    Failure::new(exit, anyhow!("{name} ended with exit code {code}"))
}
