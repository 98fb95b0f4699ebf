//! Everything on one machine, started by one command.

use std::fs;
use std::path::Path;
use std::process::Command;

use cifar_cli::exit::Exit;
use cifar_ledger::EvalDir;
use cifar_params::{Layout, checkpoint};
use cifar_sequence::GlobalStep;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::undisturbed;
use crate::files::names_in;
use crate::http;
use crate::program::{DEADLINE, EVAL, LAUNCHER, Program, SERVER, WORKER, command};
use crate::terminal::Terminal;

/// A step that a run without end comes to soon.
const SOON: &str = ": step 10, loss = ";

fn launcher(train_dir: &Path, flags: &[&str]) -> Command {
    let mut launcher = command(LAUNCHER);
    launcher
        .args(["--ps-program", SERVER, "--worker-program", WORKER])
        .args([
            "--eval-program",
            EVAL,
            "--workers",
            "2",
            "--batch-size",
            "16",
        ])
        .args(flags)
        .arg("--train-dir")
        .arg(train_dir);
    launcher
}

/// Step of the newest checkpoint, which must be whole.
fn newest_step(train_dir: &Path) -> u64 {
    let (step, path) = checkpoint::list(train_dir).unwrap().swap_remove(0);
    checkpoint::load(&path, &Layout::cifar10()).unwrap();
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

#[test]
fn on_a_terminal_there_is_a_bar_with_the_time_left_and_a_line_for_each_worker() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "1000000"];
    let mut terminal = Terminal::start(&mut launcher(train_dir.path(), &flags), 120, 30);
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
    launcher.kill();
    assert!(newest_step(train_dir.path()) >= 10);
}

/// The process that runs `program` for `parent`.
fn child_of(parent: &Program, program: &str) -> Pid {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = format!("PPid:\t{}\n", parent.id());
    let child = ids.into_iter().find(|id| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}"));
        read("status").is_ok_and(|status| status.contains(&parent))
            && read("cmdline").is_ok_and(|command| command.starts_with(program))
    });
    Pid::from_raw(child.unwrap()).unwrap()
}

#[test]
fn a_server_that_is_killed_is_started_again_and_loses_no_step() {
    let train_dir = tempfile::tempdir().unwrap();
    let flags = ["--data", "synthetic:512", "--max-steps", "40", "--no-eval"];
    let mut launcher = Program::start(&mut launcher(train_dir.path(), &flags));
    launcher.wait_until_said(SOON);
    kill_process(child_of(&launcher, SERVER), Signal::KILL).unwrap();
    assert_eq!(launcher.wait(), Exit::Complete);
    launcher.assert_said("server ended suddenly; is started again");
    let path = checkpoint::path_of(train_dir.path(), GlobalStep(40));
    let last = checkpoint::load(&path, &Layout::cifar10()).unwrap();
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
    let run = checkpoint::load(&path, &Layout::cifar10()).unwrap().run;
    assert_eq!(run.unwrap().data.to_string(), "synthetic");
    assert_eq!(names_in(&data_dir), [".cifar-10-batches-bin.lock"]);
}
