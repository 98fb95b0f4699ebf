//! Data sets that are not what they should be: each is refused with a reason, and nothing of it is
//! left or touched.

use std::fs::File;
use std::io;
use std::path::Path;

use pserver_cli::exit::Exit;
use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::files::{
    CIFAR10_FILE_BYTES, RECORD_BYTES, names_in, write_black_cifar10, write_label,
    write_opinionated_checkpoint,
};
use crate::http;
use crate::program::{DEADLINE, EVAL, Program, command};

/// What a hotel's network has instead of the archive.
const NO_ARCHIVE: &[u8] = b"<html>please sign in</html>";

/// A worker of a run on CIFAR-10, with these flags, once it has refused to work.
fn refusing_worker(data_dir: &Path, flags: &[&str]) -> (Exit, Program) {
    let mut cluster = Cluster::builder().data("cifar10").workers(0).start();
    cluster.add_worker(&[&["--data-dir", data_dir.to_str().unwrap()], flags].concat());
    let mut worker = cluster.workers.remove(0);
    (worker.wait(), worker)
}

/// What a worker says about a set whose first file was changed like this.
fn check_changed(change: impl Fn(&File) -> io::Result<()>, complaint: &str) {
    let data_dir = tempfile::tempdir().unwrap();
    write_black_cifar10(data_dir.path(), change);
    let (exit, worker) = refusing_worker(data_dir.path(), &[]);
    assert_eq!(exit, Exit::Permanent);
    worker.assert_said("data_batch_1.bin");
    worker.assert_said(complaint);
    assert_eq!(names_in(data_dir.path()), ["cifar-10-batches-bin"]);
}

#[test]
fn a_truncated_file_is_named_with_the_record_it_ends_in() {
    check_changed(
        |file| file.set_len(CIFAR10_FILE_BYTES - 1),
        "ends inside record 9999",
    );
}

#[test]
fn a_file_with_too_few_records_is_named() {
    check_changed(
        |file| file.set_len(CIFAR10_FILE_BYTES - RECORD_BYTES),
        "holds 9999 records, expected 10000",
    );
}

#[test]
fn a_label_that_is_no_class_is_named_with_its_record() {
    check_changed(
        |file| write_label(file, 1234, 17),
        "has label 17, expected 0..=9",
    );
}

#[test]
fn a_file_of_other_images_is_found_by_its_digest() {
    check_changed(
        |_| Ok(()),
        "expected cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    );
}

#[test]
fn a_damaged_archive_leaves_nothing_behind() {
    let mirror = http::serve("200 OK", NO_ARCHIVE);
    let data_dir = tempfile::tempdir().unwrap();
    let (exit, worker) = refusing_worker(data_dir.path(), &["--data-url", &mirror]);
    assert_eq!(exit, Exit::Permanent);
    worker.assert_said("it is damaged");
    assert_eq!(names_in(data_dir.path()), [".cifar-10-batches-bin.lock"]);
}

#[test]
fn an_archive_of_another_digest_leaves_nothing_behind() {
    let mirror = http::serve("200 OK", NO_ARCHIVE);
    let data_dir = tempfile::tempdir().unwrap();
    let sha256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";
    let flags = ["--data-url", &mirror, "--data-sha256", sha256];
    let (exit, worker) = refusing_worker(data_dir.path(), &flags);
    assert_eq!(exit, Exit::Permanent);
    worker.assert_said(&format!("expected {sha256}"));
    assert_eq!(names_in(data_dir.path()), [".cifar-10-batches-bin.lock"]);
}

#[test]
fn an_archive_that_the_mirror_does_not_have_may_be_there_later() {
    let mirror = http::serve("404 Not Found", b"");
    let data_dir = tempfile::tempdir().unwrap();
    let (exit, worker) = refusing_worker(data_dir.path(), &["--data-url", &mirror]);
    assert_eq!(exit, Exit::TryAgain);
    worker.assert_said(&format!("cannot download {mirror}"));
    worker.assert_said("404 Not Found");
    assert_eq!(names_in(data_dir.path()), [".cifar-10-batches-bin.lock"]);
}

#[test]
fn a_worker_that_downloads_can_be_asked_to_leave() {
    let (mirror, clients) = http::silence();
    let data_dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::builder().data("cifar10").workers(0).start();
    let data_dir = data_dir.path().to_str().unwrap();
    cluster.add_worker(&["--data-dir", data_dir, "--data-url", &mirror]);
    clients.recv_timeout(DEADLINE).unwrap();
    cluster.workers[0].signal(Signal::TERM);
    assert_eq!(cluster.workers[0].wait(), Exit::Terminated);
}

#[test]
fn an_evaluation_refuses_a_damaged_archive_too() {
    let mirror = http::serve("200 OK", NO_ARCHIVE);
    let scratch = tempfile::tempdir().unwrap();
    let (run, data_dir) = (scratch.path().join("run"), scratch.path().join("data"));
    write_opinionated_checkpoint(&run, 1, 0, 0);
    let mut eval = Program::start(
        command(EVAL)
            .args(["--run-once", "--data-url", &mirror, "--checkpoint-dir"])
            .arg(&run)
            .arg("--data-dir")
            .arg(&data_dir),
    );
    assert_eq!(eval.wait(), Exit::Permanent);
    eval.assert_said("it is damaged");
    assert_eq!(eval.stdout(), "");
    assert_eq!(names_in(&data_dir), [".cifar-10-batches-bin.lock"]);
}
