//! A run over several hosts, each with an address and a certificate of its own, whose cables fail.

use std::path::Path;

use pserver_cli::exit::Exit;
use pserver_ledger::read_scores;
use pserver_run::GlobalStep;
use pserver_state::checkpoint;

use crate::authority::Authority;
use crate::cluster::{NUM_STEPS, undisturbed};
use crate::network::Network;
use crate::program::{EVAL, Program, SERVER, WORKER};

/// A server of the run that the tests disturb, and its address.
fn start_server(network: &Network, authority: &Authority, train_dir: &Path) -> (Program, String) {
    let listen = format!("{}:0", network.address("server"));
    let server = Program::start(
        network
            .command("server", SERVER)
            .args(["--listen", &listen, "--data", "synthetic:512"])
            .args(["--towers", "2", "--batch-size", "16"])
            .args(["--max-steps", &NUM_STEPS.to_string()])
            .args(["--worker-lease-secs", "3"])
            .args(authority.server_flags(authority))
            .arg("--train-dir")
            .arg(train_dir),
    );
    let address = server.wait_for("listening ADDR", |server| {
        let stdout = server.stdout();
        let line = stdout.lines().next()?;
        Some(line.strip_prefix("listening ")?.to_owned())
    });
    (server, address)
}

/// A worker on a host. All hosts are one machine, which has memory to share; that of real ones is not.
fn start_worker(network: &Network, authority: &Authority, host: &str, server: &str) -> Program {
    Program::start(
        network
            .command(host, WORKER)
            .args(["--server", server, "--data-plane", "wire"])
            .args(authority.client_flags(host, "worker")),
    )
}

/// The number that a worker was given last.
fn number_of(worker: &Program) -> Option<u64> {
    let stderr = worker.stderr();
    let (_, number) = stderr.rsplit_once("registered worker=")?;
    number.split(' ').next()?.parse().ok()
}

/// Pulls a host's cable until the server has given these workers up, and waits until they are back.
fn cut_off(network: &Network, host: &str, server: &Program, workers: &[&Program]) {
    let numbers: Vec<u64> = workers
        .iter()
        .map(|worker| worker.wait_for("a number", number_of))
        .collect();
    network.pull_cable(host);
    for number in &numbers {
        server.wait_until_said(&format!("is given up worker={number} "));
        eprintln!("the server has given worker {number} up");
    }
    network.put_cable_back(host);
    for (worker, old) in workers.iter().zip(&numbers) {
        let new = worker.wait_for("another number", |worker| {
            number_of(worker).filter(|number| number != old)
        });
        eprintln!("worker {old} is back, as worker {new}");
    }
}

/// Cables are so narrow that the run is not over before all of them are back.
#[test]
fn a_run_over_hosts_does_not_depend_on_their_cables() {
    let hosts = ["server", "worker-0", "worker-1", "evaluator"];
    let Some(network) = Network::of(&hosts) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let train_dir = folder.path().join("run");
    let authority = Authority::of(&[&network.address("server")]);
    let (mut server, address) = start_server(&network, &authority, &train_dir);
    let mut evaluator = Program::start(
        network
            .command("evaluator", EVAL)
            .args(["--server", &address])
            .args(authority.client_flags("evaluator", "viewer")),
    );
    network.narrow_cable("worker-0", "40mbit");
    network.narrow_cable("worker-1", "30mbit");
    let mut workers =
        ["worker-0", "worker-1"].map(|host| start_worker(&network, &authority, host, &address));
    server.wait_until_said("step 0,");
    eprintln!("the run has begun on {address}, with certificates");

    cut_off(&network, "worker-0", &server, &[&workers[0]]);
    cut_off(&network, "server", &server, &[&workers[0], &workers[1]]);
    network.widen_cable("worker-0");
    network.widen_cable("worker-1");

    assert_eq!(server.wait(), Exit::Complete);
    assert_eq!(evaluator.wait(), Exit::Complete);
    for worker in &mut workers {
        assert_eq!(worker.wait(), Exit::Complete);
    }
    let last = checkpoint::path_of(&train_dir, GlobalStep(NUM_STEPS));
    let last = checkpoint::load(&last, &cifar_model::layout()).unwrap();
    let (disturbed, undisturbed) = (last.state.digest(), undisturbed());
    eprintln!("state {disturbed} after {NUM_STEPS} steps, {undisturbed} without hosts and faults");
    assert_eq!(disturbed, undisturbed);
    let scores = read_scores(&train_dir.join("eval/scores.jsonl")).unwrap();
    let last = &scores.last().unwrap().score;
    assert_eq!(last.global_step, GlobalStep(NUM_STEPS));
}
