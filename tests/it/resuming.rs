//! A run that is stopped and goes on later comes to the same bits.

use std::fs;

use pserver_cli::exit::Exit;
use pserver_ledger::Record;
use rustix::process::Signal;

use crate::cluster::{Cluster, NUM_STEPS, undisturbed};
use crate::files::damage;

#[test]
fn a_worker_stays_while_the_server_is_stopped_and_started_again() {
    let mut cluster = Cluster::builder().start();
    cluster.wait_for_step(NUM_STEPS / 3);
    let step = cluster.stop_server();
    assert!((NUM_STEPS / 3..NUM_STEPS).contains(&step), "{step}");

    cluster.start_server_again();
    assert_eq!(cluster.finish(), undisturbed());
    let server = &cluster.server.program;
    server.assert_said(&format!(
        "goes on with the run in the train dir global_step={step}"
    ));
}

#[test]
fn a_run_goes_on_with_other_workers() {
    let mut cluster = Cluster::builder().start();
    cluster.wait_for_step(NUM_STEPS / 3);
    cluster.stop_server();
    for mut worker in std::mem::take(&mut cluster.workers) {
        worker.signal(Signal::TERM);
        assert_eq!(worker.wait(), Exit::Terminated);
    }

    cluster.start_server_again();
    cluster.add_worker(&[]);
    cluster.add_worker(&[]);
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn a_run_whose_server_is_killed_again_and_again_loses_no_step() {
    let mut cluster = Cluster::builder().workers(2).start();
    for step in [5, 12, 13, 21, 30] {
        cluster.wait_for_step(step);
        cluster.server.program.kill();
        cluster.start_server_again();
        let goes_on = "goes on with the run in the train dir global_step=";
        let from = cluster.server.program.number_after(goes_on);
        assert!(from >= step, "went back from step {step} to {from}");
    }
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn a_damaged_state_file_sends_the_run_back_to_its_checkpoint() {
    let mut cluster = Cluster::builder()
        .server_flags(&["--checkpoint-steps", "5"])
        .start();
    cluster.wait_for_step(NUM_STEPS / 3);
    cluster.server.program.kill();
    fs::write(cluster.train_dir().join("state"), "torn").unwrap();

    cluster.start_server_again();
    cluster
        .server
        .program
        .assert_said("passes over the state file");
    assert_eq!(cluster.finish(), undisturbed());
    let records = cluster.ledger();
    let rewinds = records
        .iter()
        .filter(|record| matches!(record, Record::Rewind(_)));
    assert_eq!(rewinds.count(), 1, "the ledger says that the run went back");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let mut cluster = Cluster::builder()
        .server_flags(&["--checkpoint-steps", "5"])
        .start();
    cluster.wait_for_step(NUM_STEPS / 3);
    cluster.stop_server();
    let (newest, path) = cluster.checkpoints().swap_remove(0);
    damage(&path);
    fs::remove_file(cluster.train_dir().join("state")).unwrap();

    cluster.start_server_again();
    assert_eq!(cluster.finish(), undisturbed());
    let server = &cluster.server.program;
    server.assert_said("passes over a checkpoint");
    server.assert_said(&format!("model.ckpt-{newest}.safetensors is damaged"));
}

#[test]
fn a_server_that_was_killed_while_it_wrote_leaves_nothing_in_the_way() {
    let mut cluster = Cluster::builder().workers(0).max_steps(2).start();
    cluster.stop_server();
    let unfinished = cluster.train_dir().join(".checkpoint-x7Fq2a");
    fs::write(&unfinished, "half").unwrap();

    cluster.start_server_again();
    assert!(!unfinished.exists());
    cluster.add_worker(&[]);
    cluster.finish();
}

/// Where steps are faster than the disk, checkpoints are due before those before them are written.
#[test]
fn checkpoints_are_written_in_the_order_of_their_steps() {
    let mut cluster = Cluster::builder()
        .workers(2)
        .max_steps(60)
        .server_flags(&["--checkpoint-steps", "1", "--keep-checkpoints", "100"])
        .start();
    cluster.finish();
    let written: Vec<u64> = cluster
        .ledger()
        .into_iter()
        .filter_map(|record| match record {
            Record::Checkpoint { global_step } => Some(global_step.0),
            _ => None,
        })
        .collect();
    assert!(written.is_sorted(), "{written:?}");
    assert_eq!(written.last(), Some(&60));
}
