//! A GPU, where there is one; and the check that is carried to one, where there is none.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use pserver_cli::exit::Exit;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::program::{Program, SERVER, WORKER, command, skip};

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

/// Runs `bench/gpu/check` on the CPU, with these programs in place of its own, and gives what it found as well.
fn dry_check(server: &str, worker: &str, flags: &[&str]) -> (Exit, Program, Value) {
    let folder = tempfile::tempdir().unwrap();
    for (name, program) in [("cifar-ps", server), ("cifar-worker", worker)] {
        symlink(program, folder.path().join(name)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/gpu/check");
    let mut check = Program::start(
        command("python3")
            .arg("-S") // A PyTorch that is installed here is left alone.
            .arg(script)
            .args(["--dry-run", "--programs"])
            .args([folder.path(), Path::new("--out"), folder.path()])
            .args(flags),
    );
    let exit = check.wait();
    let results = fs::read_to_string(folder.path().join("results.json")).unwrap();
    let log = fs::read_to_string(folder.path().join("log.txt")).unwrap();
    assert_eq!(log, check.stdout());
    (exit, check, serde_json::from_str(&results).unwrap())
}

/// What came of each part, in order.
fn outcomes(results: &Value) -> Vec<(&str, &str)> {
    let parts = [
        "environment",
        "smoke",
        "one",
        "two",
        "again",
        "cpu",
        "compare",
        "plain",
        "compiled",
    ];
    assert_eq!(results["parts"].as_object().unwrap().len(), parts.len());
    let outcome = |part| (part, results["parts"][part]["outcome"].as_str().unwrap());
    parts.map(outcome).to_vec()
}

/// It names flags of the programs and fields of the ledger: one that is renamed has a part fail.
#[test]
fn the_check_for_a_gpu_runs_dry() {
    let (exit, check, results) = dry_check(SERVER, WORKER, &[]);
    for (part, outcome) in outcomes(&results) {
        let needs_torch = ["plain", "compiled"].contains(&part);
        let expected = if needs_torch { "skipped" } else { "ran" };
        assert_eq!(outcome, expected, "{part}");
    }
    let runs = results["parts"]["compare"]["facts"].as_object().unwrap();
    assert_eq!(runs.len(), 4);
    for (run, facts) in runs {
        assert_eq!(facts["first_step_of_other_bits"], Value::Null, "{run}");
        let step = &results["parts"][run]["facts"]["step_ms"];
        assert!(step.as_f64() > Some(0.0), "{run}: {step}");
    }
    if exit == Exit::Complete {
        eprintln!("there is a CUDA device");
        return;
    }
    assert_eq!(exit, Exit::Permanent);
    let stdout = check.stdout();
    let last = stdout.lines().last().unwrap();
    assert!(
        last.starts_with("no GPU: cifar-worker: cannot use GPU 0"),
        "{last}"
    );
}

#[test]
fn a_worker_that_does_not_start_fails_its_parts_of_the_check_and_no_other() {
    let (exit, check, results) = dry_check(SERVER, "/bin/false", &[]);
    assert_eq!(exit, Exit::Unexpected);
    assert!(check.stdout().contains("cifar-worker does not start"));
    for (part, outcome) in outcomes(&results) {
        let expected = match part {
            "environment" => "ran",
            "smoke" | "one" | "two" | "again" | "cpu" => "failed",
            _ => "skipped",
        };
        assert_eq!(outcome, expected, "{part}");
    }
}

#[test]
fn a_program_that_hangs_does_not_hold_the_check_up() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = folder.path().join("hangs");
    fs::write(&hangs, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&hangs, PermissionsExt::from_mode(0o755)).unwrap();
    let (exit, check, results) = dry_check(hangs.to_str().unwrap(), WORKER, &["--seconds", "3"]);
    assert_eq!(exit, Exit::Unexpected);
    assert!(check.stdout().contains("failed: cifar-ps takes too long"));
    let outcomes = outcomes(&results);
    assert!(
        outcomes[1..]
            .iter()
            .all(|(_, outcome)| *outcome == "failed")
    );
}
