//! One train dir holds one run, used by one server.

use std::fs;
use std::path::Path;

use cifar_cli::exit::Exit;

use crate::cluster::Cluster;
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
