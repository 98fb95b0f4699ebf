//! A trained model and somebody's pictures.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use cifar_cli::exit::Exit;
use cifar_data::dataset::{Dataset, Split};
use cifar_data::obtain::WhenAbsent;
use cifar_ledger::ScoreRecord;
use cifar_params::Confusion;
use cifar_sequence::DataSet;
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::files::write_opinionated_checkpoint;
use crate::program::{EVAL, Program, command};

/// Pictures that are shown.
const NUM_PICTURES: usize = 40;

fn predict(checkpoint_dir: &Path, flags: &[&str], pictures: &[PathBuf]) -> (Exit, Program) {
    let mut eval = Program::start(
        command(EVAL)
            .arg("predict")
            .args(flags)
            .arg("--checkpoint-dir")
            .arg(checkpoint_dir)
            .args(pictures),
    );
    (eval.wait(), eval)
}

/// Writes the first test examples as PNG files, and gives those with their labels.
fn pictures_of(dataset: &Dataset, folder: &Path) -> Vec<(PathBuf, usize)> {
    let records = dataset.records(Split::Test).iter().take(NUM_PICTURES);
    let saved = records.enumerate().map(|(number, record)| {
        let picture = RgbImage::from_fn(32, 32, |x, y| {
            Rgb([0, 1, 2].map(|channel| record.plane(channel)[(y * 32 + x) as usize]))
        });
        let path = folder.join(format!("{number}.png"));
        picture.save(&path).unwrap();
        (path, usize::from(record.label()))
    });
    saved.collect()
}

/// A picture of a test image gets the same numbers as the image in a score.
fn check_against_score(data: DataSet, data_dir: &Path) {
    let mut cluster = Cluster::builder()
        .data(&data.to_string())
        .worker_flags(&["--data-dir", data_dir.to_str().unwrap()])
        .start();
    cluster.finish();
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(data, data_dir, &WhenAbsent::Fail).unwrap();
    let pictures = pictures_of(&dataset, folder.path());
    let paths: Vec<PathBuf> = pictures.iter().map(|(path, _)| path.clone()).collect();

    let (exit, eval) = predict(cluster.train_dir(), &["--json"], &paths);
    assert_eq!(exit, Exit::Complete);
    let mut confusion = Confusion::default();
    let told = eval.stdout();
    for (line, (path, label)) in told.lines().zip(&pictures) {
        let prediction: Value = serde_json::from_str(line).unwrap();
        assert_eq!(prediction["image"].as_str(), path.to_str());
        let class = &prediction["classes"][0];
        confusion.note(*label, class["label"].as_u64().unwrap() as usize);
    }

    let mut eval = Program::start(
        command(EVAL)
            .args(["--run-once", "--json", "--num-examples"])
            .arg(NUM_PICTURES.to_string())
            .arg("--checkpoint-dir")
            .arg(cluster.train_dir())
            .arg("--data-dir")
            .arg(data_dir),
    );
    assert_eq!(eval.wait(), Exit::Complete);
    let scored: ScoreRecord = serde_json::from_str(&eval.stdout()).unwrap();
    assert_eq!(scored.score.confusion, confusion);
}

#[test]
fn a_picture_of_a_test_image_is_taken_for_what_it_is_in_a_score() {
    let nowhere = tempfile::tempdir().unwrap();
    check_against_score(DataSet::Synthetic { num_examples: 512 }, nowhere.path());
    match env::var("CIFAR10_DATA_DIR") {
        Ok(data_dir) => check_against_score(DataSet::Cifar10, Path::new(&data_dir)),
        Err(_) => eprintln!("skipped on CIFAR-10: CIFAR10_DATA_DIR is not set"),
    }
}

#[test]
fn the_three_likeliest_classes_are_told_and_what_is_no_picture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let picture = folder.path().join("a picture.jpg");
    RgbImage::from_pixel(640, 480, Rgb([200, 100, 50]))
        .save(&picture)
        .unwrap();
    let (text, missing) = (folder.path().join("text.png"), folder.path().join("no.png"));
    fs::write(&text, "not a picture").unwrap();

    let pictures = [text, missing, picture.clone()];
    let (exit, eval) = predict(folder.path(), &[], &pictures);
    assert_eq!(exit, Exit::Usage);
    eval.assert_said("text.png is neither a PNG nor a JPEG");
    eval.assert_said("cannot read");
    let told = eval.stdout();
    let expected = format!("{}: dog 23.2 %, ", picture.display());
    assert!(told.starts_with(&expected), "{told}");
    assert_eq!((told.lines().count(), told.matches('%').count()), (1, 3));

    let (exit, eval) = predict(folder.path(), &["--raw", "--json"], &pictures[2..]);
    assert_eq!(exit, Exit::Complete);
    let prediction: Value = serde_json::from_str(&eval.stdout()).unwrap();
    assert_eq!(prediction["classes"][0]["name"], "cat");
    assert_eq!(prediction["global_step"], 7);
}

#[test]
fn without_a_checkpoint_nothing_can_be_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let (exit, eval) = predict(folder.path(), &[], &[folder.path().join("a.png")]);
    assert_eq!(exit, Exit::Usage);
    eval.assert_said("holds no checkpoint; name the train dir of a run with --checkpoint-dir");
}
