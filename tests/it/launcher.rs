//! Everything on one machine, started by one command.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use pserver_cli::exit::Exit;
use pserver_ledger::EvalDir;
use pserver_run::GlobalStep;
use pserver_state::checkpoint;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::undisturbed;
use crate::files::names_in;
use crate::http;
use crate::program::{DEADLINE, EVAL, LAUNCHER, Program, SERVER, WORKER, command, eventually};
use crate::terminal::Terminal;

/// A step that a run without end comes to soon.
const SOON: &str = ": step 10, loss = ";

pub(crate) fn launcher(train_dir: &Path, flags: &[&str]) -> Command {
    launcher_of_any_run(train_dir, &[&["--batch-size", "16"], flags].concat())
}

/// A launcher that is told nothing of the run, and so takes a complete one for what was asked for.
fn launcher_of_any_run(train_dir: &Path, flags: &[&str]) -> Command {
    let mut launcher = command(LAUNCHER);
    launcher
        .args(["--ps-program", SERVER, "--worker-program", WORKER])
        .args(["--eval-program", EVAL])
        .args(flags)
        .arg("--train-dir")
        .arg(train_dir);
    if !flags.contains(&"--workers") {
        launcher.args(["--workers", "2"]);
    }
    launcher
}

/// A program that does what a shell is told.
pub(crate) fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("program");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// Step of the newest checkpoint, which must be whole.
fn newest_step(train_dir: &Path) -> u64 {
    let (step, path) = checkpoint::list(train_dir).unwrap().swap_remove(0);
    checkpoint::load(&path, &cifar_model::layout()).unwrap();
    step.0
}

#[test]
fn one_command_trains_and_scores() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "20"];
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
    assert_eq!(launcher.wait(), Exit::Complete);
    launcher.assert_said(SOON);
    let score = launcher.stdout();
    assert!(score.contains(": precision @ 1 = 0."), "{score}");
    assert!(score.contains("step 20, synthetic:512: "), "{score}");
    assert_eq!(newest_step(train_dir.path()), 20);
}

/// A run of 40 steps with scores beside it.
const WITH_SCORES: [&str; 7] = [
    "--data",
    "synthetic:512",
    "--max-steps",
    "40",
    "--checkpoint-steps",
    "10",
    "--eval",
];

#[test]
fn checkpoints_are_scored_beside_the_training_and_the_last_one_once() {
    let train_dir = tempfile::tempdir().unwrap();
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &WITH_SCORES));
    assert_eq!(launcher.wait(), Exit::Complete);
    let told = launcher.stdout();
    assert_eq!(
        told.matches("step 40, synthetic:512: ").count(),
        1,
        "{told}"
    );
    let scores = EvalDir::of_train_dir(train_dir.path()).scores().unwrap();
    let steps: Vec<u64> = scores
        .iter()
        .map(|record| record.score.global_step.0)
        .collect();
    assert_eq!(steps.iter().filter(|step| **step == 40).count(), 1);
    assert_eq!(told.matches(": precision @ 1 = ").count(), steps.len());
}

#[test]
fn a_run_ends_with_a_summary_and_a_pipe_gets_no_control_characters() {
    let train_dir = tempfile::tempdir().unwrap();
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &WITH_SCORES));
    assert_eq!(launcher.wait(), Exit::Complete);
    let said = launcher.stderr();
    let dir = train_dir.path().display().to_string();
    for part in [
        "Trained steps 0 to 39 in ",
        " %  a worker computes it\n",
        "precision @ 1 = 0.",
        " on 102 test examples of synthetic:512.\n",
        "Next steps:\n",
        &format!("Checkpoints, ledger and scores are in {dir}."),
        &format!("predict --checkpoint-dir {dir} IMAGE"),
        &format!("explain --train-dir {dir}"),
        &format!("--train-dir {dir} --max-steps 80"),
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    let written = said + &launcher.stdout();
    let control = written.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{written}");
}

#[test]
fn machines_get_json_alone_and_the_summary_as_one_line_of_it() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = [&WITH_SCORES[..], &["--log-format", "json"]].concat();
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
    assert_eq!(launcher.wait(), Exit::Complete);
    let said = launcher.stderr();
    let lines = said.lines().map(serde_json::from_str::<Value>);
    let lines: Result<Vec<Value>, _> = lines.collect();
    let lines = lines.unwrap();
    let last = lines.last().unwrap();
    assert_eq!(last["message"], "run is complete");
    assert_eq!(last["global_step"], 40);
    for number in ["precision_at_1", "examples_per_sec", "wall_secs", "loss"] {
        assert!(last[number].is_f64(), "{number} of {last}");
    }
}

/// A run of a few steps.
const SHORT: [&str; 5] = ["--data", "synthetic:512", "--max-steps", "20", "--no-eval"];

/// A run without end.
const ENDLESS: [&str; 4] = ["--data", "synthetic:512", "--max-steps", "1000000"];

#[test]
fn on_a_terminal_there_is_a_bar_with_the_time_left_and_a_line_for_each_worker() {
    for (columns, rows) in [(60, 20), (80, 24), (120, 40)] {
        let train_dir = tempfile::tempdir().unwrap();
        let mut terminal =
            Terminal::start(&mut launcher(train_dir.path(), &ENDLESS), columns, rows);
        for text in [
            "/1000000  loss ",
            " examples/s  ",
            " left",
            "worker 0 ",
            "worker 1 ",
            " ms each  ",
        ] {
            terminal.wait_until_seen(text);
        }
        terminal.signal(Signal::INT);
        assert_eq!(terminal.wait(), Exit::Interrupted);
        assert!(newest_step(train_dir.path()) >= 1);
        let left = terminal.everything();
        assert!(left.contains("To go on:"), "{left}");
        assert!(!left.contains(" examples/s"), "a bar is left:\n{left}");
    }
}

#[test]
fn workers_that_a_terminal_has_no_room_for_are_counted() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = [&ENDLESS[..], &["--workers", "4"]].concat();
    let mut terminal = Terminal::start(&mut launcher(train_dir.path(), &flags), 80, 8);
    terminal.wait_until_seen("and 2 more workers, ");
    terminal.signal(Signal::INT);
    assert_eq!(terminal.wait(), Exit::Interrupted);
}

#[test]
fn a_terminal_that_is_resized_shows_one_bar() {
    let train_dir = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(&mut launcher(train_dir.path(), &ENDLESS), 120, 40);
    for (columns, rows) in [(60, 20), (100, 12), (80, 24)] {
        terminal.wait_until_seen(" examples/s  ");
        terminal.resize(columns, rows);
        terminal.wait_until_seen(" left");
        let bars = terminal.everything().matches(" examples/s").count();
        assert_eq!(bars, 1, "{}", terminal.everything());
    }
    terminal.signal(Signal::INT);
    assert_eq!(terminal.wait(), Exit::Interrupted);
    let left = terminal.everything();
    assert!(!left.contains(" examples/s"), "a bar is left:\n{left}");
}

#[test]
fn a_terminal_that_cannot_be_drawn_on_gets_lines() {
    for term in ["dumb", ""] {
        let train_dir = tempfile::tempdir().unwrap();
        let flags = ["--data", "synthetic:512", "--learning-rate", "1e30"];
        let mut launcher = launcher(train_dir.path(), &flags);
        let mut terminal = Terminal::start_as(term, &mut launcher, 80, 24);
        assert_eq!(terminal.wait(), Exit::Diverged);
        let seen = terminal.everything();
        for text in ["step 0, loss = ", "Model diverged with loss = "] {
            assert!(seen.contains(text), "{seen}");
        }
    }
}

#[test]
fn a_terminal_shows_what_a_program_has_to_say_and_all_of_the_summary_once() {
    for (columns, rows) in [(60, 20), (80, 24), (120, 40)] {
        let train_dir = tempfile::tempdir().unwrap();
        let mut launcher = launcher(train_dir.path(), &WITH_SCORES);
        let mut terminal = Terminal::start(launcher.env("NO_COLOR", "1"), columns, rows);
        assert_eq!(terminal.wait(), Exit::Complete);
        let seen = terminal.everything();
        let words: Vec<&str> = seen.split_whitespace().collect();
        let seen = words.join(" ");
        for text in [
            "Trained steps 0 to 39 in ",
            " % a worker computes it ",
            " on 102 test examples of synthetic:512.",
            "Checkpoints, ledger and scores are in ",
            "Next steps:",
        ] {
            assert_eq!(seen.matches(text).count(), 1, "{text:?} in:\n{seen}");
        }
        assert!(
            seen.contains("(of the synthetic set, not of CIFAR-10)"),
            "{seen}"
        );
        assert!(!seen.contains(" examples/s "), "a bar is left:\n{seen}");
        assert!(
            !seen.contains("scoring the last"),
            "a line is left:\n{seen}"
        );
    }
}

#[test]
fn programs_that_may_not_write_to_the_terminal_do_not_hang_the_run() {
    for (term, flags) in [
        ("xterm", vec![]),
        ("dumb", vec![]),
        ("xterm", vec!["--eval"]),
    ] {
        let train_dir = tempfile::tempdir().unwrap();
        let flags = [
            &["--data", "synthetic:512", "--max-steps", "20"][..],
            &flags,
        ]
        .concat();
        let launcher = launcher(train_dir.path(), &flags);
        // In a session of its own, whose terminal this one is.
        let mut in_session = Command::new("setsid");
        in_session
            .arg("--ctty")
            .arg("sh")
            .args(["-c", r#"stty tostop; exec "$0" "$@""#])
            .arg(launcher.get_program())
            .args(launcher.get_args())
            .env_remove("RUST_LOG");
        let mut terminal = Terminal::start_as(term, &mut in_session, 80, 24);
        assert_eq!(terminal.wait(), Exit::Complete);
        assert!(terminal.everything().contains("precision @ 1 = "));
    }
}

#[test]
fn a_run_ends_though_its_terminal_is_stopped() {
    const CONTROL_S: &[u8] = b"\x13";
    const CONTROL_Q: &[u8] = b"\x11";
    let train_dir = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(&mut launcher(train_dir.path(), &SHORT), 80, 24);
    terminal.press(CONTROL_S);
    terminal.wait_until_ended();
    terminal.press(CONTROL_Q);
    assert_eq!(terminal.wait(), Exit::Complete);
}

/// A program that cannot be loaded, one of another processor, and one that a bug ends.
#[test]
fn a_program_that_cannot_start_is_not_started_again_and_its_last_words_are_told() {
    for (text, exit, told) in [
        (
            "echo 'error while loading shared libraries: libtorch_cpu.so' >&2; exit 127",
            Exit::Permanent,
            "ended with exit code 127 (it or a library that it needs was not found",
        ),
        (
            "echo 'libtorch_cpu.so' >&2; exit 126",
            Exit::Permanent,
            "exit code 126",
        ),
        (
            "echo 'libtorch_cpu.so' >&2; exit 101",
            Exit::Unexpected,
            "exit code 101",
        ),
        (
            "echo 'libtorch_cpu.so' >&2; kill -ILL $$",
            Exit::Permanent,
            "exit code 132",
        ),
        (
            "echo 'libtorch_cpu.so' >&2; kill -SYS $$",
            Exit::Permanent,
            "exit code 159",
        ),
        (
            "echo 'libtorch_cpu.so' >&2; kill -XFSZ $$",
            Exit::Disk,
            "exit code 153",
        ),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let worker = script(scratch.path(), text);
        let mut launcher = Program::start(
            command(LAUNCHER)
                .args(["--ps-program", SERVER, "--eval-program", EVAL])
                .args([
                    "--data",
                    "synthetic:512",
                    "--workers",
                    "1",
                    "--worker-program",
                ])
                .arg(&worker)
                .arg("--train-dir")
                .arg(scratch.path().join("run")),
        );
        assert_eq!(launcher.wait(), exit, "{text}");
        launcher.assert_said(told);
        let said = launcher.stderr();
        let last = said.lines().last().unwrap();
        assert!(last.contains("libtorch_cpu.so"), "{said}");
        assert!(!said.contains("started again"), "{said}");
    }
}

/// Gives a server an order, with these flags of a client.
fn order(verb: &str, flags: &[&str]) -> (Exit, Program) {
    let mut program = Program::start(command(SERVER).arg(verb).args(flags));
    (program.wait(), program)
}

#[test]
fn who_cannot_read_the_token_in_the_train_dir_cannot_stop_the_run() {
    let train_dir = tempfile::tempdir().unwrap();
    let dir = train_dir.path().to_str().unwrap();
    let token = train_dir.path().join("server.token");
    let mut kept = None;
    for fresh in [&[][..], &["--fresh"]] {
        let flags = [&ENDLESS[..], fresh].concat();
        let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
        launcher.wait_until_said(SOON);
        assert_eq!(fs::metadata(&token).unwrap().mode() & 0o777, 0o600);
        let held = fs::read_to_string(&token).unwrap();
        assert_eq!(*kept.get_or_insert_with(|| held.clone()), held);

        let address = fs::read_to_string(train_dir.path().join("server")).unwrap();
        for verb in ["checkpoint", "drain", "stop"] {
            let (exit, refused) = order(verb, &["--server", address.trim_end()]);
            assert_eq!(exit, Exit::Permanent);
            refused.assert_said("this server asks for a token");
            refused.assert_said("server.token");
        }
        assert_eq!(order("checkpoint", &["--train-dir", dir]).0, Exit::Complete);
        assert_eq!(order("stop", &["--train-dir", dir]).0, Exit::Complete);
        assert_eq!(launcher.wait(), Exit::Terminated);
        for program in [&launcher, &order("stop", &["--train-dir", dir]).1] {
            assert!(!program.stderr().contains(held.trim_end()));
        }
    }
}

#[test]
fn the_page_of_the_launcher_asks_for_the_token_that_somebody_named_and_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    let token = scratch.path().join("token");
    fs::write(&token, "viewer-token-0123456789").unwrap();
    fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let named = ["--token-file", token.to_str().unwrap()];
    for (flags, status) in [(&[][..], "HTTP/1.1 200 "), (&named, "HTTP/1.1 401 ")] {
        let flags = [&ENDLESS[..], &["--http", "127.0.0.1:0"], flags].concat();
        let train_dir = scratch.path().join(flags.len().to_string());
        let launcher = Program::start(&mut launcher(&train_dir, &flags));
        let page = launcher.wait_for("the page", |program| {
            let printed = program.stdout();
            let address = printed.lines().next()?.strip_prefix("http ")?;
            Some(address.to_owned())
        });
        let answer = http::get(&format!("http://{page}/run.json"));
        assert!(answer.starts_with(status), "{answer}");
        let rebound = http::get_as(&format!("http://{page}/run.json"), "site.example");
        let is_open = status.contains("200");
        assert_eq!(rebound.starts_with("HTTP/1.1 421 "), is_open, "{rebound}");
    }
}

#[test]
fn the_address_of_the_page_is_printed() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "2", "--no-eval"];
    let mut launcher = launcher(train_dir.path(), &flags);
    let mut launcher = Program::start(launcher.args(["--http", "127.0.0.1:0"]));
    assert_eq!(launcher.wait(), Exit::Complete);
    let printed = launcher.stdout();
    let address = printed.trim_end().strip_prefix("http ").unwrap();
    assert!(address.parse::<SocketAddr>().unwrap().port() > 0);
}

/// The end of the launcher's stderr, which [`Program::wait`] waits for, comes when the last of its
/// programs is gone.
#[test]
fn ctrl_c_leaves_a_checkpoint_and_no_process() {
    for (signal, exit) in [
        (Signal::INT, Exit::Interrupted),
        (Signal::TERM, Exit::Terminated),
    ] {
        let train_dir = tempfile::tempdir().unwrap();
        let flags = ["--data", "synthetic:512", "--max-steps", "1000000"];
        let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
        launcher.wait_until_said(SOON);
        launcher.signal(signal);
        assert_eq!(launcher.wait(), exit);
        assert!(newest_step(train_dir.path()) >= 10);
        assert_eq!(launcher.stdout(), "");
    }
}

#[test]
fn a_launcher_that_is_killed_leaves_a_checkpoint_and_no_process() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "1000000"];
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
    launcher.wait_until_said(SOON);
    let server = child_of(launcher.id(), SERVER).unwrap();
    launcher.kill();
    wait_for_end_of(server);
    assert!(newest_step(train_dir.path()) >= 10);
}

/// The launcher dies before the program has come to its command line.
#[test]
fn a_launcher_that_is_killed_as_soon_as_it_has_started_a_program_leaves_no_process() {
    for program in [SERVER, WORKER, EVAL] {
        let train_dir = tempfile::tempdir().unwrap();
        let flags = [&ENDLESS[..], &["--eval"]].concat();
        let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
        let started = eventually("a program", || child_of(launcher.id(), program));
        launcher.kill();
        wait_for_end_of(started);
    }
}

fn wait_for_end_of(process: Pid) {
    let process = format!("/proc/{}", process.as_raw_pid());
    eventually("the end of a process", || {
        (!Path::new(&process).exists()).then_some(())
    });
}

/// The process that runs `program` for `parent`, once there is one.
pub(crate) fn child_of(parent: u32, program: &str) -> Option<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = format!("PPid:\t{parent}\n");
    let child = ids.into_iter().find(|id| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}"));
        read("status").is_ok_and(|status| status.contains(&parent))
            && read("cmdline").is_ok_and(|command| command.starts_with(program))
    });
    Pid::from_raw(child?)
}

#[test]
fn a_server_that_is_killed_is_started_again_and_loses_no_step() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "40", "--no-eval"];
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
    launcher.wait_until_said(SOON);
    kill_process(child_of(launcher.id(), SERVER).unwrap(), Signal::KILL).unwrap();
    assert_eq!(launcher.wait(), Exit::Complete);
    launcher.assert_said("server ended suddenly; is started again");
    let path = checkpoint::path_of(train_dir.path(), GlobalStep(40));
    let last = checkpoint::load(&path, &cifar_model::layout()).unwrap();
    assert_eq!(last.state.digest(), undisturbed());
}

#[test]
fn ctrl_c_ends_a_download() {
    let (mirror, clients) = http::silence();
    let scratch = tempfile::tempdir().unwrap();
    let flags = ["--data-url", &mirror, "--data-dir"];
    let mut launcher = launcher(&scratch.path().join("run"), &[]);
    let mut launcher = Program::start(launcher.args(flags).arg(scratch.path().join("data")));
    clients.recv_timeout(DEADLINE).unwrap();
    launcher.signal(Signal::INT);
    assert_eq!(launcher.wait(), Exit::Interrupted);
}

#[test]
fn a_run_that_diverges_ends_the_launcher_with_its_code() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--learning-rate", "1e30"];
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
    assert_eq!(launcher.wait(), Exit::Diverged);
    launcher.assert_said("Model diverged with loss = ");
    assert_eq!(launcher.stdout(), "");
}

#[test]
fn a_name_alone_completes_no_run() {
    let train_dir = tempfile::tempdir().unwrap();
    fs::write(train_dir.path().join("model.ckpt-1000.safetensors"), "").unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "20", "--no-eval"];
    let mut launcher = Program::start(&mut launcher_of_any_run(train_dir.path(), &flags));
    assert_eq!(launcher.wait(), Exit::Permanent);
    launcher.assert_said("model.ckpt-1000.safetensors is no whole safetensors file");
}

#[test]
fn a_damaged_last_checkpoint_is_written_again() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "20", "--no-eval"];
    let mut first = Program::start(&mut launcher(train_dir.path(), &flags));
    assert_eq!(first.wait(), Exit::Complete);
    let last = checkpoint::path_of(train_dir.path(), GlobalStep(20));
    fs::write(&last, "").unwrap();
    let flags = ["--max-steps", "20", "--no-eval"];
    let mut second = Program::start(&mut launcher_of_any_run(train_dir.path(), &flags));
    assert_eq!(second.wait(), Exit::Complete);
    assert_eq!(newest_step(train_dir.path()), 20);
    let said = second.stderr();
    assert_eq!(
        said.matches("model.ckpt-20.safetensors is no whole")
            .count(),
        1,
        "{said}"
    );
}

/// The modes of all files below a folder, and then those of all folders.
fn modes(folder: &Path) -> [Vec<(String, u32)>; 2] {
    let mut modes = [Vec::new(), Vec::new()];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let found = entry.metadata().unwrap();
            let mode = found.permissions().mode() & 0o777;
            modes[usize::from(found.is_dir())].push((entry.path().display().to_string(), mode));
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    modes
}

#[test]
fn the_umask_says_who_may_read_what_the_programs_write() {
    for (umask, of_files, of_folders) in [("077", 0o600, 0o700), ("002", 0o664, 0o775)] {
        let train_dir = tempfile::tempdir().unwrap();
        let launcher = launcher(train_dir.path(), &WITH_SCORES);
        let mut shell = command("sh");
        let script = format!(r#"umask {umask}; exec "$0" "$@""#);
        shell.args(["-c", &script]).arg(launcher.get_program());
        let mut launcher = Program::start(shell.args(launcher.get_args()));
        assert_eq!(launcher.wait(), Exit::Complete);
        let [files, folders] = modes(train_dir.path());
        assert!(files.len() > 8 && !folders.is_empty());
        for (path, mode) in files {
            let expected = match path.ends_with("/server.token") {
                true => 0o600,
                false => of_files,
            };
            assert_eq!(mode, expected, "{path} has {mode:o}");
        }
        for (path, mode) in folders {
            assert_eq!(mode, of_folders, "{path} has {mode:o}");
        }
    }
}

#[test]
fn a_server_that_refuses_ends_the_launcher_with_its_code() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "1", "--no-eval"];
    let mut first = Program::start(&mut launcher(train_dir.path(), &flags));
    assert_eq!(first.wait(), Exit::Complete);
    assert_eq!(first.stdout(), "");

    let flags = [flags.as_slice(), &["--seed", "2"]].concat();
    let mut second = Program::start(&mut launcher(train_dir.path(), &flags));
    assert_eq!(second.wait(), Exit::Permanent);
    second.assert_said("(--seed: 1 -> 2)");

    let mut third = launcher_of_any_run(train_dir.path(), &flags[..5]);
    let mut third = Program::start(third.env("CIFAR_REPLICAS_TO_AGGREGATE", "1"));
    assert_eq!(third.wait(), Exit::Permanent);
    third.assert_said("(--mode: sync -> quorum:1)");
}

#[test]
fn a_server_that_cannot_save_after_ctrl_c_ends_the_launcher_with_its_code() {
    let scratch = tempfile::tempdir().unwrap();
    let text = "trap 'echo the disk is full >&2; exit 74' TERM; echo listening 127.0.0.1:1; \
                echo serving >&2; while :; do sleep 0.05; done";
    let server = script(scratch.path(), text);
    let mut launcher = Program::start(
        command(LAUNCHER)
            .args(["--worker-program", WORKER, "--eval-program", EVAL])
            .args(["--data", "synthetic:512", "--workers", "1", "--ps-program"])
            .arg(server)
            .arg("--train-dir")
            .arg(scratch.path().join("run")),
    );
    launcher.wait_until_said("serving");
    launcher.signal(Signal::INT);
    assert_eq!(launcher.wait(), Exit::Disk);
    launcher.assert_said("its last words: the disk is full");
    let said = launcher.stderr();
    assert!(!said.contains("Its checkpoint is in"), "{said}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let train_dir = tempfile::tempdir().unwrap();
    let missing = train_dir.path().join("cifar-ps");
    let mut launcher = Program::start(command(LAUNCHER).arg("--ps-program").arg(&missing));
    assert_eq!(launcher.wait(), Exit::Permanent);
    launcher.assert_said(&format!(
        "the program cifar-ps is not at {}",
        missing.display()
    ));
}

#[test]
fn without_cifar10_it_says_loudly_that_it_takes_the_synthetic_set() {
    let mirror = http::serve("404 Not Found", b"");
    let scratch = tempfile::tempdir().unwrap();
    let (train_dir, data_dir) = (scratch.path().join("run"), scratch.path().join("data"));
    let flags = ["--max-steps", "1", "--no-eval", "--data-url", &mirror];
    let mut launcher = Program::start(
        launcher(&train_dir, &flags)
            .arg("--data-dir")
            .arg(&data_dir),
    );
    assert_eq!(launcher.wait(), Exit::Complete);
    launcher.assert_said("trains on the SYNTHETIC set instead");
    let (_, path) = checkpoint::list(&train_dir).unwrap().swap_remove(0);
    let run = checkpoint::load(&path, &cifar_model::layout()).unwrap().run;
    assert_eq!(run.unwrap().data.to_string(), "synthetic");
    assert_eq!(names_in(&data_dir), [".cifar-10-batches-bin.lock"]);
}

/// Starts the launcher with and without a terminal, each time in a folder of its own.
fn with_and_without_a_terminal(flags: &[&str], run: &Path) -> [Exit; 2] {
    let mut on_terminal = launcher(&run.join("on-terminal"), flags);
    let mut terminal = Terminal::start(&mut on_terminal, 120, 40);
    let mut program = Program::start(&mut launcher(&run.join("-without"), flags));
    [terminal.wait(), program.wait()]
}

#[test]
fn every_flag_of_the_launcher_works_with_and_without_a_terminal() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (token, data_dir, initial) = (path("token"), path("data"), path("initial.safetensors"));
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let hash = "0".repeat(64);
    let first = format!(
        "--fresh --towers 2 --mode sync --replicas-to-aggregate 1 --seed 7 --input plain --data synthetic:512 \
         --learning-rate 0.05 --num-epochs-per-decay 10 --decay-by examples --moving-average-decay 0.99 \
         --kernels torch --threads 1 --max-steps 6 --log-frequency 5 --summary-steps 3 --checkpoint-steps 2 \
         --checkpoint-secs 100 --keep-checkpoints 2 --worker-lease-secs 5 --min-workers 1 \
         --stall-timeout-secs 60 --mixed --audit-fraction 0.5 --data-plane wire --eval --log-format text \
         --log-level info --http 127.0.0.1:0 --insecure --token-file {token} --data-dir {data_dir} \
         --data-url http://127.0.0.1:1/cifar.tar.gz --data-sha256 {hash}"
    );
    let second = format!(
        "--data synthetic:512 --mode async --max-staleness 4 --scale-by-staleness --max-steps 9 --no-eval \
         --init-from {initial}"
    );
    let on_gpu = "--data synthetic:512 --max-steps 1 --no-eval --gpus 1";
    let words = |line: &'static str| line.split_whitespace();
    let run = |line: &str, name: &str| {
        let flags: Vec<&str> = line.split_whitespace().collect();
        with_and_without_a_terminal(&flags, &scratch.path().join(name))
    };

    assert_eq!(run(&first, "first"), [Exit::Complete; 2]);
    let trained = checkpoint::path_of(&scratch.path().join("first/-without"), GlobalStep(6));
    fs::copy(trained, &initial).unwrap();
    assert_eq!(run(&second, "second"), [Exit::Complete; 2]);
    let [a, b] = run(on_gpu, "on-gpu");
    assert_eq!(a, b);
    assert!([Exit::Complete, Exit::Permanent].contains(&a), "{a:?}");

    let by_launcher =
        "--ps-program --worker-program --eval-program --workers --batch-size --train-dir";
    let typed: BTreeSet<&str> = [&*first, &*second, on_gpu]
        .into_iter()
        .flat_map(str::split_whitespace)
        .chain(words(by_launcher))
        .collect();
    let command = cifar_train::args::command();
    let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
    let missing: Vec<String> = shown
        .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
        .filter(|flag| !typed.contains(&**flag))
        .collect();
    assert_eq!(missing, [""; 0], "flags that no run here has");
}

#[test]
fn a_train_dir_may_be_called_as_a_flag() {
    let scratch = tempfile::tempdir().unwrap();
    let launcher = launcher(
        Path::new("run"),
        &["--data", "synthetic:512", "--max-steps", "2"],
    );
    let mut in_scratch = command(LAUNCHER);
    let of_run = |flag: &&OsStr| !["--train-dir", "run"].contains(&flag.to_str().unwrap());
    in_scratch
        .args(launcher.get_args().filter(of_run))
        .arg("--train-dir=-x")
        .current_dir(scratch.path());
    let mut program = Program::start(&mut in_scratch);
    assert_eq!(program.wait(), Exit::Complete);
    assert_eq!(newest_step(&scratch.path().join("-x")), 2);
    program.assert_said("--train-dir ./-x --max-steps 4");
}

#[test]
fn logs_that_somebody_chose_by_the_environment_are_written_on_a_terminal_too() {
    let train_dir = tempfile::tempdir().unwrap();
    let mut launcher = launcher(train_dir.path(), &SHORT);
    launcher.env("RUST_LOG", "pserver_worker=info");
    let mut terminal = Terminal::start(&mut launcher, 120, 40);
    assert_eq!(terminal.wait(), Exit::Complete);
    let seen = terminal.everything();
    assert!(seen.contains("registered"), "{seen}");
}
#[test]
fn a_complete_run_that_is_repeated_ends_at_once() {
    let train_dir = tempfile::tempdir().unwrap();
    // Where the server waited for workers of its past, it would for as long as a lease.
    let flags = [&SHORT[..], &["--worker-lease-secs", "3600"]].concat();
    for flags in [&flags[..], &flags, &[&flags[..], &["--seed", "1"]].concat()] {
        let mut program = Program::start(&mut launcher(train_dir.path(), flags));
        assert_eq!(program.wait(), Exit::Complete);
    }
    let empty = tempfile::tempdir().unwrap();
    let flags = [
        "--data",
        "synthetic:512",
        "--max-steps",
        "0",
        "--no-eval",
        "--worker-lease-secs",
        "3600",
    ];
    let mut program = Program::start(&mut launcher(empty.path(), &flags));
    assert_eq!(program.wait(), Exit::Complete);
}
