//! A push in parts, over a socket: the server sees all of it, or nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a test without a socket of its own fails"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pserver_guard::Credentials;
use pserver_run::{
    GlobalStep, Initializer, Layout, RunConfig, Score, StateDigest, Tower, TowerStep, VariableSpec,
};
use pserver_state::Values;
use pserver_wire::client::{Client, ClientError, PushStream};
use pserver_wire::gradient_slot::Nonce;
use pserver_wire::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, Gradients,
    GradientsToSend, LedgerPart, LedgerPosition, Losses, Member, Order, Pull, Push, Pushed,
    ReceivedGradients, Refusal, Registered, Registration, SECRET_BYTES, Secret, SharedMemory,
    Status, TowerSummary, Verdict, WorkerId,
};
use pserver_wire::server::{ParameterServer, RequestError};
use pserver_wire::service::service;
use pserver_wire::transport::{incoming, server_builder};
use tokio::net::TcpListener;

/// Long enough for anything that is on its way over the loopback interface.
const PATIENCE: Duration = Duration::from_secs(20);

/// Four numbers: 16 bytes.
fn layout() -> Layout {
    Layout::new(vec![VariableSpec {
        name: "a".to_owned(),
        shape: vec![4],
        initializer: Initializer::Constant(0.0),
        weight_decay: None,
    }])
}

/// Notes what is pushed.
#[derive(Debug, Default)]
struct Recorder {
    pushes: Mutex<Vec<Values>>,
    /// How often memory was taken.
    taken: AtomicUsize,
}

/// A worker that the server does not know.
const STRANGER: WorkerId = WorkerId(9);

impl Recorder {
    fn gradients(&self) -> Vec<Vec<u8>> {
        let pushes = self.pushes.lock().unwrap();
        pushes.iter().map(|push| push.as_bytes().to_vec()).collect()
    }
}

impl ParameterServer for Recorder {
    async fn run(&self) -> Result<RunConfig, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn register(&self, _: Registration) -> Result<Result<Registered, Refusal>, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn share_memory(&self, _: Member) -> Result<SharedMemory, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn attach(&self, _: Member, _: Nonce) -> Result<Attachment, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn pull(&self, _: Pull) -> Result<Assignment, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    fn turned_away(&self, member: Member) -> Option<Verdict> {
        (member.worker == STRANGER).then_some(Verdict::Unregistered)
    }

    fn gradient_memory(&self) -> Values {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Values::zeros(layout().num_values())
    }

    async fn push(&self, _: Push, gradients: ReceivedGradients) -> Result<Verdict, RequestError> {
        match gradients {
            Gradients::Sent(gradients) => self.pushes.lock().unwrap().push(gradients),
            Gradients::InSlot(_) => panic!("there is no slot"),
        }
        Ok(Verdict::Accepted)
    }

    async fn push_and_pull(
        &self,
        push: Push,
        gradients: ReceivedGradients,
    ) -> Result<Pushed, RequestError> {
        self.push(push, gradients).await.map(|_| accepted())
    }

    async fn summarize(&self, _: Member, _: TowerSummary) -> Result<bool, RequestError> {
        Ok(false)
    }

    async fn heartbeat(&self, _: Member) -> Result<bool, RequestError> {
        Ok(true)
    }

    async fn leave(&self, _: Member) -> Result<(), RequestError> {
        Ok(())
    }

    async fn status(&self) -> Result<Status, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn follower_heartbeat(&self, _: FollowerId) -> Result<(), RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn checkpoint(&self, _: CheckpointRequest) -> Result<CheckpointReply, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn ledger(&self, _: LedgerPosition) -> Result<Option<LedgerPart>, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn report_score(&self, _: FollowerId, _: Score) -> Result<(), RequestError> {
        Err(RequestError::ShuttingDown)
    }

    async fn administer(&self, _: Order) -> Result<GlobalStep, RequestError> {
        Err(RequestError::ShuttingDown)
    }
}

async fn start() -> (Arc<Recorder>, Client) {
    let recorder = Arc::new(Recorder::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server_builder(&layout())
        .add_service(service(Arc::clone(&recorder), &layout()))
        .serve_with_incoming(incoming(listener));
    tokio::spawn(server);
    (
        recorder,
        Client::new(&address, &layout(), &Credentials::default()).unwrap(),
    )
}

fn gradients(parts: &[&'static [u8]]) -> GradientsToSend {
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

fn accepted() -> Pushed {
    Pushed {
        verdict: Verdict::Accepted,
        next: Some(Assignment::Wait),
    }
}

/// Begins a push with its last part.
fn begin(client: &Client, sender: Member, last_part: &'static [u8]) -> PushStream {
    let mut stream = client.begin_push(sender);
    stream.send(Bytes::from_static(last_part));
    stream
}

#[tokio::test]
async fn parts_arrive_as_one_push_in_the_layouts_order() {
    let (recorder, mut client) = start().await;
    let under_way = begin(&client, push().member, b"head, 12 by.");
    let verdict =
        tokio::time::timeout(PATIENCE, under_way.finish(push(), gradients(&[b"4 b."]))).await;
    assert_eq!(verdict.unwrap().unwrap(), accepted());
    let parts = gradients(&[b"4 b.", b"head, ", b"12 by."]);
    let whole = client.push(push(), parts).await;
    assert_eq!(whole.unwrap(), Verdict::Accepted);
    let one = gradients(&[b"4 b.head, 12 by."]);
    let whole = client.push_and_pull(push(), one).await;
    assert_eq!(whole.unwrap(), accepted());
    assert_eq!(recorder.gradients(), [b"4 b.head, 12 by."; 3]);
}

#[tokio::test]
async fn a_push_that_is_cut_short_is_never_seen() {
    let (recorder, mut client) = start().await;
    drop(begin(&client, push().member, b"head, 12 by."));
    // What comes after it on the same connection is answered, so it has been dealt with.
    let whole = gradients(&[b"sixteen bytes..."]);
    client.push(push(), whole).await.unwrap();
    assert_eq!(recorder.gradients(), [b"sixteen bytes..."]);
}

#[tokio::test]
async fn gradients_of_another_size_are_refused() {
    let (recorder, mut client) = start().await;
    for (ahead, rest) in [("head, 12 by.", "3 b"), ("much too long for it", "4 b.")] {
        let under_way = begin(&client, push().member, ahead.as_bytes());
        let verdict = under_way
            .finish(push(), gradients(&[rest.as_bytes()]))
            .await;
        assert!(
            matches!(verdict, Err(ClientError::Refused { .. })),
            "{verdict:?}"
        );
    }
    // Parts of nothing could come for ever.
    for parts in [[&b""[..], b"sixteen bytes..."], [b"sixteen bytes...", b""]] {
        let verdict = client.push(push(), gradients(&parts)).await;
        assert_eq!(verdict.is_ok(), parts[0].is_empty());
    }
    assert_eq!(recorder.gradients().len(), 1);
}

#[tokio::test]
async fn for_the_push_of_a_stranger_no_memory_is_taken() {
    let (recorder, mut client) = start().await;
    let mut of_a_stranger = push();
    of_a_stranger.member.worker = STRANGER;
    let whole = gradients(&[b"sixteen bytes..."]);
    let verdict = client.push(of_a_stranger, whole.clone()).await;
    assert_eq!(verdict.unwrap(), Verdict::Unregistered);
    assert_eq!(recorder.taken.load(Ordering::Relaxed), 0);
    client.push(push(), whole).await.unwrap();
    assert_eq!(recorder.taken.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_push_has_one_sender() {
    let (recorder, client) = start().await;
    let mut of_another = push().member;
    of_another.worker = WorkerId(1);
    let under_way = begin(&client, of_another, b"head, 12 by.");
    let verdict = under_way.finish(push(), gradients(&[b"4 b."])).await;
    assert!(
        matches!(verdict, Err(ClientError::Refused { reason }) if reason.contains("two workers"))
    );
    assert!(recorder.gradients().is_empty());
}

#[tokio::test]
async fn half_pushes_of_a_worker_are_limited() {
    let (recorder, mut client) = start().await;
    let half = || begin(&client, push().member, b"head, 12 by.");
    let halves = [half(), half()];
    while recorder.taken.load(Ordering::Relaxed) < halves.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let whole = gradients(&[b"sixteen bytes..."]);
    let refused = client.push(push(), whole.clone()).await.unwrap_err();
    assert!(refused.is_transient(), "{refused}");
    drop(halves);
    // What was begun is forgotten a moment later.
    let again = async {
        while client.push(push(), whole.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}
