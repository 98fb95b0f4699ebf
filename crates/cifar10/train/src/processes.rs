//! Starts and ends the programs of a run.

use std::cell::RefCell;
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use pserver_cli::console::{self, Reader};
use pserver_cli::exit::{Exit, Failure, OrExit};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::timeout;

use crate::args::Launch;
use crate::flags::Flags;

/// How long the server may take until it listens: it reads a checkpoint before.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a program may take to end once it was asked to: the server writes a checkpoint.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the last lines of a program that has ended may take to be read: a process that it
/// started may hold its stderr open.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For workers.
    pub address: String,
    /// For browsers, where it shows a page.
    pub page: Option<String>,
}

/// What a program is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the program is called, such as `cifar-worker 0`.
    pub name: String,
    /// The program.
    pub file: PathBuf,
    /// Its flags.
    pub flags: Flags,
}

/// A program that was started here and ends with this process at the latest.
///
/// What it writes to stderr is passed on line by line. It is in a process group of its own: Ctrl-C on a
/// terminal goes to the launcher alone, which passes it on in order. So it may not write to the
/// terminal itself: under `stty tostop` that would stop it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    /// Closed when this process ends, however it does: the program then leaves.
    _lifeline: ChildStdin,
    last_words: Rc<RefCell<String>>,
    passing_on: JoinHandle<()>,
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
    /// Starts a program.
    ///
    /// # Errors
    ///
    /// [`Exit::Permanent`] if it cannot be started.
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let mut child = Command::new(&plan.file)
            .args(plan.flags.words())
            .arg("--leave-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", plan.file.display()))
            .or_exit(Exit::Permanent)?;
        let last_words = Rc::<RefCell<String>>::default();
        let stderr = child.stderr.take().expect("it is piped");
        Ok(Program {
            name: plan.name.clone(),
            // Out of the child, which would close it before it is waited for.
            _lifeline: child.stdin.take().expect("it is piped"),
            child,
            passing_on: spawn_local(pass_on(stderr, Rc::clone(&last_words))),
            last_words,
        })
    }

    /// Passes on what it writes to stdout, as results of this program, until nobody reads them. A reader who
    /// takes time for them holds up nothing else.
    pub fn print_results(&mut self) -> Option<JoinHandle<Result<(), Failure>>> {
        let mut lines = self.take_stdout()?;
        Some(spawn_local(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let print = move || console::print_for_people(&line);
                if spawn_blocking(print).await?? == Reader::Gone {
                    break;
                }
            }
            Ok(())
        }))
    }

    /// Where it listens, which a server writes first; with `has_page`, for browsers too.
    ///
    /// # Errors
    ///
    /// If it ends before, with its exit code, or does not say in time.
    pub async fn listening(&mut self, has_page: bool) -> Result<Listening, Failure> {
        let mut lines = self.take_stdout().context("it was read before")?;
        let read = async {
            let address = after(lines.next_line().await?, "listening ");
            let page = match address.is_some() && has_page {
                true => after(lines.next_line().await?, "http "),
                false => None,
            };
            Ok::<_, io::Error>((address, page))
        };
        let read = timeout(START_TIMEOUT, read)
            .await
            .with_context(|| {
                format!(
                    "{} has not said where it listens for {} s",
                    self.name,
                    START_TIMEOUT.as_secs()
                )
            })
            .or_exit(Exit::TryAgain)?;
        match read.context("cannot read what the server writes")? {
            (Some(address), page) if page.is_some() == has_page => Ok(Listening { address, page }),
            _ => {
                let code = self.wait().await?;
                Err(self.failure(code))
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
        if !self.passing_on.is_finished() {
            let _ = timeout(LAST_WORDS_TIMEOUT, &mut self.passing_on).await;
        }
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
        if let Ok(code) = timeout(END_TIMEOUT, self.wait()).await {
            return code;
        }
        self.child
            .start_kill()
            .with_context(|| format!("cannot end {}", self.name))?;
        self.wait().await
    }

    /// The failure of the launcher when this program has ended with `code`.
    #[must_use]
    pub fn failure(&self, code: i32) -> Failure {
        failure(&self.name, code, &self.last_words.borrow())
    }

    fn take_stdout(&mut self) -> Option<Lines<BufReader<ChildStdout>>> {
        Some(BufReader::new(self.child.stdout.take()?).lines())
    }
}

/// Passes on the lines of a program, and keeps the last one.
async fn pass_on(stderr: impl AsyncRead + Unpin, last_words: Rc<RefCell<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\n');
        console::pass_on(text);
        if !text.trim().is_empty() {
            text.clone_into(&mut last_words.borrow_mut());
        }
        line.clear();
    }
}

/// What comes after a word at the beginning of a line.
fn after(line: Option<String>, word: &str) -> Option<String> {
    Some(line?.strip_prefix(word)?.to_owned())
}

/// What an exit code means that none of our programs chooses, and that starting the program again
/// cannot change.
fn final_code(code: i32) -> Option<(Exit, &'static str)> {
    let signal = |signal: Signal| 128 + signal.as_raw();
    Some(match code {
        101 => (
            Exit::Unexpected,
            "it panicked, which is a bug: please report its last words",
        ),
        126 => (
            Exit::Permanent,
            "the system cannot execute it: is it built for this machine?",
        ),
        127 => (
            Exit::Permanent,
            "it or a library that it needs was not found: build it again, or name the library's folder in LD_LIBRARY_PATH",
        ),
        code if code == signal(Signal::ILL) => (
            Exit::Permanent,
            "this processor lacks an instruction that it was built for: build it on this machine",
        ),
        code if code == signal(Signal::SYS) => (
            Exit::Permanent,
            "the system forbids a call that it needs: look at the seccomp filter of this container",
        ),
        code if code == signal(Signal::XFSZ) => (
            Exit::Disk,
            "a file would be larger than this user may write: raise `ulimit -f`",
        ),
        _ => return None,
    })
}

/// Whether starting a program again cannot change that it ends with this code.
#[must_use]
pub fn is_final(code: i32) -> bool {
    let is_ours = [Exit::Usage, Exit::Permanent, Exit::Disk]
        .iter()
        .any(|exit| *exit as i32 == code);
    is_ours || final_code(code).is_some()
}

/// Whether a program with this code was ended by a signal that it knew nothing about, and may do
/// better at another start.
#[must_use]
pub fn was_killed(code: i32) -> bool {
    code > 128
        && final_code(code).is_none()
        && ![Exit::Interrupted as i32, Exit::Terminated as i32].contains(&code)
}

fn failure(name: &str, code: i32, last_words: &str) -> Failure {
    let mut text = format!("{name} ended with exit code {code}");
    let exit = match final_code(code) {
        Some((exit, advice)) => {
            text += &format!(" ({advice})");
            exit
        }
        None => Exit::from_code(code)
            .filter(|exit| *exit != Exit::Complete)
            .unwrap_or(Exit::Unexpected),
    };
    if !last_words.is_empty() {
        text += &format!("; its last words: {last_words}");
    }
    Failure::new(exit, anyhow!(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_told_as_it_is_with_what_to_do() {
        for (code, exit, words) in [
            (78, Exit::Permanent, "with exit code 78; its last words: no"),
            (101, Exit::Unexpected, "with exit code 101 (it panicked"),
            (
                126,
                Exit::Permanent,
                "with exit code 126 (the system cannot",
            ),
            (127, Exit::Permanent, "LD_LIBRARY_PATH"),
            (132, Exit::Permanent, "with exit code 132 (this processor"),
            (153, Exit::Disk, "ulimit -f"),
            (159, Exit::Permanent, "seccomp"),
            (3, Exit::Unexpected, "with exit code 3"),
        ] {
            let failure = failure("cifar-worker 0", code, "no");
            assert_eq!(failure.exit(), exit, "{code}");
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }

    #[test]
    fn a_program_is_started_again_where_that_may_help() {
        for (code, is_worth_it) in [
            (75, true),
            (137, true),
            (139, true),
            (134, true),
            (78, false),
            (101, false),
            (126, false),
            (127, false),
            (132, false),
            (153, false),
        ] {
            assert_eq!(!is_final(code), is_worth_it, "{code}");
            assert_eq!(was_killed(code), is_worth_it && code > 128, "{code}");
        }
    }
}
