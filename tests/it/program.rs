//! A program that was started: what it writes, how it is asked to leave, how it ends.

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pserver_cli::exit::Exit;
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_cifar-ps-dup");
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_cifar-worker-dup");
pub(crate) const EVAL: &str = env!("CARGO_BIN_EXE_cifar-eval-dup");
pub(crate) const DATA: &str = env!("CARGO_BIN_EXE_cifar-data-dup");
pub(crate) const BENCH: &str = env!("CARGO_BIN_EXE_cifar-bench-dup");
pub(crate) const LAUNCHER: &str = env!("CARGO_BIN_EXE_cifar-train-dup");

/// The longest wait for anything: far longer than anything takes, even on a busy machine, so that
/// only what would never happen reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The pause between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Looks until there is something to be seen, and gives that.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        let waited = start.elapsed();
        assert!(waited < DEADLINE, "waited {waited:?} in vain for {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// Says that a test, or a part of one, is skipped for something that this machine lacks. Where
/// `CIFAR_REQUIRE_<NAME>=1` that is a failure.
#[track_caller]
pub(crate) fn skip(name: &str, lack: &str) {
    let variable = format!("CIFAR_REQUIRE_{name}");
    let is_required = env::var_os(&variable).is_some_and(|value| value == "1");
    assert!(!is_required, "{variable}=1, but {lack}");
    eprintln!("skipped: {lack}");
}

/// A command that the surroundings of the tests do not change.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("CIFAR10_DATA_DIR")
        .env_remove("RUST_LOG");
    command
}

/// A program that runs, or did. Dropped, it is killed; in a test that fails it first shows what it
/// wrote.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    stdout: Written,
    stderr: Written,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            // Held until the program has ended or this process has.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        Program {
            name,
            child,
            stdout: Written::to(stdout),
            stderr: Written::to(stderr),
        }
    }

    /// Its number among the processes of this machine.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whole lines that it wrote to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// Whole lines that it wrote to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until something can be seen in what it writes.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        eventually(what, || {
            let is_all = self.has_said_all();
            let seen = look(self);
            assert!(seen.is_some() || !is_all, "it ended without {what}");
            seen
        })
    }

    /// Waits until `text` stands in what it wrote to stderr.
    #[track_caller]
    pub(crate) fn wait_until_said(&self, text: &str) {
        self.wait_for(text, |program| {
            program.stderr().contains(text).then_some(())
        });
    }

    /// Waits for its end, and for that of whatever it started and left with its stdout or stderr.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Exit {
        let status = eventually("the end of a program", || {
            self.child.try_wait().expect("a child can be waited for")
        });
        self.wait_for_last_words();
        let exit = status.code().and_then(Exit::from_code);
        exit.unwrap_or_else(|| panic!("{} ended with {status}", self.name))
    }

    /// Waits until it ends itself as suddenly as a crash would.
    #[track_caller]
    pub(crate) fn wait_until_aborted(&mut self) {
        let status = eventually("the sudden end of a program", || {
            self.child.try_wait().expect("a child can be waited for")
        });
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
        self.wait_for_last_words();
    }

    /// Asks it to do as this signal says.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be sent a signal");
    }

    /// Ends it as a power cut would: it can do nothing about it.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        self.wait_for_last_words();
    }

    #[track_caller]
    fn wait_for_last_words(&self) {
        eventually("the end of what a program writes", || {
            self.has_said_all().then_some(())
        });
    }

    fn has_said_all(&self) -> bool {
        self.stdout.is_all() && self.stderr.is_all()
    }

    /// The number that follows `text` in what it writes to stderr.
    #[track_caller]
    pub(crate) fn number_after(&self, text: &str) -> u64 {
        self.wait_for(text, |program| {
            let stderr = program.stderr();
            let (_, rest) = stderr.split_once(text)?;
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        })
    }

    /// Checks that this stands in what it wrote to stderr.
    #[track_caller]
    pub(crate) fn assert_said(&self, text: &str) {
        let stderr = self.stderr();
        assert!(stderr.contains(text), "{text:?} is not in:\n{stderr}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let (stdout, stderr) = (self.stdout(), self.stderr());
            eprintln!("--- {}\nstdout:\n{stdout}stderr:\n{stderr}", self.name);
        }
    }
}

/// What a program writes to a stream, read by a thread so that it never waits for a reader.
#[derive(Debug)]
struct Written {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Written {
    fn to(stream: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let written = Arc::clone(&text);
        let reader = thread::spawn(move || {
            for line in lines {
                let mut text = written.lock().expect("nobody panics with the text");
                text.push_str(&line);
                text.push('\n');
            }
        });
        Written { text, reader }
    }

    fn so_far(&self) -> String {
        let text = self.text.lock().expect("nobody panics with the text");
        text.clone()
    }

    /// Whether nothing more will come.
    fn is_all(&self) -> bool {
        self.reader.is_finished()
    }
}
