//! One train dir holds one run, used by one server.

use std::fs;
use std::path::Path;

use pserver_cli::exit::Exit;
use rustix::process::Signal;

use crate::cluster::{Cluster, NUM_STEPS, undisturbed};
use crate::files::{names_in, write_foreign_checkpoint};
use crate::program::{Program, SERVER, command};

/// Starts a server for `train_dir` that is expected to refuse.
fn refusing_server(train_dir: &Path, flags: &[&str]) -> Program {
    Program::start(
        command(SERVER)
            .args(["--listen", "127.0.0.1:0"])
            .args(flags)
            .arg("--train-dir")
            .arg(train_dir),
    )
}

#[test]
fn a_second_server_is_told_to_take_another_train_dir() {
    let cluster = Cluster::builder().workers(0).start();
    let mut second = refusing_server(cluster.train_dir(), &[]);
    assert_eq!(second.wait(), Exit::TryAgain);
    second.assert_said("another server is using the train dir");
}

#[test]
fn another_run_is_refused_with_the_differences() {
    let mut cluster = Cluster::builder().workers(0).start();
    cluster.stop_server();
    let before = names_in(cluster.train_dir());

    let flags = ["--towers", "3", "--batch-size", "16", "--seed", "9"];
    let mut server = refusing_server(cluster.train_dir(), &flags);
    assert_eq!(server.wait(), Exit::Permanent);
    server.assert_said("(--seed: 1 -> 9; --towers: 2 -> 3)");
    server.assert_said("--fresh");
    assert_eq!(server.stdout(), "");
    assert_eq!(names_in(cluster.train_dir()), before);
}

#[test]
fn a_fresh_run_moves_the_old_one_aside() {
    let mut old = Cluster::builder().max_steps(2).start();
    let digest = old.finish();

    let mut fresh = Cluster::builder()
        .train_dir(old.train_dir())
        .max_steps(2)
        .server_flags(&["--fresh", "--seed", "2"])
        .start();
    assert_ne!(fresh.finish(), digest);
    let aside = fresh.train_dir().join("previous-1");
    let expected = [
        "ledger",
        "model.ckpt-0.safetensors",
        "model.ckpt-2.safetensors",
        "state",
    ];
    let mut names = names_in(&aside);
    // Come only if the worker was fast enough.
    names.retain(|name| name != "images");
    let events = names.remove(0);
    assert!(events.starts_with("events.out.tfevents."), "{events}");
    assert_eq!(names, expected);
}

#[test]
fn a_train_dir_in_which_nothing_is_whole_is_left_as_it_is() {
    let mut cluster = Cluster::builder().workers(0).start();
    cluster.stop_server();
    let (_, path) = cluster.checkpoints().swap_remove(0);
    fs::write(&path, "cut").unwrap();
    fs::write(cluster.train_dir().join("state"), "cut").unwrap();

    let mut server = refusing_server(cluster.train_dir(), &[]);
    assert_eq!(server.wait(), Exit::Permanent);
    server.assert_said("holds no checkpoint that can be read");
    server.assert_said("model.ckpt-0.safetensors is no whole safetensors file");
    assert_eq!(fs::read(&path).unwrap(), b"cut");
}

#[test]
fn a_damaged_state_without_a_checkpoint_is_not_begun_over() {
    let mut cluster = Cluster::builder().workers(0).start();
    cluster.stop_server();
    let (_, checkpoint) = cluster.checkpoints().swap_remove(0);
    fs::remove_file(checkpoint).unwrap();
    let state = cluster.train_dir().join("state");
    fs::write(&state, "torn").unwrap();

    let mut server = refusing_server(cluster.train_dir(), &[]);
    assert_eq!(server.wait(), Exit::Permanent);
    server.assert_said("holds a damaged state, and no checkpoint to go on from");
    server.assert_said("--fresh");
    assert_eq!(server.stdout(), "");
    assert_eq!(fs::read(&state).unwrap(), b"torn");
}

#[test]
fn a_run_that_starts_under_the_name_of_a_moved_one_is_left_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| scratch.path().join(name));
    let mut moved = Cluster::builder().train_dir(&a).start();
    moved.wait_for_step(NUM_STEPS / 3);
    fs::rename(&a, &b).unwrap();
    let mut other = Cluster::builder()
        .train_dir(&a)
        .workers(0)
        .server_flags(&["--seed", "2"])
        .start();
    assert_eq!(moved.server.program.wait(), Exit::Complete);
    assert_eq!(other.checkpoints().len(), 1, "its own");
    let mut saved = order("checkpoint", &a);
    assert_eq!(saved.wait(), Exit::Complete);
    assert_eq!(other.stop_server(), 0);

    let mut again = Cluster::builder().train_dir(&b).workers(0).start();
    assert_eq!(again.finish(), undisturbed());
}

#[test]
fn a_second_server_is_refused_though_the_lock_file_was_removed() {
    let mut cluster = Cluster::builder().workers(0).start();
    fs::remove_file(cluster.train_dir().join(".lock")).unwrap();
    let mut second = refusing_server(cluster.train_dir(), &[]);
    assert_eq!(second.wait(), Exit::TryAgain);
    second.assert_said("another server is using the train dir");
    cluster.stop_server();
}

#[test]
fn a_checkpoint_of_another_model_is_no_beginning() {
    let scratch = tempfile::tempdir().unwrap();
    let (other, train_dir) = (scratch.path().join("other"), scratch.path().join("run"));
    write_foreign_checkpoint(&other, 7, |name, values| match name {
        "conv2/biases" => vec![0.0; 32],
        _ => values,
    });

    let path = other.join("model.ckpt-7.safetensors");
    let mut server = refusing_server(&train_dir, &["--init-from", path.to_str().unwrap()]);
    assert_eq!(server.wait(), Exit::Permanent);
    server.assert_said("tensor conv2/biases of");
    server.assert_said("[32], expected");
    assert_eq!(names_in(&train_dir), [".lock"]);
}

/// Has a verb find its server by the train dir.
fn order(verb: &str, train_dir: &Path) -> Program {
    let mut command = command(SERVER);
    Program::start(command.arg(verb).arg("--train-dir").arg(train_dir))
}

#[test]
fn the_server_of_a_train_dir_is_found_while_it_runs() {
    let mut cluster = Cluster::builder().workers(0).start();
    let mut saved = order("checkpoint", cluster.train_dir());
    assert_eq!(saved.wait(), Exit::Complete);
    assert_eq!(saved.stdout(), "step 0\n");
    let mut stopped = order("stop", cluster.train_dir());
    assert_eq!(stopped.wait(), Exit::Complete);
    assert_eq!(cluster.server.program.wait(), Exit::Terminated);
    assert!(!cluster.train_dir().join("server").exists());

    let mut drained = order("drain", cluster.train_dir());
    assert_eq!(drained.wait(), Exit::TryAgain);
    let none = format!(
        "no server is running in {}: there is no",
        cluster.train_dir().display()
    );
    drained.assert_said(&none);
}

/// Another server, of another run, listens where the one that was killed did.
#[test]
fn a_server_that_was_killed_is_not_taken_for_one_that_runs() {
    let mut killed = Cluster::builder().workers(0).start();
    killed.server.program.kill();
    let other = tempfile::tempdir().unwrap();
    let mut server = Program::start(
        command(SERVER)
            .args(["--listen", &killed.server.address, "--train-dir"])
            .arg(other.path()),
    );
    server.wait_for("listening ADDR", |server| {
        server.stdout().contains("listening").then_some(())
    });
    let mut stop = order("stop", killed.train_dir());
    assert_eq!(stop.wait(), Exit::TryAgain);
    let last = format!("the last one, at {}, was killed", killed.server.address);
    stop.assert_said(&last);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Exit::Terminated);
}

#[test]
fn a_fresh_run_leaves_what_is_not_the_runs_own() {
    let mut old = Cluster::builder().workers(0).start();
    old.stop_server();
    let notes = old.train_dir().join("lost+found/notes.md");
    fs::create_dir(notes.parent().unwrap()).unwrap();
    fs::write(&notes, "mine").unwrap();
    let mut fresh = Cluster::builder()
        .workers(0)
        .train_dir(old.train_dir())
        .server_flags(&["--fresh"])
        .start();
    fresh.stop_server();
    assert!(notes.exists());
    assert!(old.train_dir().join("previous-1/state").exists());
}
