//! The client's end: each request with a deadline, plain messages in and out.
//!
//! A request is made once; who calls decides what to do about a failure, and
//! [`ClientError::is_transient`] says which are worth trying again.

use std::time::Duration;

use bytes::Bytes;
use cifar_params::{Layout, RunConfig};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::convert;
use crate::gradient_slot::Nonce;
use crate::messages::{
    Assignment, Attachment, Malformed, Member, Pull, Push, Registered, Registration, SharedMemory,
    Status, Verdict,
};
use crate::pb;
use crate::pb::parameter_server_client::ParameterServerClient;
use crate::transport::{self, BadAddress, max_message_bytes};

/// Longest time the server may hold a pull that it has no work for.
pub const PULL_HOLD: Duration = Duration::from_secs(5);

/// Longest wait for the answer to a request, besides the time the server may hold it.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to a parameter server.
#[derive(Clone, Debug)]
pub struct Client {
    inner: ParameterServerClient<Channel>,
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

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        let reason = status.message().to_owned();
        match status.code() {
            Code::FailedPrecondition | Code::InvalidArgument | Code::OutOfRange => {
                ClientError::Refused { reason }
            }
            Code::Unimplemented => ClientError::Protocol { reason },
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
    pub fn new(address: &str, layout: &Layout) -> Result<Self, BadAddress> {
        Ok(Client::over(transport::connect(address, layout)?, layout))
    }

    /// A client that speaks over `channel`, a connection of the caller's making.
    #[must_use]
    pub fn over(channel: Channel, layout: &Layout) -> Self {
        let limit = max_message_bytes(layout);
        let inner = ParameterServerClient::new(channel)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        Client { inner }
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
        Ok(convert::run(reply.into_inner().run)?)
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
        let request = within(PULL_HOLD + REQUEST_TIMEOUT, pull.into());
        Ok(self.inner.pull(request).await?.into_inner().try_into()?)
    }

    /// Hands in a gradient.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if it is none of the run's layout.
    pub async fn push(&mut self, push: Push) -> Result<Verdict, ClientError> {
        self.send(tokio_stream::iter(convert::push_messages(push)))
            .await
    }

    /// Sends the last part of some gradients ahead, while those before it are still computed.
    ///
    /// Belongs into a runtime, which sends it in the background.
    #[must_use]
    pub fn begin_push(&self, last_part: Bytes) -> PushUnderWay {
        // Room for both messages, so that nobody waits here.
        let (messages, stream) = mpsc::channel(2);
        let is_sent = messages.try_send(convert::push_part(last_part));
        debug_assert!(is_sent.is_ok(), "there is room, and somebody listens");
        let mut client = self.clone();
        let reply = tokio::spawn(async move { client.send(ReceiverStream::new(stream)).await });
        PushUnderWay { messages, reply }
    }

    async fn send(
        &mut self,
        messages: impl Stream<Item = pb::PushRequest> + Send + 'static,
    ) -> Result<Verdict, ClientError> {
        let request = within(REQUEST_TIMEOUT, messages);
        Ok(self.inner.push(request).await?.into_inner().try_into()?)
    }

    /// Gives a sign of life; false if the server does not know the member.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as all requests.
    pub async fn heartbeat(&mut self, member: Member) -> Result<bool, ClientError> {
        let request = within(
            REQUEST_TIMEOUT,
            pb::HeartbeatRequest {
                member: Some(member.into()),
            },
        );
        Ok(self.inner.heartbeat(request).await?.into_inner().registered)
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
        Ok(reply.into_inner().try_into()?)
    }
}

/// A push whose last part is on its way.
#[derive(Debug)]
pub struct PushUnderWay {
    messages: mpsc::Sender<pb::PushRequest>,
    reply: JoinHandle<Result<Verdict, ClientError>>,
}

impl PushUnderWay {
    /// Sends the rest: `push` has the gradients but for the part that was sent ahead.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as [`Client::push`]; nothing of it counts then, and all may be pushed again.
    pub async fn finish(self, push: Push) -> Result<Verdict, ClientError> {
        for message in convert::push_messages(push) {
            // Where nobody listens any more, the reply tells why.
            let _ = self.messages.send(message).await;
        }
        drop(self.messages);
        let away = |error: JoinError| ClientError::Away {
            reason: error.to_string(),
        };
        self.reply.await.map_err(away)?
    }
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
