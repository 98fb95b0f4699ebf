//! What a ledger tells of a real run: where the time went, that every example counted once, and
//! where two runs part.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pserver_cli::exit::Exit;
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, NUM_STEPS};
use crate::program::{Program, SERVER, command};

/// What a verb of the server says of train dirs, and how it ends.
fn ask(verb: &str, train_dirs: &[&Path], flags: &[&str]) -> (Exit, String) {
    let mut command = command(SERVER);
    command.arg(verb);
    match train_dirs {
        [train_dir] => command.arg("--train-dir").arg(train_dir),
        two => command.args(two),
    };
    let mut program = Program::start(command.args(flags));
    let exit = program.wait();
    (exit, program.stdout())
}

#[test]
fn a_run_is_proven_and_explained_whatever_befell_it() {
    let mut cluster = Cluster::builder().workers(2).start();
    for step in [NUM_STEPS / 3, NUM_STEPS / 2] {
        cluster.wait_for_step(step);
        cluster.server.program.kill();
        cluster.start_server_again();
    }
    let running = ask("verify", &[cluster.train_dir()], &[]);
    assert_eq!(running.0, Exit::Complete, "while it runs: {}", running.1);
    cluster.finish();

    let (exit, proof) = ask("verify", &[cluster.train_dir()], &[]);
    assert_eq!(exit, Exit::Complete, "{proof}");
    // 40 steps of 2 x 16 examples are two and a half epochs of 512.
    assert!(
        proof.contains("epochs 0 to 1 used each of the 512 examples exactly once"),
        "{proof}"
    );
    let (exit, told) = ask("explain", &[cluster.train_dir()], &[]);
    assert_eq!(exit, Exit::Complete);
    for part in [
        "Committed: steps 0 to 39",
        "Starts of the server:",
        "killed",
    ] {
        assert!(told.contains(part), "{part:?} is not in:\n{told}");
    }
    let (exit, told) = ask("explain", &[cluster.train_dir()], &["--step", "7"]);
    assert_eq!(exit, Exit::Complete);
    assert!(told.starts_with("Step 7 was committed at"), "{told}");
}

#[test]
fn runs_are_compared_step_by_step() {
    let run = || Cluster::builder().max_steps(4);
    let mut one = run().start();
    let mut two = run().workers(2).start();
    let mut other = run().server_flags(&["--seed", "2"]).start();
    one.finish();
    two.finish();
    other.finish();
    let (exit, told) = ask("diff", &[one.train_dir(), two.train_dir()], &[]);
    assert_eq!(exit, Exit::Complete, "{told}");
    assert!(told.starts_with("equal: steps 0 to 3"), "{told}");
    let (exit, told) = ask("diff", &[one.train_dir(), other.train_dir()], &[]);
    assert_eq!(exit, Exit::Unexpected, "{told}");
    assert!(told.contains("--seed: 1 -> 2"), "{told}");
}

#[test]
fn a_train_dir_without_a_ledger_is_named() {
    let nothing = tempfile::tempdir().unwrap();
    let mut program = Program::start(
        command(SERVER)
            .args(["explain", "--train-dir"])
            .arg(nothing.path()),
    );
    assert_eq!(program.wait(), Exit::Permanent);
    program.assert_said("holds no ledger; name the train dir of a run");
}

/// Lets a process run for a third of the time, until told to let it go.
pub(crate) fn slow_down(process: Pid, is_over: &AtomicBool) {
    const SLICE: Duration = Duration::from_millis(10);
    while !is_over.load(Ordering::Relaxed) {
        for (signal, time) in [(Signal::STOP, 2 * SLICE), (Signal::CONT, SLICE)] {
            // It ends when its run does.
            if kill_process(process, signal).is_err() {
                return;
            }
            thread::sleep(time);
        }
    }
}

#[test]
fn a_worker_that_is_slowed_to_a_third_is_named() {
    let mut cluster = Cluster::builder().workers(2).batch_size(64).start();
    for worker in &cluster.workers {
        worker.wait_until_said("registered");
    }
    let slow = cluster.workers[0].id();
    let process = Pid::from_raw(slow as i32).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| slow_down(process, &is_over));
        cluster
            .server
            .program
            .wait_until_said(&format!("checkpoint is written global_step={NUM_STEPS}"));
        is_over.store(true, Ordering::Relaxed);
    });
    cluster.finish();
    let (_, told) = ask("explain", &[cluster.train_dir()], &[]);
    let named = told.lines().find(|line| line.contains(" is slow: "));
    assert!(
        named.is_some_and(|line| line.contains(&format!("/{slow})"))),
        "{told}"
    );
    eprintln!("{told}");
}
