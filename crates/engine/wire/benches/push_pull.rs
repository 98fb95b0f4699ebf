//! How fast a push and a pull go over the wire when neither end does anything with them.
//!
//! On paper: 4,273,192 bytes each way. The kernel copies them into a socket and out again, and the
//! receiver to where they belong: three copies of 4.27 MB, 0.2 ms each at 20 GB/s, so 0.6 ms a way if
//! nothing overlapped and nothing waited. `cargo xtask bench` measures the same between processes,
//! with the real server.
//!
//! Both ends are in one process here, each with a thread of its own, over a loopback socket.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pserver_guard::Credentials;
use pserver_run::{GlobalStep, Initializer, Layout, StateDigest, Tower, TowerStep, VariableSpec};
use pserver_state::Values;
use pserver_wire::client::Client;
use pserver_wire::gradient::Gradient;
use pserver_wire::messages::{
    Assignment, Delivery, Gradients, Losses, Member, Pull, Push, Pushed, SECRET_BYTES, Secret,
    Then, Verdict, Work, WorkerId,
};
use pserver_wire::server::{Landing, ParameterServer, RequestError};
use pserver_wire::service::service;
use pserver_wire::transport::{incoming, server_builder};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const MEMBER: Member = Member {
    secret: Secret([1; SECRET_BYTES]),
    worker: WorkerId(0),
};
const TOWER_STEP: TowerStep = TowerStep {
    global_step: GlobalStep(0),
    tower: Tower(0),
};
const DIGEST: StateDigest = StateDigest(1);

/// Gives the same work again and again, and accepts everything.
struct Agreeable {
    variables: Bytes,
    /// Memory of the gradients that came last.
    spare: Mutex<Option<Values>>,
}

impl Agreeable {
    fn work(&self) -> Assignment {
        Assignment::Work(Work {
            tower_step: TOWER_STEP,
            state_digest: DIGEST,
            variables: Delivery::Sent(self.variables.clone()),
            attempt: 0,
            summary_step: None,
        })
    }
}

impl ParameterServer for Agreeable {
    async fn pull(&self, _: Pull) -> Result<Assignment, RequestError> {
        Ok(self.work())
    }

    fn land(&self, _: Member) -> Result<Result<Landing, Verdict>, RequestError> {
        let spare = self.spare.lock().expect("nobody panics with it").take();
        let memory =
            spare.unwrap_or_else(|| Values::zeros(self.variables.len() / size_of::<f32>()));
        Ok(Ok(Landing { memory, slot: None }))
    }

    async fn push(&self, _: Push, gradient: Gradient, _: Then) -> Result<Pushed, RequestError> {
        *self.spare.lock().expect("nobody panics with it") = Some(gradient.values);
        Ok(Pushed {
            verdict: Verdict::Accepted,
            next: None,
        })
    }
}

fn one_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("there is a thread")
}

/// Serves until the runtime is dropped; the address.
fn serve(runtime: &Runtime, layout: &Layout, variables: Bytes) -> String {
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("there is a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let agreeable = Agreeable {
        variables,
        spare: Mutex::default(),
    };
    let server = server_builder(layout)
        .add_service(service(Arc::new(agreeable), layout))
        .serve_with_incoming(incoming(listener));
    runtime.spawn(server);
    address
}

fn push() -> Push {
    Push {
        member: MEMBER,
        tower_step: TOWER_STEP,
        state_digest: DIGEST,
        losses: Losses {
            cross_entropy: 1.0,
            total: 1.0,
            ..Losses::default()
        },
        examples_digest: [0; 16],
        compute_time: std::time::Duration::ZERO,
        attempt: 0,
    }
}

/// As many numbers as a small convolutional network has.
fn layout() -> Layout {
    Layout::new(vec![VariableSpec {
        name: "variables".to_owned(),
        shape: vec![1_068_298],
        initializer: Initializer::TruncatedNormal { stddev: 0.04 },
    }])
}

fn push_and_pull(criterion: &mut Criterion) {
    let layout = layout();
    let tensor = Bytes::from(vec![1_u8; layout.size_bytes()]);
    let (server, worker) = (one_thread(), one_thread());
    let address = serve(&server, &layout, tensor.clone());
    let mut client = {
        let _context = worker.enter();
        Client::new(&address, &layout, &Credentials::default()).expect("it is an address")
    };
    let pull = Pull {
        member: MEMBER,
        held: None,
    };

    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Bytes(layout.size_bytes() as u64));
    group.bench_function("push", |bencher| {
        let gradients = Gradients::Sent(vec![tensor.clone()]);
        bencher.iter(|| {
            let push = client.push(push(), gradients.clone(), Then::Nothing);
            worker.block_on(push)
        });
    });
    group.bench_function("pull", |bencher| {
        bencher.iter(|| worker.block_on(client.pull(pull)));
    });
    group.finish();
}

criterion_group!(benches, push_and_pull);
criterion_main!(benches);
