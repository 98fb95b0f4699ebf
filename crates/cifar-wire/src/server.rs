//! The server's end: a trait of plain messages, and its adapter to the generated service.

use std::sync::Arc;

use cifar_params::{Layout, RunConfig, Score, Values};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status as RpcStatus, Streaming};

use crate::client::REQUEST_TIMEOUT;
use crate::convert::{self, Then};
use crate::follower;
use crate::gradient_slot::Nonce;
use crate::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, Gradients, LedgerPart,
    LedgerPosition, Member, PROTOCOL_VERSION, Pull, Push, Pushed, ReceivedGradients, Refusal,
    Registered, Registration, SharedMemory, Status, TowerSummary, Verdict,
};
use crate::pb;
use crate::pb::parameter_server_server::{
    ParameterServer as GeneratedService, ParameterServerServer,
};
use crate::transport::MAX_MESSAGE_BYTES;

/// What a parameter server answers.
pub trait ParameterServer: Send + Sync + 'static {
    /// The configuration of the run.
    fn run(&self) -> impl Future<Output = Result<RunConfig, RequestError>> + Send;

    /// Makes the caller a worker of the run, or says why it cannot be one.
    fn register(
        &self,
        registration: Registration,
    ) -> impl Future<Output = Result<Result<Registered, Refusal>, RequestError>> + Send;

    /// Offers memory to share with a worker.
    fn share_memory(
        &self,
        member: Member,
    ) -> impl Future<Output = Result<SharedMemory, RequestError>> + Send;

    /// A worker has opened the memory that it was offered, as the nonce in it shows.
    fn attach(
        &self,
        member: Member,
        nonce: Nonce,
    ) -> impl Future<Output = Result<Attachment, RequestError>> + Send;

    /// Gives a tower step, waiting a while for one.
    fn pull(&self, pull: Pull) -> impl Future<Output = Result<Assignment, RequestError>> + Send;

    /// Memory for the gradients of a push, of the layout's size, with anything in it.
    fn gradient_memory(&self) -> Values;

    /// Takes a gradient.
    fn push(
        &self,
        push: Push,
        gradients: ReceivedGradients,
    ) -> impl Future<Output = Result<Verdict, RequestError>> + Send;

    /// Takes a gradient and, if it counts, gives the next tower step, waiting a while for one.
    fn push_and_pull(
        &self,
        push: Push,
        gradients: ReceivedGradients,
    ) -> impl Future<Output = Result<Pushed, RequestError>> + Send;

    /// Takes what a worker alone knows of a tower step; false if nobody waits for it.
    fn summarize(
        &self,
        member: Member,
        summary: TowerSummary,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// Notes a sign of life; false if the member is unknown.
    fn heartbeat(&self, member: Member) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// Ends a membership.
    fn leave(&self, member: Member) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// How the run stands.
    fn status(&self) -> impl Future<Output = Result<Status, RequestError>> + Send;

    /// Notes a sign of life of a follower.
    fn follower_heartbeat(
        &self,
        follower: FollowerId,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// Gives the newest checkpoint, waiting a while for one.
    fn checkpoint(
        &self,
        request: CheckpointRequest,
    ) -> impl Future<Output = Result<CheckpointReply, RequestError>> + Send;

    /// Whatever there is of the ledger from a place on, waiting a while for it; `None` if the run is over
    /// and there is no more.
    fn ledger(
        &self,
        from: LedgerPosition,
    ) -> impl Future<Output = Result<Option<LedgerPart>, RequestError>> + Send;

    /// Keeps a score.
    fn report_score(
        &self,
        follower: FollowerId,
        score: Score,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;
}

/// A request that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A client should try again.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// A client should try again.
    #[error("{0}")]
    NotNow(String),
    /// The request makes no sense in this run.
    #[error("{0}")]
    Invalid(String),
}

impl From<RequestError> for RpcStatus {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::ShuttingDown | RequestError::NotNow(_) => {
                RpcStatus::unavailable(error.to_string())
            }
            RequestError::Invalid(reason) => RpcStatus::invalid_argument(reason),
        }
    }
}

/// The tonic service of `server`, with the message limits of `layout`.
pub fn service<S: ParameterServer>(
    server: Arc<S>,
    layout: &Layout,
) -> ParameterServerServer<impl GeneratedService + use<S>> {
    let adapter = Adapter {
        server,
        layout_fingerprint: layout.fingerprint(),
        gradient_bytes: layout.size_bytes(),
        following: Arc::new(Semaphore::new(MAX_FOLLOWING)),
    };
    ParameterServerServer::new(adapter)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

struct Adapter<S> {
    server: Arc<S>,
    layout_fingerprint: u64,
    gradient_bytes: usize,
    following: Arc<Semaphore>,
}

/// Ledgers that are being followed at a time.
const MAX_FOLLOWING: usize = 32;

type Reply<T> = Result<Response<T>, RpcStatus>;

/// Messages that are all there, and are encoded one by one as the connection takes them.
type Replies<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, RpcStatus>>>;

fn replies<T>(messages: Vec<T>) -> Response<Replies<T>> {
    let messages: Vec<_> = messages.into_iter().map(Ok).collect();
    Response::new(tokio_stream::iter(messages))
}

#[tonic::async_trait]
impl<S: ParameterServer> GeneratedService for Adapter<S> {
    type PullStream = Replies<pb::PullReply>;
    type PushStream = Replies<pb::PushReply>;
    type GetCheckpointStream = Replies<pb::GetCheckpointReply>;
    type FollowStream = ReceiverStream<Result<pb::FollowReply, RpcStatus>>;

    async fn get_run(&self, _: Request<pb::GetRunRequest>) -> Reply<pb::GetRunReply> {
        let run = self.server.run().await?;
        Ok(Response::new(pb::GetRunReply {
            run: Some(run.into()),
        }))
    }

    async fn register(&self, request: Request<pb::RegisterRequest>) -> Reply<pb::RegisterReply> {
        let registration = Registration::try_from(request.into_inner())?;
        self.check_release(&registration).map_err(refused)?;
        let registered = self.server.register(registration).await?.map_err(refused)?;
        Ok(Response::new(registered.into()))
    }

    async fn share_memory(
        &self,
        request: Request<pb::ShareMemoryRequest>,
    ) -> Reply<pb::ShareMemoryReply> {
        let member = convert::member(request.into_inner().member)?;
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

    async fn pull(&self, request: Request<pb::PullRequest>) -> Reply<Self::PullStream> {
        let pull = Pull::try_from(request.into_inner())?;
        let assignment = self.server.pull(pull).await?;
        Ok(replies(convert::pull_replies(assignment)))
    }

    async fn push(&self, request: Request<Streaming<pb::PushRequest>>) -> Reply<Self::PushStream> {
        let whole = tokio::time::timeout(REQUEST_TIMEOUT, self.collect(request.into_inner()));
        let (push, gradients, then) = whole.await.map_err(|_| {
            RpcStatus::deadline_exceeded("the last part of the gradients did not come in time")
        })??;
        let pushed = match then {
            Then::Pull => self.server.push_and_pull(push, gradients).await?,
            Then::Nothing => Pushed {
                verdict: self.server.push(push, gradients).await?,
                next: None,
            },
        };
        Ok(replies(convert::push_replies(pushed)))
    }

    async fn summarize(&self, request: Request<pb::SummarizeRequest>) -> Reply<pb::SummarizeReply> {
        let (member, summary) = convert::summary(request.into_inner())?;
        let taken = self.server.summarize(member, summary).await?;
        Ok(Response::new(pb::SummarizeReply { taken }))
    }

    async fn heartbeat(&self, request: Request<pb::HeartbeatRequest>) -> Reply<pb::HeartbeatReply> {
        let request = request.into_inner();
        let registered = match request.follower {
            Some(follower) => {
                let follower = FollowerId(follower);
                self.server.follower_heartbeat(follower).await?;
                true
            }
            None => {
                let member = convert::member(request.member)?;
                self.server.heartbeat(member).await?
            }
        };
        Ok(Response::new(pb::HeartbeatReply { registered }))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Reply<pb::LeaveReply> {
        let member = convert::member(request.into_inner().member)?;
        self.server.leave(member).await?;
        Ok(Response::new(pb::LeaveReply {}))
    }

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Reply<pb::GetStatusReply> {
        Ok(Response::new(self.server.status().await?.into()))
    }

    async fn get_checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Reply<Self::GetCheckpointStream> {
        let request = CheckpointRequest::from(request.into_inner());
        let reply = self.server.checkpoint(request).await?;
        Ok(replies(follower::checkpoint_messages(reply)))
    }

    async fn follow(&self, request: Request<pb::FollowRequest>) -> Reply<Self::FollowStream> {
        let from = LedgerPosition::from(request.into_inner());
        let permit = Arc::clone(&self.following).try_acquire_owned();
        let permit = permit.map_err(|_| {
            RpcStatus::unavailable(format!("{MAX_FOLLOWING} follow the ledger already"))
        })?;
        let (parts, stream) = mpsc::channel(1);
        tokio::spawn(send_ledger(Arc::clone(&self.server), from, parts, permit));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn report_score(
        &self,
        request: Request<pb::ReportScoreRequest>,
    ) -> Reply<pb::ReportScoreReply> {
        let request = request.into_inner();
        let follower = FollowerId(request.follower);
        let score = Score::try_from(request)?;
        self.server.report_score(follower, score).await?;
        Ok(Response::new(pb::ReportScoreReply {}))
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

    fn of_another_size(&self, found: usize) -> RpcStatus {
        let expected = self.gradient_bytes;
        RpcStatus::invalid_argument(format!("gradients have {found} bytes, expected {expected}"))
    }
}

impl<S: ParameterServer> Adapter<S> {
    /// All messages of a push as one. What is cut short is forgotten here.
    async fn collect(
        &self,
        mut messages: Streaming<pb::PushRequest>,
    ) -> Result<(Push, ReceivedGradients, Then), RpcStatus> {
        let (mut gradients, mut found) = (None, 0);
        while let Some(message) = messages.message().await? {
            let part = &message.gradients;
            found += part.len();
            if found > self.gradient_bytes {
                return Err(self.of_another_size(found));
            }
            if !part.is_empty() {
                let all: &mut Values =
                    gradients.get_or_insert_with(|| self.server.gradient_memory());
                let from = self.gradient_bytes - found;
                all.as_bytes_mut()[from..][..part.len()].copy_from_slice(part);
            } else if message.member.is_none() {
                // Parts of nothing could come for ever.
                return Err(self.of_another_size(found));
            }
            if message.member.is_some() {
                let (push, in_slot, then) = convert::push(&message)?;
                let gradients = match (in_slot, gradients) {
                    (Some(generation), None) => Gradients::InSlot(generation),
                    (None, Some(all)) if found == self.gradient_bytes => Gradients::Sent(all),
                    _ => return Err(self.of_another_size(found)),
                };
                return Ok((push, gradients, then));
            }
        }
        Err(RpcStatus::invalid_argument("a push without its last part"))
    }
}

/// Sends the ledger until it is over, the client is gone, or takes nothing for as long as a request may
/// take.
async fn send_ledger<S: ParameterServer>(
    server: Arc<S>,
    mut from: LedgerPosition,
    parts: mpsc::Sender<Result<pb::FollowReply, RpcStatus>>,
    _permit: OwnedSemaphorePermit,
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
    }
}

fn refused(refusal: Refusal) -> RpcStatus {
    RpcStatus::failed_precondition(refusal.to_string())
}
