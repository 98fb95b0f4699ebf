//! Two hundred steps come to the same bits for any number of workers, and whatever dies meanwhile.

use std::sync::OnceLock;

use pserver_run::StateDigest;

use crate::cluster::{Builder, Cluster};

const NUM_STEPS: u64 = 200;

/// Four small towers, so that four workers have something to do.
fn run() -> Builder {
    Cluster::builder()
        .towers(4)
        .batch_size(2)
        .max_steps(NUM_STEPS)
        .server_flags(&["--worker-lease-secs", "1"])
}

/// The state after the run of one worker that nobody disturbs.
fn of_one_worker() -> StateDigest {
    static DIGEST: OnceLock<StateDigest> = OnceLock::new();
    *DIGEST.get_or_init(|| {
        let digest = run().workers(1).start().finish();
        eprintln!("one worker: {digest}");
        digest
    })
}

#[track_caller]
fn check(what: &str, digest: StateDigest) {
    eprintln!("{what}: {digest}");
    assert_eq!(digest, of_one_worker(), "{what}");
}

#[test]
fn two_workers_come_to_the_bits_of_one() {
    check("two workers", run().workers(2).start().finish());
}

#[test]
fn four_workers_come_to_the_bits_of_one() {
    check("four workers", run().workers(4).start().finish());
}

#[test]
fn two_workers_that_are_killed_change_no_bit() {
    let mut cluster = run().workers(4).start();
    for step in [NUM_STEPS / 4, NUM_STEPS / 2] {
        cluster.wait_for_step(step);
        cluster.workers.remove(0).kill();
    }
    check("two of four workers killed", cluster.finish());
}

#[test]
fn a_server_that_is_killed_five_times_changes_no_bit() {
    let mut cluster = run().workers(2).start();
    for death in 1..=5 {
        cluster.wait_for_step(death * NUM_STEPS / 6);
        cluster.server.program.kill();
        cluster.start_server_again();
    }
    check("server killed five times", cluster.finish());
}
