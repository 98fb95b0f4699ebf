//! A [`ParameterServer`] behind the generated service, which is a matter of messages only, and
//! behind the [`TensorRoutes`] that go around it.

use std::sync::Arc;
use std::time::Duration;

use pserver_guard::admission::Peer;
use pserver_run::{GlobalStep, Layout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status as RpcStatus};

use crate::client::REQUEST_TIMEOUT;
use crate::convert;
use crate::follower;
use crate::in_flight::{InFlight, UnderWay, name_of};
use crate::messages::{
    CheckpointReply, FollowerId, LedgerPosition, Order, PROTOCOL_VERSION, Refusal, Registration,
};
use crate::pb;
use crate::pb::parameter_server_server::{
    ParameterServer as GeneratedService, ParameterServerServer,
};
use crate::server::ParameterServer;
use crate::tensor_routes::TensorRoutes;
use crate::transport::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES};
use crate::unread::Unread;

/// The tonic service of `server`, for the variables of `layout`.
pub fn service<S: ParameterServer>(
    server: Arc<S>,
    layout: &Layout,
) -> TensorRoutes<S, ParameterServerServer<impl GeneratedService + use<S>>> {
    let in_flight = Arc::new(InFlight::default());
    let adapter = Adapter {
        server: Arc::clone(&server),
        layout_fingerprint: layout.fingerprint(),
        following: Arc::new(Semaphore::new(MAX_FOLLOWING)),
        in_flight: Arc::clone(&in_flight),
    };
    let others = ParameterServerServer::new(adapter)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES);
    TensorRoutes::new(server, layout, in_flight, others)
}

struct Adapter<S> {
    server: Arc<S>,
    layout_fingerprint: u64,
    following: Arc<Semaphore>,
    in_flight: Arc<InFlight>,
}

/// Ledgers that are being followed at a time.
const MAX_FOLLOWING: usize = 32;

/// A long ledger is read at 50 MB a second at most, so that a run has the rest of the server's time.
const PAUSE_BETWEEN_PARTS: Duration = Duration::from_millis(5);

type Reply<T> = Result<Response<T>, RpcStatus>;

#[tonic::async_trait]
impl<S: ParameterServer> GeneratedService for Adapter<S> {
    type GetCheckpointStream = Unread<pb::GetCheckpointReply>;
    type FollowStream = ReceiverStream<Result<pb::FollowReply, RpcStatus>>;

    async fn get_run(&self, _: Request<pb::GetRunRequest>) -> Reply<pb::GetRunReply> {
        let run = self.server.run().await?;
        Ok(Response::new(pb::GetRunReply {
            run: convert::to_json(&run),
        }))
    }

    async fn register(&self, request: Request<pb::RegisterRequest>) -> Reply<pb::RegisterReply> {
        let (_, extensions, request) = request.into_parts();
        let mut registration = Registration::try_from(request)?;
        self.check_release(&registration).map_err(refused)?;
        registration.name = name_of(&extensions, registration.name);
        let registered = self.server.register(registration).await?.map_err(refused)?;
        note_worker(&extensions);
        Ok(Response::new(registered.into()))
    }

    async fn share_memory(
        &self,
        request: Request<pb::ShareMemoryRequest>,
    ) -> Reply<pb::ShareMemoryReply> {
        let request = request.into_inner();
        let member = convert::member(request.member)?;
        Ok(Response::new(
            self.server.share_memory(member).await?.into(),
        ))
    }

    async fn attach(&self, request: Request<pb::AttachRequest>) -> Reply<pb::AttachReply> {
        let request = request.into_inner();
        let member = convert::member(request.member)?;
        let nonce = convert::nonce(&request.nonce)?;
        Ok(Response::new(
            self.server.attach(member, nonce).await?.into(),
        ))
    }

    async fn summarize(&self, request: Request<pb::SummarizeRequest>) -> Reply<pb::SummarizeReply> {
        let (member, summary) = convert::summary(request.into_inner())?;
        let taken = self.server.summarize(member, summary).await?;
        Ok(Response::new(pb::SummarizeReply { taken }))
    }

    async fn heartbeat(&self, request: Request<pb::HeartbeatRequest>) -> Reply<pb::HeartbeatReply> {
        let (_, extensions, request) = request.into_parts();
        let registered = match request.follower {
            Some(follower) => {
                let follower = FollowerId(follower);
                self.server.follower_heartbeat(follower).await?;
                true
            }
            None => {
                let member = convert::member(request.member)?;
                let registered = self.server.heartbeat(member).await?;
                if registered {
                    note_worker(&extensions);
                }
                registered
            }
        };
        Ok(Response::new(pb::HeartbeatReply { registered }))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Reply<pb::LeaveReply> {
        let request = request.into_inner();
        let member = convert::member(request.member)?;
        self.server.leave(member).await?;
        Ok(Response::new(pb::LeaveReply {}))
    }

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Reply<pb::GetStatusReply> {
        let status = convert::to_json(&self.server.status().await?);
        Ok(Response::new(pb::GetStatusReply { status }))
    }

    async fn get_checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Reply<Self::GetCheckpointStream> {
        let (_, extensions, request) = request.into_parts();
        let reply = self.server.checkpoint(request.into()).await?;
        let under_way = match &reply {
            CheckpointReply::Checkpoint { file, .. } => {
                self.in_flight.begin_checkpoint(&extensions, file.len())?
            }
            CheckpointReply::Wait | CheckpointReply::Goodbye(_) => None,
        };
        let messages = follower::checkpoint_messages(reply);
        Ok(Response::new(Unread::new(messages, under_way)))
    }

    async fn follow(&self, request: Request<pb::FollowRequest>) -> Reply<Self::FollowStream> {
        let (_, extensions, request) = request.into_parts();
        let from = LedgerPosition::from(request);
        let following = self.in_flight.begin_following(&extensions)?;
        let permit = Arc::clone(&self.following).try_acquire_owned();
        let permit = permit.map_err(|_| {
            RpcStatus::unavailable(format!("{MAX_FOLLOWING} follow the ledger already"))
        })?;
        let (parts, stream) = mpsc::channel(1);
        let counted = (permit, following);
        tokio::spawn(send_ledger(Arc::clone(&self.server), from, parts, counted));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report_score(
        &self,
        request: Request<pb::ReportScoreRequest>,
    ) -> Reply<pb::ReportScoreReply> {
        let request = request.into_inner();
        let follower = FollowerId(request.follower);
        let score = convert::from_json("score", &request.score)?;
        self.server.report_score(follower, score).await?;
        Ok(Response::new(pb::ReportScoreReply {}))
    }

    async fn administer(
        &self,
        request: Request<pb::AdministerRequest>,
    ) -> Reply<pb::AdministerReply> {
        let order = Order::try_from(request.into_inner())?;
        let GlobalStep(global_step) = self.server.administer(order).await?;
        Ok(Response::new(pb::AdministerReply { global_step }))
    }
}

impl<S> Adapter<S> {
    fn check_release(&self, registration: &Registration) -> Result<(), Refusal> {
        if registration.protocol_version != PROTOCOL_VERSION {
            let worker = registration.protocol_version;
            return Err(Refusal::Protocol {
                worker,
                server: PROTOCOL_VERSION,
            });
        }
        if registration.layout_fingerprint != self.layout_fingerprint {
            return Err(Refusal::Layout);
        }
        Ok(())
    }
}

/// Sends the ledger until it is over, the client is gone, or takes nothing for as long as a request may
/// take.
async fn send_ledger<S: ParameterServer>(
    server: Arc<S>,
    mut from: LedgerPosition,
    parts: mpsc::Sender<Result<pb::FollowReply, RpcStatus>>,
    _counted: (OwnedSemaphorePermit, Option<UnderWay<String>>),
) {
    loop {
        let part = tokio::select! {
            part = server.ledger(from) => part,
            () = parts.closed() => return,
        };
        let part = match part {
            Ok(None) => return,
            Ok(Some(part)) => {
                from = part.end();
                Ok(part.into())
            }
            Err(error) => Err(error.into()),
        };
        let is_last = part.is_err();
        let sent = tokio::time::timeout(REQUEST_TIMEOUT, parts.send(part)).await;
        if is_last || !matches!(sent, Ok(Ok(()))) {
            return;
        }
        tokio::time::sleep(PAUSE_BETWEEN_PARTS).await;
    }
}

/// The connection of a request is a worker's: it showed the secret of one, or was just told one.
fn note_worker(extensions: &Extensions) {
    if let Some(peer) = extensions.get::<Peer>() {
        peer.is_a_workers();
    }
}

fn refused(refusal: Refusal) -> RpcStatus {
    RpcStatus::failed_precondition(refusal.to_string())
}
