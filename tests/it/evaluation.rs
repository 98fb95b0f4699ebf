//! Scores of checkpoints.

use std::fs;
use std::path::Path;

use pserver_cli::exit::Exit;
use pserver_ledger::{EvalDir, ScoreRecord, read_scores};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, NUM_STEPS};
use crate::files::{
    names_in, write_exploding_checkpoint, write_foreign_checkpoint, write_opinionated_checkpoint,
};
use crate::program::{EVAL, Program, SERVER, command, eventually};

/// Test examples of the synthetic set of 512: a fifth as many.
const NUM_TEST_EXAMPLES: u64 = 102;

fn start(checkpoint_dir: &Path, flags: &[&str]) -> Program {
    Program::start(
        command(EVAL)
            .args(flags)
            .arg("--checkpoint-dir")
            .arg(checkpoint_dir),
    )
}

/// What cifar-eval writes to stdout about the newest checkpoint.
#[track_caller]
fn score(checkpoint_dir: &Path, flags: &[&str]) -> String {
    let mut eval = start(checkpoint_dir, &[&["--run-once"], flags].concat());
    assert_eq!(eval.wait(), Exit::Complete);
    eval.stdout()
}

/// The row of the table that says what share of a class was recognised.
fn row_of(class: usize, score: &str) -> Option<&str> {
    let class = format!("class {class} ");
    score
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(&class))
        .map(str::trim_start)
}

#[test]
fn a_score_names_its_step_and_its_data_set() {
    let mut cluster = Cluster::builder().max_steps(2).start();
    cluster.finish();

    let text = score(cluster.train_dir(), &[]);
    let first = text.lines().next().unwrap();
    assert!(first.contains(": precision @ 1 = 0."), "{text}");
    assert!(
        first.ends_with("(of the synthetic set, not of CIFAR-10)"),
        "{text}"
    );
    assert!(text.contains("step 2, synthetic:512: "), "{text}");

    assert_eq!(text.lines().count(), 2);
}

#[test]
fn scores_are_kept_in_the_eval_dir_as_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let flags = ["--json", "--data", "synthetic:512"];
    let line = score(folder.path(), &flags);
    let record: ScoreRecord = serde_json::from_str(&line).unwrap();
    assert_eq!(record.to_line(), line);
    let confusion = record.score.confusion;
    assert_eq!(confusion.num_examples(), NUM_TEST_EXAMPLES);
    assert_eq!(confusion.examples_of(5), confusion.correct_of(5));
    assert_eq!(record.checkpoint, "model.ckpt-7.safetensors");
    let eval_dir = folder.path().join("eval");
    let kept = fs::read_to_string(eval_dir.join("scores.jsonl")).unwrap();
    assert_eq!(kept, line);
    assert_holds_a_score(&eval_dir);

    let elsewhere = folder.path().join("elsewhere");
    let at = elsewhere.to_str().unwrap();
    score(folder.path(), &[&flags[..], &["--eval-dir", at]].concat());
    assert_holds_a_score(&elsewhere);
    assert_eq!(
        read_scores(&eval_dir.join("scores.jsonl")).unwrap().len(),
        1
    );
}

#[test]
fn the_same_score_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let eval_dir = folder.path().join("eval");
    let flags = ["--data", "synthetic:512", "--num-examples", "50"];
    let first = score(folder.path(), &flags);
    let names = names_in(&eval_dir);
    let mut again = start(folder.path(), &[&["--run-once"], &flags[..]].concat());
    assert_eq!(again.wait(), Exit::Complete);
    // But for the date at the beginning.
    let told = again.stdout();
    assert_eq!(
        told.split_once(": ").map(|told| told.1),
        first.split_once(": ").map(|told| told.1)
    );
    again.assert_said("scores.jsonl has this score already");
    let scores = eval_dir.join("scores.jsonl");
    assert_eq!(read_scores(&scores).unwrap().len(), 1);
    assert_eq!(names_in(&eval_dir), names);

    // Another one of the same checkpoint is another.
    score(folder.path(), &[&["--raw"], &flags[..]].concat());
    score(
        folder.path(),
        &["--data", "synthetic:512", "--num-examples", "51"],
    );
    assert_eq!(read_scores(&scores).unwrap().len(), 3);
    score(folder.path(), &flags);
    assert_eq!(read_scores(&scores).unwrap().len(), 3);
}

#[test]
fn a_checkpoint_that_is_named_is_scored_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    write_opinionated_checkpoint(folder.path(), 8, 3, 5);
    let older = folder.path().join("best.safetensors");
    fs::rename(folder.path().join("model.ckpt-7.safetensors"), &older).unwrap();
    let flags = ["--data", "synthetic:512", "--json"];
    for flag in ["--checkpoint-dir", "--checkpoint"] {
        let mut eval = Program::start(command(EVAL).args(flags).arg(flag).arg(&older));
        assert_eq!(eval.wait(), Exit::Complete);
        let record: ScoreRecord = serde_json::from_str(&eval.stdout()).unwrap();
        assert_eq!(record.score.global_step.0, 7);
        assert_eq!(record.checkpoint, "best.safetensors");
    }
    let kept = read_scores(&folder.path().join("eval/scores.jsonl")).unwrap();
    assert_eq!(kept.len(), 1);
}

#[test]
fn a_network_whose_output_is_not_finite_has_no_score() {
    let folder = tempfile::tempdir().unwrap();
    write_exploding_checkpoint(folder.path(), 7);
    let mut eval = start(folder.path(), &["--run-once", "--data", "synthetic:512"]);
    assert_eq!((eval.wait(), &eval.stdout()[..]), (Exit::Diverged, ""));
    eval.assert_said("the checkpoint of step 7");
    eval.assert_said("is not finite");
    assert_eq!(names_in(&folder.path().join("eval")), [""; 0]);
}

#[test]
fn an_evaluator_of_a_folder_ends_when_its_run_has() {
    let mut cluster = Cluster::builder().max_steps(2).start();
    cluster.finish();
    let mut eval = start(cluster.train_dir(), &[]);
    assert_eq!(eval.wait(), Exit::Complete);
    assert!(eval.stdout().contains("step 2, "), "{}", eval.stdout());
    assert_eq!(scored_steps(cluster.train_dir()), [2]);
}

#[test]
fn an_evaluator_says_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let eval = start(folder.path(), &["--data", "synthetic:512"]);
    let dir = folder.path().display();
    eval.wait_until_said(&format!(
        "waiting for a checkpoint of a step above 7 in {dir}"
    ));
}

#[track_caller]
fn assert_holds_a_score(eval_dir: &Path) {
    let names = names_in(eval_dir);
    assert_eq!(
        (names.len(), &names[0][..], &names[2][..]),
        (3, "confusion.svg", "scores.jsonl")
    );
    assert!(names[1].starts_with("events.out.tfevents."), "{names:?}");
}

#[test]
fn an_eval_dir_that_cannot_be_written_is_an_error_after_the_score() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let in_the_way = folder.path().join("model.ckpt-7.safetensors");
    let flags = ["--run-once", "--data", "synthetic:512", "--eval-dir"];
    let flags = [&flags[..], &[in_the_way.to_str().unwrap()]].concat();
    let mut eval = start(folder.path(), &flags);
    assert_eq!(eval.wait(), Exit::Disk);
    eval.assert_said("--eval-dir names another folder");
    assert!(eval.stdout().contains("precision @ 1 = "));
}

#[test]
fn averages_are_scored_unless_the_variables_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let check = |flags: &[&str], recognised: usize, others: usize| {
        let flags = [&["--per-class", "--data", "synthetic:512"], flags].concat();
        let text = score(folder.path(), &flags);
        assert!(text.contains("step 7, synthetic:512: "), "{text}");
        assert!(
            row_of(recognised, &text).unwrap().starts_with("1.0000"),
            "{text}"
        );
        assert!(
            row_of(others, &text).unwrap().starts_with("0.0000"),
            "{text}"
        );
    };
    check(&[], 5, 3);
    check(&["--raw"], 3, 5);
}

#[test]
fn training_examples_can_be_scored_and_not_all_need_be() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let check = |flags: &[&str], examples: u64| {
        let flags = [&["--json", "--data", "synthetic:512"], flags].concat();
        let json: Value = serde_json::from_str(&score(folder.path(), &flags)).unwrap();
        assert_eq!(json["num_examples"], examples);
    };
    check(&["--eval-data", "train_eval"], 512);
    check(&["--num-examples", "30"], 30);
}

#[test]
fn without_a_checkpoint_there_is_nothing_to_score_yet() {
    let folder = tempfile::tempdir().unwrap();
    for dir in [folder.path(), &folder.path().join("not/there")] {
        let mut eval = start(dir, &["--run-once"]);
        assert_eq!(eval.wait(), Exit::TryAgain);
        eval.assert_said(&format!("No checkpoint file found in {}", dir.display()));
        assert_eq!(eval.stdout(), "");
    }
}

#[test]
fn checkpoints_are_scored_as_they_appear() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--eval-interval-secs", "0.05", "--data", "synthetic:512"];
    let eval = start(folder.path(), &flags);
    eval.wait_until_said("No checkpoint file found");
    for step in [1, 2] {
        publish(folder.path(), step);
        wait_until_scored(&eval, step);
    }
}

#[test]
fn nothing_but_damaged_checkpoints_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.ckpt-4.safetensors"), "cut").unwrap();
    let mut eval = start(folder.path(), &["--run-once"]);
    assert_eq!(eval.wait(), Exit::Permanent);
    eval.assert_said("model.ckpt-4.safetensors is no whole safetensors file");
}

/// Renamed into place, as the server does: what can be seen is whole.
fn publish(folder: &Path, step: u64) {
    let aside = tempfile::tempdir_in(folder).unwrap();
    write_opinionated_checkpoint(aside.path(), step, 0, 0);
    let name = format!("model.ckpt-{step}.safetensors");
    fs::rename(aside.path().join(&name), folder.join(&name)).unwrap();
}

#[track_caller]
fn wait_until_scored(eval: &Program, step: u64) {
    let scored = format!("step {step}, synthetic:512: ");
    eval.wait_for(&scored, |eval| {
        eval.stdout().contains(&scored).then_some(())
    });
}

#[test]
fn a_damaged_newer_checkpoint_is_named_once_and_the_evaluator_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--eval-interval-secs", "0.05", "--data", "synthetic:512"];
    publish(folder.path(), 1);
    let eval = start(folder.path(), &flags);
    wait_until_scored(&eval, 1);
    fs::write(folder.path().join("model.ckpt-9.safetensors"), "").unwrap();
    eval.wait_until_said("model.ckpt-9.safetensors is no whole safetensors file");
    for step in [2, 3] {
        publish(folder.path(), step);
        wait_until_scored(&eval, step);
    }
    assert_eq!(eval.stderr().matches("model.ckpt-9").count(), 1);
}

#[test]
fn values_that_are_not_finite_are_refused_by_every_program() {
    let folder = tempfile::tempdir().unwrap();
    write_foreign_checkpoint(folder.path(), 7, |name, mut values| {
        if name == "conv2/biases/ExponentialMovingAverage" {
            values[3] = f32::NAN;
        }
        values
    });
    let checkpoint = folder.path().join("model.ckpt-7.safetensors");
    let image = folder.path().join("image.png");
    let dir = folder.path();
    let mut eval = command(EVAL);
    eval.args(["--run-once", "--data", "synthetic:512", "--checkpoint-dir"]);
    let mut predict = command(EVAL);
    predict.arg("predict").arg(image).arg("--checkpoint-dir");
    let mut server = command(SERVER);
    server.args(["--listen", "127.0.0.1:0", "--init-from"]);
    server.arg(&checkpoint).arg("--train-dir");
    for program in [eval.arg(dir), predict.arg(dir), server.arg(dir.join("run"))] {
        let mut program = Program::start(program);
        assert_eq!(program.wait(), Exit::Permanent);
        let sentence = format!(
            "conv2/biases/ExponentialMovingAverage of {} holds a value that is NaN or infinite",
            checkpoint.display()
        );
        program.assert_said(&sentence);
        assert_eq!(program.stdout(), "");
    }
}

#[test]
fn another_run_in_the_folder_is_scored_from_its_beginning() {
    let mut old = Cluster::builder().max_steps(1_000_000).start();
    old.wait_for_step(2);
    let step = old.stop_server();
    let (train_dir, flags) = (old.train_dir(), ["--eval-interval-secs", "0.05"]);
    let eval = start(train_dir, &flags);
    wait_until_scored(&eval, step);
    // The first of these has the same configuration and is another run all the same.
    for (seed, num_scores) in [("1", 1), ("2", 2)] {
        let mut fresh = Cluster::builder()
            .train_dir(train_dir)
            .workers(0)
            .server_flags(&["--fresh", "--seed", seed])
            .start();
        eval.wait_for("the score of a new run", |eval| {
            let told = eval.stdout();
            (told.matches("step 0, synthetic:512: ").count() == num_scores).then_some(())
        });
        fresh.stop_server();
        eventually("its events", || {
            let names = names_in(&train_dir.join("eval"));
            let mut events = names.iter().filter(|name| name.starts_with("events."));
            events.next().map(drop)
        });
        assert_eq!(scored_steps(train_dir), [0]);
    }
    assert_eq!(scored_steps(&train_dir.join("previous-1")), [step]);
    assert_eq!(scored_steps(&train_dir.join("previous-2")), [0]);
}

/// Starts an evaluator that follows the server, and waits until it has scored the first checkpoint.
fn follow(cluster: &Cluster) -> Program {
    let server = ["--server", &cluster.server.address, "--json"];
    let eval = Program::start(command(EVAL).args(server));
    eval.wait_for("the first score", |eval| {
        eval.stdout().contains(r#"{"global_step":0,"#).then_some(())
    });
    eval
}

/// The steps of the scores that a train dir has, in the order in which they were made.
fn scored_steps(train_dir: &Path) -> Vec<u64> {
    let scores = EvalDir::of_train_dir(train_dir).scores().unwrap();
    let steps = scores.iter().map(|record| record.score.global_step.0);
    steps.collect()
}

#[test]
fn an_evaluator_follows_the_server_to_the_last_checkpoint() {
    let mut cluster = Cluster::builder()
        .workers(0)
        .server_flags(&["--checkpoint-steps", "10"])
        .start();
    let mut eval = follow(&cluster);
    cluster.add_worker(&[]);
    assert_eq!(eval.wait(), Exit::Complete);
    cluster.finish();
    let steps = scored_steps(cluster.train_dir());
    assert_eq!((steps[0], *steps.last().unwrap()), (0, NUM_STEPS));
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    // The server keeps what the evaluator tells, but for when it was.
    let kept = EvalDir::of_train_dir(cluster.train_dir()).scores().unwrap();
    let told = eval.stdout();
    let told = told
        .lines()
        .map(|line| serde_json::from_str::<ScoreRecord>(line).unwrap());
    for (kept, told) in kept.into_iter().zip(told) {
        let at_micros = told.at_micros;
        assert_eq!(ScoreRecord { at_micros, ..kept }, told);
    }
}

#[test]
fn an_evaluator_finds_a_server_again_that_was_killed() {
    let mut cluster = Cluster::builder().workers(0).start();
    let mut eval = follow(&cluster);
    cluster.server.program.kill();
    eval.wait_until_said("waits for the server");
    cluster.start_server_again();
    cluster.add_worker(&[]);
    assert_eq!(eval.wait(), Exit::Complete);
    cluster.finish();
    assert_eq!(scored_steps(cluster.train_dir()), [0, NUM_STEPS]);
}

#[test]
fn an_evaluator_of_a_run_that_has_diverged_says_so() {
    let mut cluster = Cluster::builder()
        .workers(0)
        .server_flags(&["--learning-rate", "1e30"])
        .start();
    let mut eval = follow(&cluster);
    cluster.add_worker(&[]);
    assert_eq!(eval.wait(), Exit::Diverged);
    assert_eq!(cluster.server.program.wait(), Exit::Diverged);
}

/// By itself, not because the kernel ends it: the first process of a container has to.
#[test]
fn an_evaluator_that_waits_leaves_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, exit) in [
        (Signal::TERM, Exit::Terminated),
        (Signal::INT, Exit::Interrupted),
    ] {
        let mut eval = start(folder.path(), &[]);
        eval.wait_until_said("No checkpoint file found");
        eval.signal(signal);
        assert_eq!(eval.wait(), exit);
    }
}

/// Threads of libtorch compute on while the process ends: nothing may be taken from under them.
#[test]
fn an_evaluator_leaves_when_asked_while_it_scores() {
    let cluster = Cluster::builder()
        .workers(0)
        .data("synthetic:20000")
        .start();
    eventually("the first checkpoint", || {
        (!cluster.checkpoints().is_empty()).then_some(())
    });
    for _ in 0..5 {
        let mut eval = start(cluster.train_dir(), &["--eval-data", "train_eval"]);
        eval.wait_until_said("data set is open");
        eval.signal(Signal::TERM);
        assert_eq!(eval.wait(), Exit::Terminated);
        assert_eq!(eval.stdout(), "");
    }
}
