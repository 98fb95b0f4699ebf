//! What programs write where: streams that cannot be written, and logs for machines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pserver_cli::exit::Exit;
use pserver_ledger::EvalDir;
use pserver_state::checkpoint;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::launcher::{child_of, launcher};
use crate::program::{DATA, EVAL, LAUNCHER, Program, SERVER, WORKER, command, eventually};

/// A run of a few steps.
const SHORT: [&str; 5] = ["--data", "synthetic:512", "--max-steps", "20", "--no-eval"];

fn full_disk() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that nobody reads.
fn closed_pipe() -> PipeWriter {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer
}

/// How a program ends.
#[track_caller]
fn exit_of(command: &mut Command) -> Option<Exit> {
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let status = eventually("the end of a program", || child.try_wait().unwrap());
    status.code().and_then(Exit::from_code)
}

#[test]
fn a_run_goes_on_though_its_stderr_cannot_be_written() {
    for stderr in [Stdio::from(full_disk()), Stdio::from(closed_pipe())] {
        let train_dir = tempfile::tempdir().unwrap();
        let mut launcher = launcher(train_dir.path(), &SHORT);
        let exit = exit_of(launcher.stdout(Stdio::null()).stderr(stderr));
        assert_eq!(exit, Some(Exit::Complete));
        assert_eq!(checkpoint::list(train_dir.path()).unwrap()[0].0.0, 20);
    }
}

/// A pipe that takes no more until somebody reads what is in it.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[test]
fn a_run_goes_on_to_its_end_though_nobody_reads_its_stderr() {
    let train_dir = tempfile::tempdir().unwrap();
    let (_reader, stderr) = full_pipe();
    let mut launcher = launcher(train_dir.path(), &SHORT);
    let exit = exit_of(launcher.stdout(Stdio::null()).stderr(stderr));
    assert_eq!(exit, Some(Exit::Complete));
    assert_eq!(checkpoint::list(train_dir.path()).unwrap()[0].0.0, 20);
}

/// A launcher that has a score to print, and the reader of its stdout, which is full.
fn launcher_with_score(train_dir: &Path) -> (Child, PipeReader) {
    let (reader, stdout) = full_pipe();
    let flags = ["--data", "synthetic:512", "--max-steps", "20"];
    let mut launcher = launcher(train_dir, &flags);
    launcher.stdin(Stdio::null()).stdout(stdout);
    let process = launcher.stderr(Stdio::null()).spawn().unwrap();
    eventually("the score", || {
        let scores = EvalDir::of_train_dir(train_dir).scores().ok()?;
        scores.into_iter().next()
    });
    (process, reader)
}

#[test]
fn a_result_waits_for_its_reader() {
    let train_dir = tempfile::tempdir().unwrap();
    let (mut launcher, mut reader) = launcher_with_score(train_dir.path());
    let mut read = String::new();
    reader.read_to_string(&mut read).unwrap();
    assert!(read.contains("precision @ 1 = "), "{read}");
    assert!(launcher.wait().unwrap().success());
}

#[test]
fn a_launcher_leaves_when_it_is_told_to_though_nobody_reads_its_result() {
    let train_dir = tempfile::tempdir().unwrap();
    let (mut launcher, _reader) = launcher_with_score(train_dir.path());
    eventually("the end of the evaluator", || {
        child_of(launcher.id(), EVAL).is_none().then_some(())
    });
    kill_process(Pid::from_child(&launcher), Signal::TERM).unwrap();
    let status = eventually("the end of a program", || launcher.try_wait().unwrap());
    assert_eq!(
        status.code().and_then(Exit::from_code),
        Some(Exit::Terminated)
    );
}

/// How a server without workers ends when it is asked to, with these streams.
#[track_caller]
fn exit_of_asked_server(stdout: Stdio, stderr: Stdio) -> Option<Exit> {
    let train_dir = tempfile::tempdir().unwrap();
    let mut server = command(SERVER);
    server
        .args(["--listen", "127.0.0.1:0", "--data", "synthetic:512"])
        .args(["--log-level", "trace", "--train-dir"])
        .arg(train_dir.path());
    server.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let mut child = server.spawn().unwrap();
    let file = train_dir.path().join("server");
    eventually("the server", || file.exists().then_some(()));
    // It answers, so it is past all that it says at its start.
    let mut stop = command(SERVER);
    stop.args(["checkpoint", "--train-dir"])
        .arg(train_dir.path());
    assert_eq!(
        exit_of(stop.stdout(Stdio::null()).stderr(Stdio::null())),
        Some(Exit::Complete)
    );
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = eventually("the end of the server", || child.try_wait().unwrap());
    status.code().and_then(Exit::from_code)
}

#[test]
fn a_server_does_what_it_is_told_though_nobody_reads_its_log() {
    let (_reader, stderr) = full_pipe();
    let exit = exit_of_asked_server(Stdio::null(), Stdio::from(stderr));
    assert_eq!(exit, Some(Exit::Terminated));
}

#[test]
fn a_server_does_what_it_is_told_though_nobody_reads_where_it_listens() {
    let (_reader, stdout) = full_pipe();
    let exit = exit_of_asked_server(Stdio::from(stdout), Stdio::null());
    assert_eq!(exit, Some(Exit::Terminated));
}

#[test]
fn a_server_and_its_workers_go_on_though_their_stderr_cannot_be_written() {
    let mut cluster = Cluster::builder().workers(0).start();
    let mut workers = Vec::new();
    for stderr in [Stdio::from(full_disk()), Stdio::from(closed_pipe())] {
        let flags = ["--server", &cluster.server.address, "--log-level", "debug"];
        let mut worker = command(WORKER);
        worker.args(flags).stdout(Stdio::null()).stderr(stderr);
        workers.push(worker.spawn().unwrap());
    }
    cluster.finish();
    for mut worker in workers {
        // The server gave them the whole run, and one that came too late looks for it until it is ended.
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_program_quietly() {
    let mut cluster = Cluster::builder().start();
    cluster.finish();
    let train_dir = cluster.train_dir().to_str().unwrap();
    let asked: [(&str, &[&str]); 5] = [
        (SERVER, &["explain", "--train-dir", train_dir]),
        (SERVER, &["verify", "--train-dir", train_dir]),
        (SERVER, &["diff", train_dir, train_dir]),
        (
            EVAL,
            &[
                "--run-once",
                "--checkpoint-dir",
                train_dir,
                "--data",
                "synthetic:512",
            ],
        ),
        (SERVER, &["--help"]),
    ];
    for (program, flags) in asked {
        let mut command = command(program);
        let stderr = tempfile::NamedTempFile::new().unwrap();
        command
            .args(flags)
            .stdout(closed_pipe())
            .stderr(stderr.reopen().unwrap());
        assert_eq!(exit_of(&mut command), Some(Exit::Complete), "{flags:?}");
        let said = fs::read_to_string(stderr.path()).unwrap();
        for word in ["stdout", "panicked", "pipe"] {
            assert!(!said.contains(word), "{said}");
        }
    }
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let mut cluster = Cluster::builder().start();
    cluster.finish();
    let train_dir = cluster.train_dir().to_str().unwrap();
    let mut explain = command(SERVER);
    explain
        .args(["explain", "--train-dir", train_dir])
        .stdout(full_disk())
        .stderr(Stdio::null());
    assert_eq!(exit_of(&mut explain), Some(Exit::Disk));
}

#[test]
fn a_score_that_cannot_be_printed_is_kept() {
    let mut cluster = Cluster::builder().start();
    cluster.finish();
    let mut eval = command(EVAL);
    eval.args(["--run-once", "--data", "synthetic:512", "--checkpoint-dir"])
        .arg(cluster.train_dir())
        .stdout(full_disk())
        .stderr(Stdio::null());
    assert_eq!(exit_of(&mut eval), Some(Exit::Disk));
    let scores = EvalDir::of_train_dir(cluster.train_dir()).scores().unwrap();
    assert_eq!(scores.len(), 1);
}

/// Checks that each line of stderr is a JSON object, and that the last one has the exit code, if it
/// is of a failure.
#[track_caller]
fn assert_json(program: &Program, exit: Exit) {
    let said = program.stderr();
    let mut last = Value::Null;
    for line in said.lines() {
        last = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(last[key].is_string(), "no {key} in {line}");
        }
    }
    if let Some(code) = last.get("exit_code") {
        assert_eq!(code.as_i64(), Some(exit as i64), "{last}");
    }
}

#[test]
fn every_line_of_every_program_is_json_whatever_the_exit_code() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (run, empty, missing) = (path("run"), path("empty"), path("missing"));
    fs::create_dir(&empty).unwrap();
    let file = path("file");
    fs::write(&file, "").unwrap();
    let below_file = format!("{file}/run");
    let diverged = path("diverged");
    let programs = |mut flags: Vec<&'static str>| {
        flags.extend(["--ps-program", SERVER, "--worker-program", WORKER]);
        flags.extend([
            "--eval-program",
            EVAL,
            "--batch-size",
            "16",
            "--workers",
            "1",
        ]);
        flags
    };
    let synthetic = ["--data", "synthetic:512"];
    let with = |flags: &[&'static str]| programs([&synthetic[..], flags].concat());
    let nobody = "127.0.0.1:1";
    let cases: Vec<(&str, Vec<&str>, Exit)> = vec![
        (
            LAUNCHER,
            [with(&["--max-steps", "3"]), vec!["--train-dir", &run]].concat(),
            Exit::Complete,
        ),
        (
            LAUNCHER,
            [with(&["--max-steps", "3"]), vec!["--train-dir", &run]].concat(),
            Exit::Complete,
        ),
        (
            LAUNCHER,
            [with(&["--seed", "2"]), vec!["--train-dir", &run]].concat(),
            Exit::Permanent,
        ),
        (
            LAUNCHER,
            [
                with(&["--learning-rate", "1e30"]),
                vec!["--train-dir", &diverged],
            ]
            .concat(),
            Exit::Diverged,
        ),
        (LAUNCHER, vec!["--workers", "0"], Exit::Usage),
        (LAUNCHER, vec!["--ps-program", &missing], Exit::Permanent),
        (
            SERVER,
            vec!["--listen", "127.0.0.1:0", "--train-dir", &below_file],
            Exit::Disk,
        ),
        (SERVER, vec!["--towers", "none"], Exit::Usage),
        (SERVER, vec!["--log-level", "="], Exit::Usage),
        (
            SERVER,
            vec![
                "--listen",
                "127.0.0.1:0",
                "--train-dir",
                &empty,
                "--stall-timeout-secs",
                "0.1",
            ],
            Exit::TryAgain,
        ),
        (
            WORKER,
            vec!["--server", nobody, "--retry-window-secs", "0.1"],
            Exit::TryAgain,
        ),
        (WORKER, vec!["--gpu", "first"], Exit::Usage),
        (
            EVAL,
            vec!["--run-once", "--checkpoint-dir", &missing],
            Exit::TryAgain,
        ),
        (
            EVAL,
            vec![
                "--run-once",
                "--data",
                "synthetic:512",
                "--checkpoint-dir",
                &run,
            ],
            Exit::Complete,
        ),
        (DATA, vec!["--data", "synthetic"], Exit::Complete),
        (DATA, vec!["--data", "mnist"], Exit::Usage),
    ];
    for (program, flags, exit) in &cases {
        let mut command = command(program);
        command.args(["--log-format", "json"]).args(flags);
        let mut program = Program::start(&mut command);
        assert_eq!(program.wait(), *exit, "{flags:?}");
        assert_json(&program, *exit);
        if ![Exit::Complete].contains(exit) {
            assert!(!program.stderr().is_empty(), "{flags:?}");
        }
    }
    for (signal, exit) in [
        (Signal::INT, Exit::Interrupted),
        (Signal::TERM, Exit::Terminated),
    ] {
        let train_dir = path("interrupted");
        let flags = with(&["--max-steps", "1000000", "--log-format", "json"]);
        let flags = flags.into_iter().chain(["--train-dir", &train_dir]);
        let mut program = Program::start(command(LAUNCHER).args(flags));
        program.wait_until_said("\"step\"");
        program.signal(signal);
        assert_eq!(program.wait(), exit);
        assert_json(&program, exit);
    }
}

/// A program that cannot be loaded says why in words of the system, which are wrapped.
#[test]
fn the_last_words_of_a_program_that_cannot_start_are_json_too() {
    let scratch = tempfile::tempdir().unwrap();
    let program = crate::launcher::script(scratch.path(), "echo 'no libtorch' >&2; exit 127");
    let mut launcher = Program::start(
        command(LAUNCHER)
            .args(["--ps-program", SERVER, "--eval-program", EVAL])
            .args(["--log-format", "json", "--worker-program"])
            .arg(program)
            .args(SHORT)
            .arg("--train-dir")
            .arg(scratch.path().join("run")),
    );
    assert_eq!(launcher.wait(), Exit::Permanent);
    assert_json(&launcher, Exit::Permanent);
    launcher.assert_said("no libtorch");
}
