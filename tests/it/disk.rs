//! Disks that are full, and file systems that lack something.

use std::path::Path;
use std::process::Command;

use pserver_cli::exit::Exit;
use tempfile::TempDir;

use crate::cluster::{Cluster, undisturbed};
use crate::files::names_in;
use crate::program::{Program, SERVER, command, skip};

/// Room for the state file of 17.2 MB and one checkpoint of 8.5 MB, not for two.
const SMALL: [&str; 4] = ["-t", "tmpfs", "-o", "size=30m"];
/// Room for nothing of that size.
const TINY: [&str; 4] = ["-t", "tmpfs", "-o", "size=14m"];
/// Has no `fallocate`, as ext3, 9p and many file systems in user space.
const UNABLE_TO_ALLOCATE: [&str; 2] = ["-t", "ramfs"];

/// A file system in memory. Dropped, it is gone.
struct Disk(TempDir);

impl Disk {
    /// `None` where this user may not mount file systems.
    fn mount(kind: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let mounted = Command::new("mount")
            .args(kind)
            .arg("none")
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            skip("DISK", "this user may not mount a file system");
        }
        mounted.then_some(Disk(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Even while a file is open; what fails here shows as a mount that stays.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_ends_the_server_and_spares_the_checkpoint_before() {
    let Some(disk) = Disk::mount(&SMALL) else {
        return;
    };
    let train_dir = disk.path().join("run");
    let mut cluster = Cluster::builder()
        .train_dir(&train_dir)
        .server_flags(&["--checkpoint-steps", "2", "--summary-steps", "0"])
        .start();
    let server = &mut cluster.server.program;
    assert_eq!(server.wait(), Exit::Disk);
    server.assert_said("cifar-ps: cannot save a checkpoint, and goes no further: cannot write");
    server.assert_said("model.ckpt-2.safetensors: No space left on device");
    assert_eq!(
        names_in(&train_dir),
        [".lock", "ledger", "model.ckpt-0.safetensors", "state"]
    );
    cluster.load(0);
}

#[test]
fn a_file_system_that_cannot_allocate_holds_a_run() {
    let Some(disk) = Disk::mount(&UNABLE_TO_ALLOCATE) else {
        return;
    };
    let mut cluster = Cluster::builder().train_dir(disk.path()).start();
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn a_server_that_cannot_open_its_run_does_not_say_that_it_listens() {
    let Some(disk) = Disk::mount(&TINY) else {
        return;
    };
    let mut server = Program::start(
        command(SERVER)
            .args(["--listen", "127.0.0.1:0", "--train-dir"])
            .arg(disk.path()),
    );
    assert_eq!(server.wait(), Exit::Disk);
    server.assert_said("state: No space left on device");
    assert_eq!(server.stdout(), "");
    assert!(!disk.path().join("server").exists());
}
