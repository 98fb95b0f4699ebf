//! A GPU, where there is one.

use cifar_cli::exit::Exit;

use crate::cluster::Cluster;
use crate::program::{Program, WORKER, command, skip};

/// A worker that asks for a GPU and for a server that is not there, once it has ended: at the GPU,
/// or after it at the server.
fn worker_without_server() -> (Exit, Program) {
    let mut absent = Cluster::builder().workers(0).start();
    absent.stop_server();
    let server = absent.server.address;
    let mut worker = Program::start(
        command(WORKER)
            .args(["--gpu", "0", "--retry-window-secs", "1"])
            .args(["--server", &server]),
    );
    (worker.wait(), worker)
}

#[test]
fn a_worker_without_its_gpu_says_what_to_do() {
    let (exit, worker) = worker_without_server();
    if exit == Exit::TryAgain {
        eprintln!("skipped: there is a CUDA device");
        return;
    }
    assert_eq!(exit, Exit::Permanent);
    worker.assert_said("cifar-worker: cannot use GPU 0: ");
    let stderr = worker.stderr();
    let advice = ["LD_LIBRARY_PATH", "GPUs on this machine"];
    assert!(
        advice.iter().any(|words| stderr.contains(words)),
        "{stderr}"
    );
}

#[test]
fn two_workers_share_a_gpu() {
    let (exit, _worker) = worker_without_server();
    if exit != Exit::TryAgain {
        skip("GPU", "there is no CUDA device");
        return;
    }
    let run = || {
        let cluster = Cluster::builder().worker_flags(&["--gpu", "0"]);
        cluster.workers(2).start().finish()
    };
    assert_eq!(run(), run());
}
