//! Event files, read back by TensorBoard itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use pserver_cli::exit::Exit;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::files::{names_in, write_opinionated_checkpoint};
use crate::program::{EVAL, Program, command, eventually, skip};
use crate::python::{python, run};

/// Tags of the tutorial's scalars; `docs/tensorboard/README.md` says where it writes them.
const SCALARS: [&str; 14] = [
    "conv1/conv1/sparsity",
    "conv2/conv2/sparsity",
    "cross_entropy",
    "cross_entropy__raw_",
    "learning_rate",
    "local3/local3/sparsity",
    "local3/weight_loss",
    "local3/weight_loss__raw_",
    "local4/local4/sparsity",
    "local4/weight_loss",
    "local4/weight_loss__raw_",
    "softmax_linear/softmax_linear/sparsity",
    "total_loss",
    "total_loss__raw_",
];

/// Tags of its histograms.
const HISTOGRAMS: [&str; 25] = [
    "conv1/biases",
    "conv1/biases/gradients",
    "conv1/conv1/activations",
    "conv1/weights",
    "conv1/weights/gradients",
    "conv2/biases",
    "conv2/biases/gradients",
    "conv2/conv2/activations",
    "conv2/weights",
    "conv2/weights/gradients",
    "local3/biases",
    "local3/biases/gradients",
    "local3/local3/activations",
    "local3/weights",
    "local3/weights/gradients",
    "local4/biases",
    "local4/biases/gradients",
    "local4/local4/activations",
    "local4/weights",
    "local4/weights/gradients",
    "softmax_linear/biases",
    "softmax_linear/biases/gradients",
    "softmax_linear/softmax_linear/activations",
    "softmax_linear/weights",
    "softmax_linear/weights/gradients",
];

/// Tags of its images.
const IMAGES: [&str; 3] = ["images/image/0", "images/image/1", "images/image/2"];

/// A run that ends only when its server is stopped.
const NO_END: u64 = 1_000_000;

/// Steps and values by tag.
type Found = BTreeMap<String, Vec<(u64, Value)>>;

/// What TensorBoard finds in a folder, by kind.
fn read(folder: &Path, python: &Path) -> BTreeMap<String, Found> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/read_events.py");
    let found = run(Command::new(python).arg(script).arg(folder)).unwrap();
    serde_json::from_str(&found).unwrap()
}

fn tags(found: &Found) -> BTreeSet<&str> {
    found.keys().map(String::as_str).collect()
}

fn steps(found: &[(u64, Value)]) -> Vec<u64> {
    found.iter().map(|(step, _)| *step).collect()
}

#[test]
fn tensorboard_finds_every_tag_of_the_tutorial() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip("PYTHON", &format!("there is no TensorBoard: {reason}")),
    };
    let mut cluster = Cluster::builder().max_steps(NO_END).start();
    let images = cluster.train_dir().join("images");
    // Of step 0 or, where the worker is not as fast, of one of the next.
    eventually("the worker's part of a summary", || {
        images.join("2.png").exists().then_some(())
    });
    cluster.stop_server();

    let found = read(cluster.train_dir(), &python);
    let [scalars, histograms, pictures] =
        ["scalars", "histograms", "images"].map(|kind| &found[kind]);
    assert_eq!(tags(scalars), BTreeSet::from(SCALARS));
    assert_eq!(tags(histograms), BTreeSet::from(HISTOGRAMS));
    assert_eq!(tags(pictures), BTreeSet::from(IMAGES));
    assert_eq!(names_in(&images), ["0.png", "1.png", "2.png"]);

    let first = |tag: &str| {
        let (step, value) = &scalars[tag][0];
        assert_eq!(*step, 0, "{tag}");
        value.as_f64().unwrap()
    };
    let raw = |loss: &str| first(&format!("{loss}__raw_"));
    let terms = ["cross_entropy", "local3/weight_loss", "local4/weight_loss"];
    let sum: f64 = terms.into_iter().map(raw).sum();
    assert!((raw("total_loss") - sum).abs() < 1e-5);
    assert!(
        (raw("total_loss") - 4.68).abs() < 0.05,
        "as the tutorial's first loss"
    );
    for loss in terms.into_iter().chain(["total_loss"]) {
        assert!(
            (first(loss) - 0.1 * raw(loss)).abs() < 1e-5,
            "{loss} rises from 0"
        );
    }
    assert!((first("learning_rate") - 0.1).abs() < 1e-7);

    let numbers = |tag: &str| histograms[tag][0].1[0].as_f64().unwrap();
    let batch_size = 16.0;
    assert_eq!(numbers("local3/weights"), 2304.0 * 384.0);
    assert_eq!(numbers("local3/weights/gradients"), 2304.0 * 384.0);
    assert_eq!(
        numbers("conv1/conv1/activations"),
        batch_size * 24.0 * 24.0 * 64.0
    );
    assert_eq!(pictures["images/image/0"][0].1, serde_json::json!([24, 24]));
}

#[test]
fn tensorboard_finds_the_scores_of_an_eval_dir() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip("PYTHON", &format!("there is no TensorBoard: {reason}")),
    };
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let mut eval = Program::start(
        command(EVAL)
            .args(["--run-once", "--json", "--data", "synthetic:512"])
            .arg("--checkpoint-dir")
            .arg(folder.path()),
    );
    assert_eq!(eval.wait(), Exit::Complete);
    let told: Value = serde_json::from_str(&eval.stdout()).unwrap();
    let found = read(&folder.path().join("eval"), &python);
    let [(step, precision)] = &found["scalars"]["Precision @ 1"][..] else {
        panic!("{found:?}");
    };
    let told = told["precision_at_1"].as_f64().unwrap();
    assert_eq!(*step, 7);
    assert!((precision.as_f64().unwrap() - told).abs() < 1e-6);
}

#[test]
fn tensorboard_forgets_what_a_run_that_went_back_had_said() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip("PYTHON", &format!("there is no TensorBoard: {reason}")),
    };
    let mut cluster = Cluster::builder()
        .max_steps(NO_END)
        .server_flags(&["--summary-steps", "2", "--checkpoint-steps", "10"])
        .start();
    cluster.wait_for_step(18);
    cluster.server.program.kill();
    fs::remove_file(cluster.train_dir().join("state")).unwrap();
    cluster.start_server_again();
    let goes_on = "goes on with the run in the train dir global_step=";
    let from = cluster.server.program.number_after(goes_on);
    assert!(
        from >= 10 && from.is_multiple_of(10),
        "at a checkpoint: {from}"
    );
    cluster.wait_for_step(from + 5);
    cluster.stop_server();

    let found = read(cluster.train_dir(), &python);
    for tag in ["total_loss__raw_", "conv1/conv1/sparsity"] {
        let steps = steps(&found["scalars"][tag]);
        let each_once = steps.is_sorted_by(|a, b| a < b);
        let are_due = steps.iter().all(|step| step.is_multiple_of(2));
        assert!(each_once && are_due, "{tag}: {steps:?}");
    }
    let last = steps(&found["scalars"]["total_loss__raw_"]).pop();
    assert!(
        last >= Some(from),
        "the run that went on is there: {last:?}"
    );
    let names = names_in(cluster.train_dir());
    let events = names.iter().filter(|name| name.starts_with("events."));
    assert_eq!(events.count(), 2, "a file for each start: {names:?}");
}

#[test]
fn a_run_without_summaries_writes_none() {
    let mut cluster = Cluster::builder()
        .max_steps(3)
        .server_flags(&["--summary-steps", "0"])
        .start();
    cluster.finish();
    let names = names_in(cluster.train_dir());
    let of_summaries = names
        .iter()
        .filter(|it| it.starts_with("events") || *it == "images");
    assert_eq!(of_summaries.count(), 0, "{names:?}");
}
