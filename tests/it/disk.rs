//! A full disk.

use std::path::Path;
use std::process::Command;

use cifar_cli::exit::Exit;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::files::names_in;
use crate::program::skip;

/// Room for the state file of 17.2 MB and one checkpoint of 8.5 MB, not for two.
const SIZE: &str = "size=30m";

/// A small file system in memory. Dropped, it is gone.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this user may not mount file systems.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("there is room for a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(SmallDisk(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Even while a file is open; what fails here shows as a mount that stays.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_ends_the_server_and_spares_the_checkpoint_before() {
    let Some(disk) = SmallDisk::mount() else {
        skip("DISK", "this user may not mount a small file system");
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
