//! Programs whose stderr is not read, and the last words of those whose stderr is, seen from another process.

#![expect(clippy::unwrap_used, reason = "a test may stop where it fails")]

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write, pipe, stdout};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use pserver_cli::console::{self, print, refuse, say};
use pserver_cli::exit::{Exit, Failure};
use pserver_cli::logging::{LogArgs, LogFormat, init};
use pserver_cli::signals::end_when_asked;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

/// What the process is to do that a test starts.
const DEED: &str = "CIFAR_TEST_DEED";

/// A process that has not done it by then ends by itself, without an exit code.
const DEADLINE: Duration = Duration::from_secs(60);

/// What every deed says last.
const LAST_WORDS: &str = "so long";

/// More than the queue of a program and a pipe hold.
const NUM_LINES: usize = 100_000;

/// Ways to end, and the exit codes that they have.
const WAYS_OUT: [(&str, i32); 5] = [
    ("fails", Exit::Disk as i32),
    ("is-refused", Exit::Usage as i32),
    ("panics", 101),
    ("is-asked", Exit::Terminated as i32),
    ("says", 0),
];

/// Does what the process was started for. It is no test of its own.
#[test]
fn deed() {
    let Some(deed) = env::var_os(DEED) else {
        return;
    };
    thread::spawn(|| {
        thread::sleep(DEADLINE);
        process::abort()
    });
    let args = LogArgs {
        log_format: LogFormat::Text,
        log_level: "info".to_owned(),
    };
    init(&args).unwrap();
    let end = |code| process::exit(code);
    match deed.to_str().unwrap() {
        "fails" => {
            let error = std::io::Error::other(LAST_WORDS);
            let _ = console::report("deed", Err(Failure::new(Exit::Disk, error)));
            end(Exit::Disk as i32)
        }
        "is-refused" => {
            let kind = clap::error::ErrorKind::UnknownArgument;
            refuse(&clap::Error::raw(kind, format!("{LAST_WORDS}\n")))
        }
        "panics" => {
            let _ = thread::spawn(|| panic!("{LAST_WORDS}")).join();
            end(101)
        }
        "is-asked" => {
            end_when_asked().unwrap();
            say(LAST_WORDS);
            announce_that_it_is_ready();
            thread::park();
        }
        "says" => {
            say(LAST_WORDS);
            let _ = console::report("deed", Ok(Exit::Complete));
            end(0)
        }
        "says-much" => {
            for line in 0..NUM_LINES {
                say(&format!("line {line}"));
            }
            announce_that_it_is_ready();
            thread::park();
        }
        "prints" => {
            say("not read");
            for _ in 0..20 {
                let _ = print("a result\n").unwrap();
            }
            end(0)
        }
        deed => panic!("{deed}"),
    }
}

fn announce_that_it_is_ready() {
    // Directly: what is tested is not to help.
    stdout().write_all(b"ready\n").unwrap();
}

fn start(deed: &str, stderr: impl Into<Stdio>) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "deed", "--nocapture"])
        .env(DEED, deed)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

fn wait_until_ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
}

/// A pipe that takes no more until somebody reads what is in it.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Has a program end in a way, and gives its exit code.
#[track_caller]
fn code_of(deed: &str, stderr: impl Into<Stdio>) -> Option<i32> {
    let mut child = start(deed, stderr);
    if deed == "is-asked" {
        wait_until_ready(&mut child);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    }
    child.wait().unwrap().code()
}

#[test]
fn a_program_ends_in_every_way_though_nobody_reads_its_last_words() {
    for (deed, code) in WAYS_OUT {
        let (_reader, stderr) = full_pipe();
        assert_eq!(code_of(deed, stderr), Some(code), "{deed}");
    }
}

#[test]
fn the_last_words_of_a_program_are_written_in_whichever_way_it_ends() {
    for (deed, code) in WAYS_OUT {
        let (mut reader, stderr) = pipe().unwrap();
        assert_eq!(code_of(deed, stderr), Some(code), "{deed}");
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said.matches(LAST_WORDS).count(), 1, "{deed}: {said}");
    }
}

#[test]
fn lines_that_nobody_read_are_counted_and_told_to_who_reads_on() {
    let (reader, stderr) = full_pipe();
    let mut child = start("says-much", stderr);
    wait_until_ready(&mut child);
    let mut num_read = 0;
    for line in BufReader::new(reader).lines() {
        let line = line.unwrap();
        if let Some((_, lost)) = line.split_once("because nobody read them lines=") {
            let num_lost: usize = lost.parse().unwrap();
            assert_eq!(num_read + num_lost, NUM_LINES);
            assert!(num_read > 1000, "{num_read}");
            break;
        }
        if !line.is_empty() {
            assert_eq!(line, format!("line {num_read}"));
            num_read += 1;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn results_are_printed_though_nobody_reads_stderr_and_wait_for_it_once() {
    let (_reader, stderr) = full_pipe();
    let began = Instant::now();
    let child = start("prints", stderr);
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.matches("a result\n").count(), 20, "{printed}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn what_was_said_before_a_result_comes_before_it_in_one_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = || File::options().append(true).open(file.path()).unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "deed", "--nocapture"])
        .env(DEED, "prints")
        .stdout(open())
        .stderr(open())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let written = std::fs::read_to_string(file.path()).unwrap();
    let (before, _) = written.split_once("a result").unwrap();
    assert!(before.contains("not read"), "{written}");
}
