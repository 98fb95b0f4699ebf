//! A push in parts, over a socket: the server sees all of it, or nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a test without a socket of its own fails"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use pserver_guard::Credentials;
use pserver_run::{GlobalStep, Initializer, Layout, StateDigest, Tower, TowerStep, VariableSpec};
use pserver_state::Values;
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient::Gradient;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts, Sender};
use pserver_wire::messages::{
    Assignment, Gradients, Losses, Member, Push, Pushed, SECRET_BYTES, Secret, Then, Verdict,
    WorkerId,
};
use pserver_wire::server::{Landing, ParameterServer, RequestError};
use pserver_wire::service::service;
use pserver_wire::transport::{incoming, server_builder};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

/// Long enough for anything that is on its way over the loopback interface.
const PATIENCE: Duration = Duration::from_secs(20);

/// Four numbers: 16 bytes.
fn layout() -> Layout {
    Layout::new(vec![VariableSpec {
        name: "a".to_owned(),
        shape: vec![4],
        initializer: Initializer::Constant(0.0),
    }])
}

/// Notes what is pushed.
#[derive(Debug, Default)]
struct Notebook {
    pushes: Mutex<Vec<Values>>,
    /// How often memory was taken.
    taken: AtomicUsize,
}

/// A worker that the server does not know.
const STRANGER: WorkerId = WorkerId(9);

impl Notebook {
    fn gradients(&self) -> Vec<Vec<u8>> {
        let pushes = self.pushes.lock().unwrap();
        pushes.iter().map(|push| push.as_bytes().to_vec()).collect()
    }
}

impl ParameterServer for Notebook {
    fn land(&self, member: Member) -> Result<Result<Landing, Verdict>, RequestError> {
        if member.worker == STRANGER {
            return Ok(Err(Verdict::Unregistered));
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        let memory = Values::zeros(layout().num_values());
        Ok(Ok(Landing { memory, slot: None }))
    }

    async fn push(&self, _: Push, gradient: Gradient, then: Then) -> Result<Pushed, RequestError> {
        self.pushes.lock().unwrap().push(gradient.values);
        Ok(accepted(then))
    }
}

async fn start() -> (Arc<Notebook>, Client) {
    let notebook = Arc::new(Notebook::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server_builder(&layout())
        .add_service(service(Arc::clone(&notebook), &layout()))
        .serve_with_incoming(incoming(listener));
    tokio::spawn(server);
    (
        notebook,
        Client::new(&address, &layout(), &Credentials::default()).unwrap(),
    )
}

fn gradients(parts: &[&'static [u8]]) -> Gradients {
    Gradients::Sent(parts.iter().map(|part| Bytes::from_static(part)).collect())
}

fn push() -> Push {
    Push {
        member: Member {
            secret: Secret([1; SECRET_BYTES]),
            worker: WorkerId(0),
        },
        tower_step: TowerStep {
            global_step: GlobalStep(3),
            tower: Tower(1),
        },
        state_digest: StateDigest(5),
        losses: Losses {
            cross_entropy: 1.0,
            total: 2.0,
            ..Losses::default()
        },
        examples_digest: [7; 16],
        compute_time: Duration::ZERO,
        attempt: 0,
    }
}

fn accepted(then: Then) -> Pushed {
    Pushed {
        verdict: Verdict::Accepted,
        next: (then == Then::Pull).then_some(Assignment::Wait),
    }
}

/// A buffer with these bytes in it, cut at these numbers, whose parts `member` sends as soon as they are ready.
fn buffer(client: &Client, member: Member, cuts: &[usize], bytes: &[u8; 16]) -> GradientBuffer {
    let parts = Parts::new(layout().num_values(), cuts);
    let sender = Sender {
        client: client.clone(),
        member,
        runtime: Handle::current(),
    };
    let mut buffer = GradientBuffer::to_send(&parts, sender);
    let mut rest = &bytes[..];
    for part in 0..=cuts.len() {
        let numbers = buffer.part(part);
        let (here, after) = rest.split_at(size_of_val(numbers));
        bytemuck::cast_slice_mut(numbers).copy_from_slice(here);
        rest = after;
    }
    buffer
}

/// A push whose last three numbers are on their way.
fn half(client: &Client, member: Member) -> GradientBuffer {
    let mut half = buffer(client, member, &[1], b"4 b.head, 12 by.");
    half.ready(1);
    half
}

async fn hand_in(client: &mut Client, parts: &[&'static [u8]]) -> Result<Pushed, ClientError> {
    client.push(push(), gradients(parts), Then::Nothing).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn parts_arrive_as_one_push_wherever_they_are_cut_and_however_many_are_sent_ahead(
        mut cuts in prop::collection::vec(0_usize..=4, 0..6), ahead in 0_usize..7, bytes: [u8; 16],
    ) {
        cuts.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let arrived = runtime.block_on(async {
            let (notebook, mut client) = start().await;
            let mut buffer = buffer(&client, push().member, &cuts, &bytes);
            for part in (0..=cuts.len()).rev().take(ahead) {
                buffer.ready(part);
            }
            // To be pushed once more is what happens where the answer is lost.
            for _ in 0..2 {
                let pushed = tokio::time::timeout(PATIENCE, buffer.push(&mut client, push())).await;
                assert_eq!(pushed.unwrap().unwrap(), accepted(Then::Pull));
            }
            notebook.gradients()
        });
        prop_assert_eq!(arrived, [bytes.to_vec(), bytes.to_vec()]);
    }
}

#[tokio::test]
async fn the_messages_of_a_push_may_be_of_any_size() {
    let (notebook, mut client) = start().await;
    for parts in [
        &[&b"4 b."[..], b"head, ", b"12 by."][..],
        &[b"4 b.head, 12 by."],
    ] {
        let pushed = hand_in(&mut client, parts).await;
        assert_eq!(pushed.unwrap(), accepted(Then::Nothing));
    }
    assert_eq!(notebook.gradients(), [b"4 b.head, 12 by."; 2]);
}

#[tokio::test]
async fn a_push_that_is_cut_short_is_never_seen() {
    let (notebook, mut client) = start().await;
    drop(half(&client, push().member));
    // What comes after it on the same connection is answered, so it has been dealt with.
    hand_in(&mut client, &[b"sixteen bytes..."]).await.unwrap();
    assert_eq!(notebook.gradients(), [b"sixteen bytes..."]);
}

#[tokio::test]
async fn gradients_of_another_size_are_refused() {
    let (notebook, mut client) = start().await;
    for parts in [
        [&b"3 b"[..], b"head, 12 by."],
        [b"4 b.", b"much too long for it"],
    ] {
        let refused = hand_in(&mut client, &parts).await;
        assert!(
            matches!(refused, Err(ClientError::Refused { .. })),
            "{refused:?}"
        );
    }
    // Parts of nothing could come for ever.
    for parts in [[&b""[..], b"sixteen bytes..."], [b"sixteen bytes...", b""]] {
        let pushed = hand_in(&mut client, &parts).await;
        assert_eq!(pushed.is_ok(), parts[0].is_empty());
    }
    assert_eq!(notebook.gradients().len(), 1);
}

#[tokio::test]
async fn for_the_push_of_a_stranger_no_memory_is_taken() {
    let (notebook, mut client) = start().await;
    let mut of_a_stranger = push();
    of_a_stranger.member.worker = STRANGER;
    let whole = gradients(&[b"sixteen bytes..."]);
    let pushed = client.push(of_a_stranger, whole, Then::Pull).await.unwrap();
    assert_eq!((pushed.verdict, pushed.next), (Verdict::Unregistered, None));
    assert_eq!(notebook.taken.load(Ordering::Relaxed), 0);
    hand_in(&mut client, &[b"sixteen bytes..."]).await.unwrap();
    assert_eq!(notebook.taken.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_push_has_one_sender() {
    let (notebook, mut client) = start().await;
    let mut of_another = push().member;
    of_another.worker = WorkerId(1);
    let refused = half(&client, of_another).push(&mut client, push()).await;
    assert!(
        matches!(refused, Err(ClientError::Refused { reason }) if reason.contains("two workers"))
    );
    assert!(notebook.gradients().is_empty());
}

#[tokio::test]
async fn half_pushes_of_a_worker_are_limited() {
    let (notebook, mut client) = start().await;
    let halves = [(); 2].map(|()| half(&client, push().member));
    while notebook.taken.load(Ordering::Relaxed) < halves.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let whole: &[&[u8]] = &[b"sixteen bytes..."];
    let refused = hand_in(&mut client, whole).await.unwrap_err();
    assert!(refused.is_transient(), "{refused}");
    drop(halves);
    // What was begun is forgotten a moment later.
    let again = async {
        while hand_in(&mut client, whole).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}
