//! What a server has to do, in plain messages.

use pserver_run::{GlobalStep, RunConfig, Score};
use pserver_state::Values;
use tonic::Status as RpcStatus;

use crate::gradient_slot::Nonce;
use crate::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, LedgerPart,
    LedgerPosition, Member, Order, Pull, Push, Pushed, ReceivedGradients, Refusal, Registered,
    Registration, SharedMemory, Status, TowerSummary, Verdict,
};

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
