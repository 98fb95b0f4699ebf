//! Shared memory and the wire: two ways, the same bits.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pserver_cli::exit::Exit;
use pserver_run::{DataSet, InputKind, RunConfig};
use pserver_wire::gradient_slot::Nonce;
use pserver_wire::messages::{
    Assignment, Attachment, Goodbye, Member, Pull, Refusal, Registered, Registration, SECRET_BYTES,
    Secret, SharedMemory, WorkerId,
};
use pserver_wire::server::{ParameterServer, RequestError};
use pserver_wire::service::service;
use pserver_wire::transport::{incoming, server_builder};
use tokio::net::TcpListener;
use tokio::runtime;

use crate::cluster::{Cluster, NUM_STEPS, undisturbed};
use crate::program::{Program, WORKER, command, eventually};

const SHARES: &str = "shares memory with the server";

#[test]
fn the_bits_are_the_same_over_shared_memory_and_over_the_wire() {
    for (plane, shares) in [("shm", true), ("wire", false), ("auto", true)] {
        let mut cluster = Cluster::builder()
            .worker_flags(&["--data-plane", plane])
            .start();
        assert_eq!(cluster.finish(), undisturbed(), "{plane}");
        let said = cluster.workers[0].stderr();
        assert_eq!(said.contains(SHARES), shares, "{said}");
    }
}

#[test]
fn workers_on_both_ways_train_together() {
    let mut cluster = Cluster::builder().workers(0).start();
    cluster.add_worker(&["--data-plane", "wire"]);
    cluster.add_worker(&["--data-plane", "shm"]);
    assert_eq!(cluster.finish(), undisturbed());
}

#[test]
fn a_worker_that_is_killed_leaves_no_memory_behind() {
    let mut cluster = Cluster::builder()
        .workers(2)
        .server_flags(&["--worker-lease-secs", "1"])
        .worker_flags(&["--data-plane", "shm"])
        .start();
    for worker in &cluster.workers {
        worker.wait_until_said(SHARES);
    }
    let server = cluster.server.program.id();
    assert_eq!(slots_of(server), 2);
    cluster.workers.remove(0).kill();
    eventually("the end of a slot", || {
        (slots_of(server) == 1).then_some(())
    });
    assert_eq!(cluster.finish(), undisturbed());
}

/// Slots for gradients that a process has open. They have no names: there is nowhere else to look.
fn slots_of(process: u32) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
    let Ok(descriptors) = descriptors else {
        return 0;
    };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|of| of.to_string_lossy().contains("cifar-ps gradients"))
        .count()
}

#[test]
fn a_server_that_is_killed_shares_memory_again_after_its_next_start() {
    let mut cluster = Cluster::builder()
        .worker_flags(&["--data-plane", "shm"])
        .start();
    cluster.wait_for_step(NUM_STEPS / 3);
    cluster.server.program.kill();
    cluster.start_server_again();
    assert_eq!(cluster.finish(), undisturbed());
    let said = cluster.workers[0].stderr();
    assert_eq!(said.matches(SHARES).count(), 2, "{said}");
}

#[test]
fn a_worker_that_insists_on_memory_of_another_host_is_refused() {
    let server = start_server_of_another_host();
    let mut worker = start_worker(server, "shm");
    assert_eq!(worker.wait(), Exit::Permanent);
    worker.assert_said("cannot share memory with the server at");
    worker.assert_said("as --data-plane shm asks");
}

#[test]
fn a_worker_without_that_wish_takes_the_wire() {
    let server = start_server_of_another_host();
    let mut worker = start_worker(server, "auto");
    assert_eq!(worker.wait(), Exit::Complete);
    worker.assert_said("variables and gradients travel over the wire");
}

fn start_worker(server: SocketAddr, data_plane: &str) -> Program {
    let server = server.to_string();
    Program::start(command(WORKER).args(["--server", &server, "--data-plane", data_plane]))
}

/// Serves, until the tests end, a run that is complete; the paths that it offers lead nowhere here.
fn start_server_of_another_host() -> SocketAddr {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let layout = cifar_model::layout();
        let service = service(Arc::new(ServerOfAnotherHost), &layout);
        let router = server_builder(&layout).add_service(service);
        runtime.block_on(router.serve_with_incoming(incoming(listener)))
    });
    address
}

struct ServerOfAnotherHost;

impl ParameterServer for ServerOfAnotherHost {
    async fn run(&self) -> Result<RunConfig, RequestError> {
        Ok(RunConfig {
            num_towers: 1,
            batch_size: 1,
            input: InputKind::Plain,
            data: DataSet::Synthetic { num_examples: 16 },
            ..RunConfig::example()
        })
    }

    async fn register(&self, _: Registration) -> Result<Result<Registered, Refusal>, RequestError> {
        Ok(Ok(Registered {
            member: Member {
                secret: Secret([1; SECRET_BYTES]),
                worker: WorkerId(0),
            },
            lease: Duration::from_secs(60),
        }))
    }

    async fn share_memory(&self, _: Member) -> Result<SharedMemory, RequestError> {
        Ok(SharedMemory::Offered {
            state_path: "/proc/0/fd/0".into(),
            slot_path: "/proc/0/fd/1".into(),
        })
    }

    async fn attach(&self, _: Member, _: Nonce) -> Result<Attachment, RequestError> {
        let reason = "nobody can have opened that".to_owned();
        Ok(Attachment::Refused { reason })
    }

    async fn pull(&self, _: Pull) -> Result<Assignment, RequestError> {
        Ok(Assignment::Goodbye(Goodbye::Complete))
    }

    async fn leave(&self, _: Member) -> Result<(), RequestError> {
        Ok(())
    }

    async fn heartbeat(&self, _: Member) -> Result<bool, RequestError> {
        Ok(true)
    }
}
