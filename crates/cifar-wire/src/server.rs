//! The server's end: a trait of plain messages, and its adapter to the generated service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cifar_params::{Layout, RunConfig, Score, Values};
use cifar_sequence::GlobalStep;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status as RpcStatus, Streaming};

use crate::claims::{Claims, UnderWay, name_of};
use crate::client::REQUEST_TIMEOUT;
use crate::convert::{self, Then};
use crate::follower;
use crate::gradient_slot::Nonce;
use crate::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, Gradients, LedgerPart,
    LedgerPosition, Member, Order, PROTOCOL_VERSION, Pull, Push, Pushed, ReceivedGradients,
    Refusal, Registered, Registration, SharedMemory, Status, TowerSummary, Variables, Verdict,
};
use crate::pb;
use crate::pb::parameter_server_server::{
    ParameterServer as GeneratedService, ParameterServerServer,
};
use crate::transport::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES};

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

    /// What there is to say to the pushes of somebody who is no worker of the run now, whatever is in them.
    fn turned_away(&self, member: Member) -> Option<Verdict>;

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

    /// Does what somebody says who runs the server; the step of the checkpoint that was written for it.
    fn administer(
        &self,
        order: Order,
    ) -> impl Future<Output = Result<GlobalStep, RequestError>> + Send;
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
        claims: Claims::default(),
    };
    ParameterServerServer::new(adapter)
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_ANSWER_BYTES)
}

struct Adapter<S> {
    server: Arc<S>,
    layout_fingerprint: u64,
    gradient_bytes: usize,
    following: Arc<Semaphore>,
    claims: Claims,
}

/// Ledgers that are being followed at a time.
const MAX_FOLLOWING: usize = 32;

type Reply<T> = Result<Response<T>, RpcStatus>;

/// Messages that are all there, and are encoded one by one as the connection takes them.
struct Replies<T> {
    messages: std::vec::IntoIter<T>,
    /// Counted as long as there is something to send.
    _under_way: Option<UnderWay<String>>,
}

impl<T: Unpin> Stream for Replies<T> {
    type Item = Result<T, RpcStatus>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.get_mut().messages.next().map(Ok))
    }
}

fn replies<T>(messages: Vec<T>, under_way: Option<UnderWay<String>>) -> Response<Replies<T>> {
    Response::new(Replies {
        messages: messages.into_iter(),
        _under_way: under_way,
    })
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
        let (_, extensions, request) = request.into_parts();
        let mut registration = Registration::try_from(request)?;
        self.check_release(&registration).map_err(refused)?;
        registration.name = name_of(&extensions, registration.name);
        let registered = self.server.register(registration).await?.map_err(refused)?;
        let is_member = |member| self.server.turned_away(member).is_none();
        self.claims
            .registered(registered.member, &extensions, is_member);
        Ok(Response::new(registered.into()))
    }

    async fn share_memory(
        &self,
        request: Request<pb::ShareMemoryRequest>,
    ) -> Reply<pb::ShareMemoryReply> {
        let member = self.member_of(request.extensions(), request.get_ref().member)?;
        Ok(Response::new(
            self.server.share_memory(member).await?.into(),
        ))
    }

    async fn attach(&self, request: Request<pb::AttachRequest>) -> Reply<pb::AttachReply> {
        let member = self.member_of(request.extensions(), request.get_ref().member)?;
        let nonce = convert::nonce(&request.get_ref().nonce)?;
        Ok(Response::new(
            self.server.attach(member, nonce).await?.into(),
        ))
    }

    async fn pull(&self, request: Request<pb::PullRequest>) -> Reply<Self::PullStream> {
        let (_, extensions, request) = request.into_parts();
        self.member_of(&extensions, request.member)?;
        let pull = Pull::try_from(request)?;
        let assignment = self.server.pull(pull).await?;
        let under_way = self.begin_assignment(&extensions, &assignment)?;
        Ok(replies(convert::pull_replies(assignment), under_way))
    }

    async fn push(&self, request: Request<Streaming<pb::PushRequest>>) -> Reply<Self::PushStream> {
        let (_, extensions, messages) = request.into_parts();
        let whole = tokio::time::timeout(REQUEST_TIMEOUT, self.collect(&extensions, messages));
        let whole = whole.await.map_err(|_| {
            RpcStatus::deadline_exceeded("the last part of the gradients did not come in time")
        })??;
        let (push, gradients, then) = match whole {
            Collected::Push(push, gradients, then) => (push, gradients, then),
            Collected::TurnedAway(verdict) => {
                let next = None;
                let turned_away = convert::push_replies(Pushed { verdict, next });
                return Ok(replies(turned_away, None));
            }
        };
        let Pushed { verdict, next } = match then {
            Then::Pull => self.server.push_and_pull(push, gradients).await?,
            Then::Nothing => Pushed {
                verdict: self.server.push(push, gradients).await?,
                next: None,
            },
        };
        // The verdict stands; a peer that may not have its next work now can pull it later.
        let begun = next.map(|next| (self.begin_assignment(&extensions, &next), next));
        let (next, under_way) = match begun {
            Some((Ok(under_way), next)) => (Some(next), under_way),
            _ => (None, None),
        };
        let pushed = Pushed { verdict, next };
        Ok(replies(convert::push_replies(pushed), under_way))
    }

    async fn summarize(&self, request: Request<pb::SummarizeRequest>) -> Reply<pb::SummarizeReply> {
        self.member_of(request.extensions(), request.get_ref().member)?;
        let (member, summary) = convert::summary(request.into_inner())?;
        let taken = self.server.summarize(member, summary).await?;
        Ok(Response::new(pb::SummarizeReply { taken }))
    }

    async fn heartbeat(&self, request: Request<pb::HeartbeatRequest>) -> Reply<pb::HeartbeatReply> {
        let registered = match request.get_ref().follower {
            Some(follower) => {
                let follower = FollowerId(follower);
                self.server.follower_heartbeat(follower).await?;
                true
            }
            None => {
                let member = self.member_of(request.extensions(), request.get_ref().member)?;
                self.server.heartbeat(member).await?
            }
        };
        Ok(Response::new(pb::HeartbeatReply { registered }))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Reply<pb::LeaveReply> {
        let member = self.member_of(request.extensions(), request.get_ref().member)?;
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
        let (_, extensions, request) = request.into_parts();
        let reply = self.server.checkpoint(request.into()).await?;
        let under_way = match &reply {
            CheckpointReply::Checkpoint { .. } => self.claims.begin_answer(&extensions)?,
            CheckpointReply::Wait | CheckpointReply::Goodbye(_) => None,
        };
        Ok(replies(follower::checkpoint_messages(reply), under_way))
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

    async fn save_checkpoint(
        &self,
        _: Request<pb::SaveCheckpointRequest>,
    ) -> Reply<pb::SaveCheckpointReply> {
        let GlobalStep(global_step) = self.server.administer(Order::SaveCheckpoint).await?;
        Ok(Response::new(pb::SaveCheckpointReply { global_step }))
    }

    async fn drain(&self, _: Request<pb::DrainRequest>) -> Reply<pb::DrainReply> {
        let GlobalStep(global_step) = self.server.administer(Order::Drain).await?;
        Ok(Response::new(pb::DrainReply { global_step }))
    }

    async fn stop(&self, _: Request<pb::StopRequest>) -> Reply<pb::StopReply> {
        let GlobalStep(global_step) = self.server.administer(Order::Stop).await?;
        Ok(Response::new(pb::StopReply { global_step }))
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

    /// The worker that a request names, if whoever asks may speak for it.
    fn member_of(
        &self,
        extensions: &Extensions,
        member: Option<pb::Member>,
    ) -> Result<Member, RpcStatus> {
        let member = convert::member(member)?;
        self.claims.check(member, extensions)?;
        Ok(member)
    }

    /// An answer with work begins, which counts if variables travel with it.
    fn begin_assignment(
        &self,
        extensions: &Extensions,
        assignment: &Assignment,
    ) -> Result<Option<UnderWay<String>>, RpcStatus> {
        match assignment {
            Assignment::Work(work) if matches!(work.variables, Variables::Sent(_)) => {
                self.claims.begin_answer(extensions)
            }
            _ => Ok(None),
        }
    }

    fn of_another_size(&self, found: usize) -> RpcStatus {
        let expected = self.gradient_bytes;
        RpcStatus::invalid_argument(format!("gradients have {found} bytes, expected {expected}"))
    }
}

impl<S: ParameterServer> Adapter<S> {
    /// All messages of a push as one. What is cut short is forgotten here, and for what comes from no
    /// worker of the run no memory is taken.
    async fn collect(
        &self,
        extensions: &Extensions,
        mut messages: Streaming<pb::PushRequest>,
    ) -> Result<Collected, RpcStatus> {
        let without_end = || RpcStatus::invalid_argument("a push without its last part");
        let mut message = messages.message().await?.ok_or_else(without_end)?;
        let sender = self.member_of(extensions, message.sender.or(message.member))?;
        let _under_way = self.claims.begin_push(sender)?;
        // Where nothing travels there is nothing to take memory for.
        let turned_away = match message.gradients.is_empty() {
            true => None,
            false => self.server.turned_away(sender),
        };
        let (mut gradients, mut found) = (None, 0);
        loop {
            let part = &message.gradients;
            found += part.len();
            if found > self.gradient_bytes {
                return Err(self.of_another_size(found));
            }
            if part.is_empty() && message.member.is_none() {
                // Parts of nothing could come for ever.
                return Err(self.of_another_size(found));
            }
            if !part.is_empty() && turned_away.is_none() {
                let all: &mut Values =
                    gradients.get_or_insert_with(|| self.server.gradient_memory());
                let from = self.gradient_bytes - found;
                all.as_bytes_mut()[from..][..part.len()].copy_from_slice(part);
            }
            if message.member.is_some() {
                break;
            }
            message = messages.message().await?.ok_or_else(without_end)?;
        }
        let (push, in_slot, then) = convert::push(&message)?;
        if push.member != sender {
            return Err(RpcStatus::invalid_argument("a push of two workers"));
        }
        if let Some(verdict) = turned_away {
            return Ok(Collected::TurnedAway(verdict));
        }
        let gradients = match (in_slot, gradients) {
            (Some(generation), None) => Gradients::InSlot(generation),
            (None, Some(all)) if found == self.gradient_bytes => Gradients::Sent(all),
            _ => return Err(self.of_another_size(found)),
        };
        Ok(Collected::Push(push, gradients, then))
    }
}

/// What came of the messages of a push.
enum Collected {
    Push(Push, ReceivedGradients, Then),
    /// This is the answer, whatever is in it.
    TurnedAway(Verdict),
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
