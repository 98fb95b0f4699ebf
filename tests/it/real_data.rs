//! CIFAR-10 itself, where it is at hand.

use std::env;

use crate::cluster::Cluster;
use crate::training::{logged_losses, mean};

#[test]
fn the_loss_falls_on_cifar10() {
    let Ok(data_dir) = env::var("CIFAR10_DATA_DIR") else {
        eprintln!("skipped: CIFAR10_DATA_DIR is not set");
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
