//! Losing a worker changes nothing but the time that a run takes.

use pserver_cli::exit::Exit;
use rustix::process::Signal;

use crate::cluster::{Cluster, NUM_STEPS, undisturbed};

#[test]
fn another_worker_covers_for_one_that_was_killed() {
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--worker-lease-secs", "1"])
        .start();
    cluster.wait_for_step(NUM_STEPS / 3);
    cluster.workers.remove(0).kill();
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn a_run_that_lost_its_only_worker_waits_for_the_next() {
    let mut cluster = Cluster::builder()
        .server_flags(&["--worker-lease-secs", "1"])
        .start();
    cluster.wait_for_step(NUM_STEPS / 3);
    cluster.workers.remove(0).kill();
    let server = &cluster.server.program;
    server.wait_until_said("worker sent no heartbeat for its lease and is given up");
    cluster.add_worker(&[]);
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn a_worker_that_is_asked_to_leave_says_goodbye() {
    let mut cluster = Cluster::builder().workers(2).start();
    cluster.wait_for_step(NUM_STEPS / 3);
    let mut leaving = cluster.workers.remove(0);
    leaving.wait_until_said("registered");
    leaving.signal(Signal::TERM);
    assert_eq!(leaving.wait(), Exit::Terminated);
    cluster.server.program.wait_until_said("worker leaves");
    assert_eq!(cluster.finish(), undisturbed());
}

/// The lease is longer than the test may take: only the tower step that is overdue can save it.
#[test]
fn another_worker_covers_for_one_that_hangs() {
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--worker-lease-secs", "600"])
        .start();
    cluster.wait_for_step(NUM_STEPS / 3);
    cluster.workers[0].signal(Signal::STOP);
    cluster
        .server
        .program
        .wait_until_said(&format!("checkpoint is written global_step={NUM_STEPS}"));
    cluster.workers[0].signal(Signal::CONT);
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn a_server_that_waits_for_workers_in_vain_leaves_in_the_end() {
    let mut cluster = Cluster::builder()
        .workers(0)
        .server_flags(&["--stall-timeout-secs", "1"])
        .start();
    let server = &mut cluster.server.program;
    assert_eq!(server.wait(), Exit::TryAgain);
    server.assert_said("workers: none is registered");
}
