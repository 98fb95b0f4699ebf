//! The client's end: each request with a deadline, plain messages in and out.
//!
//! A request is made once; who calls decides what to do about a failure, and
//! [`ClientError::is_transient`] says which are worth trying again.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use prost::Message;
use pserver_guard::Credentials;
use pserver_guard::connection::Refusal;
use pserver_run::request::PULL_HOLD;
use pserver_run::{GlobalStep, Layout, RunConfig, Score};
use pserver_state::Pool;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Request as HttpRequest;
use tonic::transport::Channel;
use tonic::{Code, Request, Status as RpcStatus, Streaming};

use crate::channel::SecureChannel;
use crate::convert;
use crate::follower;
use crate::framing::{self, Messages};
use crate::gradient_slot::Nonce;
use crate::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, Delivery, FollowerId, Gradients,
    LedgerPart, LedgerPosition, Malformed, Member, Order, Pull, Push, Pushed, Registered,
    Registration, SharedMemory, Status, Then, TowerSummary, Work,
};
use crate::method::{PULL, PUSH};
use crate::pb;
use crate::pb::parameter_server_client::ParameterServerClient;
use crate::transport::{self, BadAddress, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES};

/// Longest wait for the answer to a request, besides the time the server may hold it.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest wait for a server that is told to save, and perhaps to complete a step before.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(80);

/// A connection to a parameter server.
#[derive(Clone, Debug)]
pub struct Client {
    inner: ParameterServerClient<SecureChannel>,
    /// The same channel, for what carries tensors.
    channel: SecureChannel,
    num_values: usize,
    /// Where variables arrive.
    memory: Pool,
    max_checkpoint_bytes: usize,
}

/// A request that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer: the server is away, or shutting down.
    #[error("the server does not answer: {reason}")]
    Away {
        /// What the connection said.
        reason: String,
    },
    /// The server refused the request; asking again will get the same answer.
    #[error("{reason}")]
    Refused {
        /// The server's words.
        reason: String,
    },
    /// The server answered with something that is not of this protocol.
    #[error("the server's answer cannot be understood: {reason}")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, ClientError::Away { .. })
    }
}

impl From<RpcStatus> for ClientError {
    fn from(status: RpcStatus) -> Self {
        let reason = status.message().to_owned();
        match status.code() {
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::Unauthenticated
            | Code::PermissionDenied => ClientError::Refused { reason },
            Code::Unimplemented => ClientError::Refused {
                reason: "the server does not know this request: use programs of one release"
                    .to_owned(),
            },
            // The rest are failures of the connection, under many codes.
            code => ClientError::Away {
                reason: format!("{reason} ({code:?})"),
            },
        }
    }
}

impl From<Malformed> for ClientError {
    fn from(malformed: Malformed) -> Self {
        ClientError::Protocol {
            reason: malformed.to_string(),
        }
    }
}

impl Client {
    /// A client of the server at `address` (`HOST:PORT`). Connects at the first request, and anew
    /// after the connection is lost.
    ///
    /// # Errors
    ///
    /// [`BadAddress`] if the text is no address.
    pub fn new(
        address: &str,
        layout: &Layout,
        credentials: &Credentials,
    ) -> Result<Self, BadAddress> {
        let channel = transport::connect(address, layout, credentials)?;
        Ok(Client::with(channel, layout))
    }

    /// A client that speaks over `channel`, a connection of the caller's making, and shows nothing.
    #[must_use]
    pub fn over(channel: Channel, layout: &Layout) -> Self {
        let channel = SecureChannel::new(channel, Credentials::default(), Refusal::default());
        Client::with(channel, layout)
    }

    fn with(channel: SecureChannel, layout: &Layout) -> Self {
        let inner = ParameterServerClient::new(channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_REQUEST_BYTES);
        Client {
            inner,
            channel,
            num_values: layout.num_values(),
            memory: Pool::new(layout.num_values(), 1),
            max_checkpoint_bytes: transport::max_checkpoint_bytes(layout),
        }
    }

    /// The configuration of the run.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn run(&mut self) -> Result<RunConfig, ClientError> {
        let reply = self
            .inner
            .get_run(within(REQUEST_TIMEOUT, pb::GetRunRequest {}))
            .await?;
        Ok(convert::from_json("run", &reply.into_inner().run)?)
    }

    /// Becomes a worker of the run.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if the run cannot use this worker.
    pub async fn register(
        &mut self,
        registration: Registration,
    ) -> Result<Registered, ClientError> {
        let request = within(REQUEST_TIMEOUT, registration.into());
        Ok(self
            .inner
            .register(request)
            .await?
            .into_inner()
            .try_into()?)
    }

    /// Asks for memory to share with the server.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn share_memory(&mut self, member: Member) -> Result<SharedMemory, ClientError> {
        let request = pb::ShareMemoryRequest {
            member: Some(member.into()),
        };
        let reply = self
            .inner
            .share_memory(within(REQUEST_TIMEOUT, request))
            .await?;
        Ok(reply.into_inner().try_into()?)
    }

    /// Says that the memory is open, by the nonce that stands in it.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn attach(
        &mut self,
        member: Member,
        nonce: Nonce,
    ) -> Result<Attachment, ClientError> {
        let request = convert::attach_request(member, nonce);
        let reply = self.inner.attach(within(REQUEST_TIMEOUT, request)).await?;
        Ok(reply.into_inner().try_into()?)
    }

    /// Asks for a tower step; the server may hold the answer for [`PULL_HOLD`].
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn pull(&mut self, pull: Pull) -> Result<Assignment, ClientError> {
        let client = self.clone();
        beside_connection(client.receive_assignment(pull)).await
    }

    async fn receive_assignment(mut self, pull: Pull) -> Result<Assignment, ClientError> {
        let limit = PULL_HOLD + REQUEST_TIMEOUT;
        let messages = stream::iter([pb::PullRequest::from(pull)]);
        let answer = async {
            let replies = self.call(framing::request(PULL, limit, messages)).await?;
            let part_of = |part: pb::PullReply| Some(part.variables);
            let (first, variables) = self.receive(replies, part_of).await?;
            let mut assignment = convert::assignment(first)?;
            self.add_variables(Some(&mut assignment), variables)?;
            Ok(assignment)
        };
        in_time(limit, answer).await
    }

    /// Hands in a gradient; the server may hold the answer for [`PULL_HOLD`] if a pull comes [with it](Then::Pull).
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if it is none of the run's layout.
    pub async fn push(
        &mut self,
        push: Push,
        gradients: Gradients,
        then: Then,
    ) -> Result<Pushed, ClientError> {
        let messages = stream::iter(convert::push_messages(push, gradients, then));
        beside_connection(self.clone().send(messages)).await
    }

    /// Begins a push: parts of the gradients can be sent ahead, while those before them are still computed.
    ///
    /// Belongs into a runtime, which sends them in the background.
    pub(crate) fn begin_push(&self, member: Member) -> PushStream {
        // There are as many messages as a tensor fills, so that the channel needs no end.
        let (messages, stream) = mpsc::unbounded_channel();
        let stream = UnboundedReceiverStream::new(stream);
        PushStream {
            sender: Some(member),
            messages,
            reply: tokio::spawn(self.clone().send(stream)),
        }
    }

    async fn send(
        mut self,
        messages: impl Stream<Item = pb::PushRequest> + Send + 'static,
    ) -> Result<Pushed, ClientError> {
        let limit = PULL_HOLD + REQUEST_TIMEOUT;
        let answer = async {
            let replies = self.call(framing::request(PUSH, limit, messages)).await?;
            let part_of = |part: pb::PushReply| part.next.map(|part| part.variables);
            let (first, variables) = self.receive(replies, part_of).await?;
            let mut pushed = convert::pushed(first)?;
            self.add_variables(pushed.next.as_mut(), variables)?;
            Ok(pushed)
        };
        in_time(limit, answer).await
    }

    async fn call<M: Message + Default>(
        &mut self,
        request: HttpRequest<Body>,
    ) -> Result<Messages<M>, RpcStatus> {
        poll_fn(|context| self.channel.poll_ready(context)).await?;
        let answer = self.channel.call(request).await?;
        Messages::of_answer(answer, MAX_ANSWER_BYTES)
    }

    fn tensor_bytes(&self) -> usize {
        self.num_values * size_of::<f32>()
    }

    /// The first message of an answer, and the tensor in those after it.
    async fn receive<M: Message + Default>(
        &self,
        mut replies: Messages<M>,
        part_of: impl Fn(M) -> Option<Bytes>,
    ) -> Result<(M, Bytes), ClientError> {
        let first = replies.next().await?;
        let first = first.ok_or(Malformed::Missing("the answer"))?;
        let (mut tensor, mut found) = (None, 0);
        while let Some(message) = replies.next().await? {
            let part = part_of(message).unwrap_or_default();
            let begin = found;
            found += part.len();
            // Parts of nothing could come for ever.
            if part.is_empty() || found > self.tensor_bytes() {
                return Err(ClientError::from(self.of_another_size(found)));
            }
            let tensor = tensor.get_or_insert_with(|| self.memory.take());
            tensor.as_bytes_mut()[begin..found].copy_from_slice(&part);
        }
        let tensor = tensor.map(|tensor| Bytes::from_owner(tensor).slice(..found));
        Ok((first, tensor.unwrap_or_default()))
    }

    /// Puts the variables where the work says that they follow, all of them.
    fn add_variables(
        &self,
        assignment: Option<&mut Assignment>,
        sent: Bytes,
    ) -> Result<(), Malformed> {
        let follow = match assignment {
            Some(Assignment::Work(Work {
                variables: Delivery::Sent(variables),
                ..
            })) => Some(variables),
            _ => None,
        };
        match follow {
            Some(variables) if sent.len() == self.tensor_bytes() => *variables = sent,
            None if sent.is_empty() => {}
            Some(_) => return Err(self.of_another_size(sent.len())),
            None => {
                return Err(Malformed::Size {
                    field: "variables",
                    found: sent.len(),
                    expected: 0,
                });
            }
        }
        Ok(())
    }

    fn of_another_size(&self, found: usize) -> Malformed {
        Malformed::Size {
            field: "variables",
            found,
            expected: self.tensor_bytes(),
        }
    }

    /// Hands in what this worker alone knows of a tower step; false if nobody waits for it.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn summarize(
        &mut self,
        member: Member,
        summary: TowerSummary,
    ) -> Result<bool, ClientError> {
        let request = within(REQUEST_TIMEOUT, convert::summarize_request(member, summary));
        Ok(self.inner.summarize(request).await?.into_inner().taken)
    }

    /// Sends a heartbeat; false if the server does not know the member.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn heartbeat(&mut self, member: Member) -> Result<bool, ClientError> {
        let request = within(
            REQUEST_TIMEOUT,
            pb::HeartbeatRequest {
                member: Some(member.into()),
                follower: None,
            },
        );
        Ok(self.inner.heartbeat(request).await?.into_inner().registered)
    }

    /// Sends the heartbeat of a follower, which has a lease of [`FOLLOWER_LEASE`](pserver_run::member::FOLLOWER_LEASE).
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn follower_heartbeat(&mut self, follower: FollowerId) -> Result<(), ClientError> {
        let request = pb::HeartbeatRequest {
            member: None,
            follower: Some(follower.0),
        };
        self.inner
            .heartbeat(within(REQUEST_TIMEOUT, request))
            .await?;
        Ok(())
    }

    /// Asks for a newer checkpoint; the server may hold the answer for [`PULL_HOLD`].
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests; each part of the file has the deadline of a request.
    pub async fn checkpoint(
        &mut self,
        request: CheckpointRequest,
    ) -> Result<CheckpointReply, ClientError> {
        let request = within(PULL_HOLD + REQUEST_TIMEOUT, request.into());
        let mut messages = self.inner.get_checkpoint(request).await?.into_inner();
        let first = next_of(&mut messages)
            .await?
            .ok_or(Malformed::Missing("part"))?;
        let mut under_way = match follower::first_of_checkpoint(first, self.max_checkpoint_bytes)? {
            Ok(reply) => return Ok(reply),
            Err(under_way) => under_way,
        };
        while let Some(message) = next_of(&mut messages).await? {
            under_way.add(message)?;
        }
        Ok(under_way.finish()?)
    }

    /// Follows the ledger from a place on.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn follow(&mut self, from: LedgerPosition) -> Result<LedgerParts, ClientError> {
        let request = self.inner.follow(within(REQUEST_TIMEOUT, from.into()));
        let messages = request.await?.into_inner();
        Ok(LedgerParts { messages })
    }

    /// Tells the score of a checkpoint. To tell it twice is to tell it once.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if it is no score of this run.
    pub async fn report_score(
        &mut self,
        follower: FollowerId,
        score: &Score,
    ) -> Result<(), ClientError> {
        let request = pb::ReportScoreRequest {
            follower: follower.0,
            score: convert::to_json(score),
        };
        self.inner
            .report_score(within(REQUEST_TIMEOUT, request))
            .await?;
        Ok(())
    }

    /// Ends the membership.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn leave(&mut self, member: Member) -> Result<(), ClientError> {
        let request = within(
            REQUEST_TIMEOUT,
            pb::LeaveRequest {
                member: Some(member.into()),
            },
        );
        self.inner.leave(request).await?;
        Ok(())
    }

    /// Gives the server an order; the step of the checkpoint that it has written.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn administer(&mut self, order: Order) -> Result<GlobalStep, ClientError> {
        let request = within(ADMIN_TIMEOUT, order.into());
        let reply = self.inner.administer(request).await?;
        Ok(GlobalStep(reply.into_inner().global_step))
    }

    /// How the run stands.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        let reply = self
            .inner
            .get_status(within(REQUEST_TIMEOUT, pb::GetStatusRequest {}))
            .await?;
        Ok(convert::from_json("status", &reply.into_inner().status)?)
    }
}

/// A push that has begun.
#[derive(Debug)]
pub(crate) struct PushStream {
    /// Whom the first message names.
    sender: Option<Member>,
    messages: mpsc::UnboundedSender<pb::PushRequest>,
    reply: JoinHandle<Result<Pushed, ClientError>>,
}

impl PushStream {
    /// Sends a part of the gradients, which is that before the part that was sent last; the first is the last of all.
    pub(crate) fn send(&mut self, part: Bytes) {
        for message in convert::push_parts(self.sender.take(), vec![part]) {
            // Where nobody listens any more, the reply tells why.
            let _ = self.messages.send(message);
        }
    }

    /// Sends all parts that were not sent ahead, and with the last one all else that a push says.
    pub(crate) async fn finish(self, push: Push, rest: Vec<Bytes>) -> Result<Pushed, ClientError> {
        for message in convert::push_messages(push, Gradients::Sent(rest), Then::Pull) {
            // As above.
            let _ = self.messages.send(message);
        }
        drop(self.messages);
        self.reply.await.map_err(broken_off)?
    }
}

/// Waits for an answer on the runtime's own thread, where the connection is: from there to here parts of a tensor
/// would wake another thread each. A caller that gives up waiting ends it.
async fn beside_connection<T: Send + 'static>(
    answer: impl Future<Output = Result<T, ClientError>> + Send + 'static,
) -> Result<T, ClientError> {
    let mut answers = JoinSet::new();
    answers.spawn(answer);
    let answer = answers.join_next().await.expect("there is one");
    answer.map_err(broken_off)?
}

fn broken_off(error: JoinError) -> ClientError {
    ClientError::Away {
        reason: error.to_string(),
    }
}

/// An answer, to its last message, or the failure of a server that takes too long.
async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let late = |_| ClientError::Away {
        reason: format!("no answer within {} s", limit.as_secs()),
    };
    tokio::time::timeout(limit, answer).await.map_err(late)?
}

/// A ledger that is followed.
#[derive(Debug)]
pub struct LedgerParts {
    messages: Streaming<pb::FollowReply>,
}

impl LedgerParts {
    /// The next part; `None` when the run is over and all has come.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests: a server that has nothing new says so every few seconds.
    pub async fn next(&mut self) -> Result<Option<LedgerPart>, ClientError> {
        Ok(next_of(&mut self.messages).await?.map(Into::into))
    }
}

/// The next message of a stream, within the deadline of a request.
async fn next_of<T>(messages: &mut Streaming<T>) -> Result<Option<T>, ClientError> {
    let message = async { Ok(messages.message().await?) };
    in_time(REQUEST_TIMEOUT, message).await
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

#[cfg(test)]
mod tests {
    use pserver_run::{GlobalStep, Initializer, StateDigest, Tower, TowerStep, VariableSpec};

    use super::*;

    fn work(variables: Delivery) -> Assignment {
        Assignment::Work(Work {
            tower_step: TowerStep {
                global_step: GlobalStep(1),
                tower: Tower(0),
            },
            state_digest: StateDigest(1),
            variables,
            attempt: 0,
            summary_step: None,
        })
    }

    #[tokio::test]
    async fn variables_that_follow_are_all_of_them_and_none_come_unasked() {
        let four_numbers = Layout::new(vec![VariableSpec {
            name: "a".to_owned(),
            shape: vec![4],
            initializer: Initializer::Constant(0.0),
        }]);
        let unencrypted = Credentials::default();
        let client = Client::new("127.0.0.1:1", &four_numbers, &unencrypted).unwrap();
        let added = |variables, sent: &'static [u8]| {
            let mut work = work(variables);
            let sent = Bytes::from_static(sent);
            client
                .add_variables(Some(&mut work), sent)
                .map(|()| work)
                .map_err(|malformed| malformed.to_string())
        };
        let sent = b"sixteen bytes...".as_slice();
        let follow = || Delivery::Sent(Bytes::new());
        let all = Delivery::Sent(Bytes::from_static(sent));
        assert_eq!(added(follow(), sent), Ok(work(all)));
        assert_eq!(added(Delivery::Held, b""), Ok(work(Delivery::Held)));
        let refused = |found, expected| {
            let reason = format!("variables has {found} bytes, expected {expected}");
            Err::<Assignment, _>(reason)
        };
        assert_eq!(added(follow(), b""), refused(0, 16));
        assert_eq!(added(follow(), &sent[..4]), refused(4, 16));
        assert_eq!(added(Delivery::Held, sent), refused(16, 0));
    }
}
