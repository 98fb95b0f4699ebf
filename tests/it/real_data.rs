//! CIFAR-10 itself, where it is at hand.

use std::fs;
use std::path::Path;

use pserver_cli::exit::Exit;
use pserver_ledger::ScoreRecord;

use crate::cluster::Cluster;
use crate::files::cifar10_data_dir;
use crate::program::{EVAL, Program, command};
use crate::training::{logged_losses, mean};

#[test]
fn the_loss_falls_on_cifar10() {
    let Some(data_dir) = cifar10_data_dir() else {
        return;
    };
    let mut cluster = Cluster::builder()
        .data("cifar10")
        .workers(2)
        .batch_size(32)
        .max_steps(40)
        .server_flags(&["--log-frequency", "1"])
        .worker_flags(&["--data-dir", &data_dir])
        .start();
    cluster.finish();
    let losses = logged_losses(&cluster.server.program.stderr());
    assert_eq!(losses.len(), 40);
    assert!(mean(&losses[30..]) < mean(&losses[..10]), "{losses:?}");
}

/// Each record of a run holds the averages that its precision is of.
#[test]
fn recorded_models_score_what_their_records_say() {
    let Some(data_dir) = cifar10_data_dir() else {
        return;
    };
    let runs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runs");
    let records = fs::read_dir(runs)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut num_models = 0;
    for record in records {
        let page = fs::read_to_string(record.join("README.md")).unwrap();
        let Some((_, told)) = page.split_once("    precision @ 1 = ") else {
            continue;
        };
        let (told, _) = told.split_once(' ').unwrap();
        let scores = tempfile::tempdir().unwrap();
        let mut eval = Program::start(
            command(EVAL)
                .args([
                    "--run-once",
                    "--json",
                    "--data-dir",
                    &data_dir,
                    "--checkpoint-dir",
                ])
                .arg(&record)
                .arg("--eval-dir")
                .arg(scores.path()),
        );
        assert_eq!(eval.wait(), Exit::Complete);
        let scored: ScoreRecord = serde_json::from_str(&eval.stdout()).unwrap();
        let precision = scored.score.confusion.precision_at_1();
        // The network's last bits are the processor's: an example or two may fall to the other side.
        let difference = (precision - told.parse::<f64>().unwrap()).abs();
        assert!(
            difference < 0.0005,
            "{}: {precision}, told {told}",
            record.display()
        );
        num_models += 1;
    }
    assert!(num_models > 0, "no record has a model");
}
