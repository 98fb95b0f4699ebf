//! The server's end: a trait of plain messages, and its adapter to the generated service.

use std::sync::Arc;

use cifar_params::{Layout, RunConfig};
use tonic::{Request, Response, Status as RpcStatus, Streaming};

use crate::client::REQUEST_TIMEOUT;
use crate::convert;
use crate::gradient_slot::Nonce;
use crate::messages::{
    Assignment, Attachment, Gradients, Member, PROTOCOL_VERSION, Pull, Push, Refusal, Registered,
    Registration, SharedMemory, Status, Verdict,
};
use crate::pb;
use crate::pb::parameter_server_server::{
    ParameterServer as GeneratedService, ParameterServerServer,
};
use crate::transport::max_message_bytes;

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

    /// Takes a gradient, whose size has been checked against the layout where it was sent.
    fn push(&self, push: Push) -> impl Future<Output = Result<Verdict, RequestError>> + Send;

    /// Notes a sign of life; false if the member is unknown.
    fn heartbeat(&self, member: Member) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// Ends a membership.
    fn leave(&self, member: Member) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// How the run stands.
    fn status(&self) -> impl Future<Output = Result<Status, RequestError>> + Send;
}

/// A request that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The one failure that a client should try again.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The request makes no sense in this run.
    #[error("{0}")]
    Invalid(String),
}

impl From<RequestError> for RpcStatus {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::ShuttingDown => RpcStatus::unavailable(error.to_string()),
            RequestError::Invalid(reason) => RpcStatus::invalid_argument(reason),
        }
    }
}

/// The tonic service of `server`, with the message limits of `layout`.
pub fn service<S: ParameterServer>(
    server: Arc<S>,
    layout: &Layout,
) -> ParameterServerServer<impl GeneratedService + use<S>> {
    let limit = max_message_bytes(layout);
    let adapter = Adapter {
        server,
        layout_fingerprint: layout.fingerprint(),
        gradient_bytes: layout.size_bytes(),
    };
    ParameterServerServer::new(adapter)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit)
}

struct Adapter<S> {
    server: Arc<S>,
    layout_fingerprint: u64,
    gradient_bytes: usize,
}

type Reply<T> = Result<Response<T>, RpcStatus>;

#[tonic::async_trait]
impl<S: ParameterServer> GeneratedService for Adapter<S> {
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

    async fn pull(&self, request: Request<pb::PullRequest>) -> Reply<pb::PullReply> {
        let pull = Pull::try_from(request.into_inner())?;
        Ok(Response::new(self.server.pull(pull).await?.into()))
    }

    async fn push(&self, request: Request<Streaming<pb::PushRequest>>) -> Reply<pb::PushReply> {
        let whole = tokio::time::timeout(REQUEST_TIMEOUT, self.collect(request.into_inner()));
        let push = whole.await.map_err(|_| {
            RpcStatus::deadline_exceeded("the last part of the gradients did not come in time")
        })??;
        Ok(Response::new(self.server.push(push).await?.into()))
    }

    async fn heartbeat(&self, request: Request<pb::HeartbeatRequest>) -> Reply<pb::HeartbeatReply> {
        let member = convert::member(request.into_inner().member)?;
        let registered = self.server.heartbeat(member).await?;
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

    /// All messages of a push as one. What is cut short is forgotten here.
    async fn collect(&self, mut messages: Streaming<pb::PushRequest>) -> Result<Push, RpcStatus> {
        let (mut parts, mut found) = (Vec::new(), 0);
        while let Some(message) = messages.message().await? {
            found += message.gradients.len();
            if message.member.is_some() {
                let push = convert::push(message, parts)?;
                let is_sent = matches!(push.gradients, Gradients::Sent(_));
                return match is_sent && found != self.gradient_bytes {
                    false => Ok(push),
                    true => Err(self.of_another_size(found)),
                };
            }
            // Parts of nothing could come for ever.
            if message.gradients.is_empty() || found > self.gradient_bytes {
                return Err(self.of_another_size(found));
            }
            parts.push(message.gradients);
        }
        Err(RpcStatus::invalid_argument("a push without its last part"))
    }

    fn of_another_size(&self, found: usize) -> RpcStatus {
        let expected = self.gradient_bytes;
        RpcStatus::invalid_argument(format!("gradients have {found} bytes, expected {expected}"))
    }
}

fn refused(refusal: Refusal) -> RpcStatus {
    RpcStatus::failed_precondition(refusal.to_string())
}
