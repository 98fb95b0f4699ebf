//! A parameter server and its workers as processes, for as long as they are measured.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use pserver_ledger::History;
use pserver_ledger::eval_dir::{EVAL_DIR, SCORES_FILE};
use pserver_ledger::ledger_file::LEDGER_FILE;
use tempfile::TempDir;

use crate::process_usage::ProcessUsage;

/// A step that no measurement comes to.
const NO_LAST_STEP: &str = "1000000000";

/// Where the programs are.
#[derive(Clone, Debug, Args)]
pub struct ProgramPaths {
    /// The program cifar-ps [default: beside this program]
    #[arg(long, value_name = "FILE")]
    pub ps_program: Option<PathBuf>,

    /// The program cifar-worker [default: beside this program]
    #[arg(long, value_name = "FILE")]
    pub worker_program: Option<PathBuf>,
}

impl ProgramPaths {
    fn server(&self) -> anyhow::Result<PathBuf> {
        given_or_beside(self.ps_program.as_ref(), "cifar-ps")
    }

    fn worker(&self) -> anyhow::Result<PathBuf> {
        given_or_beside(self.worker_program.as_ref(), "cifar-worker")
    }
}

fn given_or_beside(given: Option<&PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    let this = env::current_exe().context("cannot tell where this program lies")?;
    Ok(given.map_or_else(|| this.with_file_name(name), Clone::clone))
}

/// A process that ends with this one, or when this is dropped. What it writes to stderr is kept for when it fails.
#[derive(Debug)]
struct Process {
    child: Child,
    name: String,
    stderr: PathBuf,
}

impl Process {
    fn start(name: &str, program: &Path, flags: &[String], folder: &Path) -> anyhow::Result<Self> {
        let stderr = folder.join(format!("{name}.log"));
        let log =
            File::create(&stderr).with_context(|| format!("cannot create {}", stderr.display()))?;
        let child = Command::new(program)
            .args(flags)
            .args(["--log-level", "warn", "--leave-with-parent"])
            // Its end, which comes with that of this process, is when a program leaves with its parent.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process {
            child,
            name: name.to_owned(),
            stderr,
        })
    }

    /// Fails if it has ended, with what it said.
    fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_words()),
        }
    }

    fn last_words(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    fn usage(&self) -> anyhow::Result<ProcessUsage> {
        ProcessUsage::of(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server on a train dir of its own, and the workers it was given.
#[derive(Debug)]
pub struct ServerProcess {
    // Dropped in this order.
    workers: Vec<Process>,
    server: Process,
    /// What the server says to programs.
    lines: BufReader<ChildStdout>,
    address: String,
    paths: ProgramPaths,
    folder: TempDir,
}

impl ServerProcess {
    /// Starts a server with these flags and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it does not, with what it said.
    pub fn start(paths: &ProgramPaths, flags: &[String]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the run")?;
        let mut all: Vec<String> = ["--listen", "127.0.0.1:0", "--log-frequency", "0"]
            .into_iter()
            .chain(["--max-steps", NO_LAST_STEP, "--train-dir"])
            .map(str::to_owned)
            .collect();
        all.push(train_dir(&folder).display().to_string());
        all.extend_from_slice(flags);
        let mut server = Process::start("cifar-ps", &paths.server()?, &all, folder.path())?;
        let stdout = server.child.stdout.take().context("its stdout is piped")?;
        let mut lines = BufReader::new(stdout);
        let address = said(&mut lines, &mut server, "listening ")?;
        Ok(ServerProcess {
            workers: Vec::new(),
            server,
            lines,
            address,
            paths: paths.clone(),
            folder,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where the page is shown of a server that was started with `--http`.
    ///
    /// # Errors
    ///
    /// If it does not say so as its next line.
    pub fn page_address(&mut self) -> anyhow::Result<String> {
        said(&mut self.lines, &mut self.server, "http ")
    }

    /// Starts one more worker with these flags.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn add_worker(&mut self, flags: &[String]) -> anyhow::Result<()> {
        let name = format!("cifar-worker-{}", self.workers.len());
        let mut all = vec!["--server".to_owned(), self.address.clone()];
        all.extend_from_slice(flags);
        let worker = Process::start(&name, &self.paths.worker()?, &all, self.folder.path())?;
        self.workers.push(worker);
        Ok(())
    }

    /// Fails if the server or a worker has ended, with what it said.
    ///
    /// # Errors
    ///
    /// As said.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.server.check()?;
        self.workers.iter_mut().try_for_each(Process::check)
    }

    /// What the server has used.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn usage(&self) -> anyhow::Result<ProcessUsage> {
        self.server.usage()
    }

    /// What each worker has used.
    ///
    /// # Errors
    ///
    /// If one has ended.
    pub fn usage_of_workers(&self) -> anyhow::Result<Vec<ProcessUsage>> {
        self.workers.iter().map(Process::usage).collect()
    }

    /// Bytes of the scores that were told to it.
    #[must_use]
    pub fn scores_bytes(&self) -> u64 {
        let path = train_dir(&self.folder).join(EVAL_DIR).join(SCORES_FILE);
        path.metadata().map_or(0, |found| found.len())
    }

    /// What was committed so far.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be read.
    pub fn history(&self) -> anyhow::Result<History> {
        Ok(History::read(&train_dir(&self.folder).join(LEDGER_FILE))?)
    }
}

fn train_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("run")
}

/// The address after `word` in the next line that a server writes.
fn said(
    lines: &mut BufReader<ChildStdout>,
    server: &mut Process,
    word: &str,
) -> anyhow::Result<String> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    match line.trim_end().strip_prefix(word) {
        Some(address) => Ok(address.to_owned()),
        None if line.is_empty() => {
            server.child.wait()?;
            server.check()?;
            bail!("the server does not say where it listens")
        }
        None => bail!("the server says {line:?} instead of {word:?} and an address"),
    }
}
