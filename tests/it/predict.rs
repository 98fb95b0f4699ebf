//! A trained model and somebody's pictures.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cifar_data::obtain::WhenAbsent;
use cifar_data::{Dataset, Split};
use image::{ImageFormat, Rgb, RgbImage};
use pserver_cli::exit::Exit;
use pserver_ledger::ScoreRecord;
use pserver_run::{Confusion, DataSet};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::files::{cifar10_data_dir, write_exploding_checkpoint, write_opinionated_checkpoint};
use crate::program::{EVAL, Program, command, eventually};

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
    if let Some(data_dir) = cifar10_data_dir() {
        check_against_score(DataSet::Cifar10, Path::new(&data_dir));
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
    eval.assert_said("no.png cannot be read: No such file or directory");
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

/// A picture that no class is likelier for than another.
fn plain_picture() -> RgbImage {
    RgbImage::from_pixel(64, 48, Rgb([200, 100, 50]))
}

#[test]
fn a_picture_that_is_cut_short_is_refused_and_the_others_are_told() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    for (name, format) in [("a.png", ImageFormat::Png), ("a.jpg", ImageFormat::Jpeg)] {
        let (cut, whole) = (folder.path().join(name), folder.path().join("whole"));
        plain_picture().save_with_format(&whole, format).unwrap();
        let bytes = fs::read(&whole).unwrap();
        for end in [bytes.len() / 2, bytes.len() - 1] {
            fs::write(&cut, &bytes[..end]).unwrap();
            let (exit, eval) = predict(folder.path(), &[], &[cut.clone(), whole.clone()]);
            assert_eq!(exit, Exit::Usage);
            eval.assert_said(&format!("{name} is cut short"));
            let told = eval.stdout();
            assert!(
                told.starts_with(&format!("{}: dog", whole.display())),
                "{told}"
            );
        }
    }
}

#[test]
fn a_name_that_is_not_utf_8_is_told_with_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let names = [&b"caf\xe9.png"[..], "caf\u{e9}.png".as_bytes()];
    let paths = names.map(|name| folder.path().join(OsStr::from_bytes(name)));
    for path in &paths {
        plain_picture()
            .save_with_format(path, ImageFormat::Png)
            .unwrap();
    }
    let (exit, eval) = predict(folder.path(), &["--json"], &paths);
    assert_eq!(exit, Exit::Complete);
    let told = eval.stdout();
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 2);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert!(text(&told[0]["image"]).ends_with("/caf\u{fffd}.png"));
    assert!(text(&told[0]["image_hex"]).ends_with("2f636166e92e706e67"));
    assert!(text(&told[1]["image"]).ends_with("/caf\u{e9}.png"));
    assert_eq!(told[1].get("image_hex"), None);
}

#[test]
fn a_reader_that_leaves_after_the_first_line_ends_it_quietly() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    let picture = folder.path().join("a.png");
    plain_picture().save(&picture).unwrap();
    let mut eval = command(EVAL)
        .args(["predict", "--checkpoint-dir"])
        .arg(folder.path())
        .args(vec![&picture; 2000])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    // Dropped after the line, and so closed.
    BufReader::new(eval.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert!(first.contains("dog"), "{first}");
    let status = eventually("its end", || eval.try_wait().unwrap());
    let mut said = String::new();
    eval.stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((status.code(), &said[..]), (Some(0), ""));
}

#[test]
fn a_checkpoint_is_taken_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    write_opinionated_checkpoint(folder.path(), 7, 3, 5);
    write_opinionated_checkpoint(folder.path(), 8, 0, 1);
    let picture = folder.path().join("a.png");
    plain_picture().save(&picture).unwrap();
    let older = folder.path().join("model.ckpt-7.safetensors");
    for flag in ["--checkpoint-dir", "--checkpoint"] {
        let mut eval = Program::start(
            command(EVAL)
                .args(["predict", "--json", flag])
                .arg(&older)
                .arg(&picture),
        );
        assert_eq!(eval.wait(), Exit::Complete);
        let prediction: Value = serde_json::from_str(&eval.stdout()).unwrap();
        assert_eq!(prediction["global_step"], 7);
        assert_eq!(prediction["classes"][0]["name"], "dog");
    }
}

#[test]
fn no_class_is_told_by_a_network_whose_output_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    write_exploding_checkpoint(folder.path(), 7);
    let picture = folder.path().join("a.png");
    plain_picture().save(&picture).unwrap();
    let (exit, eval) = predict(folder.path(), &["--json"], &[picture]);
    assert_eq!((exit, &eval.stdout()[..]), (Exit::Diverged, ""));
    eval.assert_said("a.png");
    eval.assert_said("the checkpoint of step 7");
    eval.assert_said("is not finite");
}
