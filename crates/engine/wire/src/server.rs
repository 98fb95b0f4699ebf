//! What a server has to do, in plain messages.

use std::sync::Arc;

use pserver_run::{GlobalStep, RunConfig, Score};
use pserver_state::Values;
use tonic::Status as RpcStatus;

use crate::gradient::Gradient;
use crate::gradient_slot::{Nonce, ServerSlot};
use crate::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, LedgerPart,
    LedgerPosition, Member, Order, Pull, Push, Pushed, Refusal, Registered, Registration,
    SharedMemory, Status, Then, TowerSummary, Verdict,
};

/// What a parameter server answers; of itself, that it is shutting down.
pub trait ParameterServer: Send + Sync + 'static {
    /// The configuration of the run.
    fn run(&self) -> impl Future<Output = Result<RunConfig, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Makes the caller a worker of the run, or says why it cannot be one.
    fn register(
        &self,
        _registration: Registration,
    ) -> impl Future<Output = Result<Result<Registered, Refusal>, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Offers memory to share with a worker.
    fn share_memory(
        &self,
        _member: Member,
    ) -> impl Future<Output = Result<SharedMemory, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// A worker has opened the memory that it was offered, as the nonce in it shows.
    fn attach(
        &self,
        _member: Member,
        _nonce: Nonce,
    ) -> impl Future<Output = Result<Attachment, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Gives a tower step, waiting a while for one.
    fn pull(&self, _pull: Pull) -> impl Future<Output = Result<Assignment, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// A push begins. `Err` is the answer to it, whatever is in it.
    fn land(&self, _member: Member) -> Result<Result<Landing, Verdict>, RequestError> {
        Err(RequestError::ShuttingDown)
    }

    /// Takes a gradient. If it counts and the worker pulls with it, gives the next tower step too, waiting a while for
    /// one.
    fn push(
        &self,
        _push: Push,
        _gradient: Gradient,
        _then: Then,
    ) -> impl Future<Output = Result<Pushed, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Takes what a worker alone knows of a tower step; false if nobody waits for it.
    fn summarize(
        &self,
        _member: Member,
        _summary: TowerSummary,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Takes a heartbeat; false if the member is unknown.
    fn heartbeat(
        &self,
        _member: Member,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Ends a membership.
    fn leave(&self, _member: Member) -> impl Future<Output = Result<(), RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// How the run stands.
    fn status(&self) -> impl Future<Output = Result<Status, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Takes the heartbeat of a follower.
    fn follower_heartbeat(
        &self,
        _follower: FollowerId,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Gives the newest checkpoint, waiting a while for one.
    fn checkpoint(
        &self,
        _request: CheckpointRequest,
    ) -> impl Future<Output = Result<CheckpointReply, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Whatever there is of the ledger from a place on, waiting a while for it; `None` if the run is over
    /// and there is no more.
    fn ledger(
        &self,
        _from: LedgerPosition,
    ) -> impl Future<Output = Result<Option<LedgerPart>, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Keeps a score.
    fn report_score(
        &self,
        _follower: FollowerId,
        _score: Score,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }

    /// Does what somebody says who runs the server; the step of the checkpoint that was written for it.
    fn administer(
        &self,
        _order: Order,
    ) -> impl Future<Output = Result<GlobalStep, RequestError>> + Send {
        async { Err(RequestError::ShuttingDown) }
    }
}

/// Where the gradients of a push go.
#[derive(Debug)]
pub struct Landing {
    /// Memory of the layout's size, with anything in it.
    pub memory: Values,
    /// The worker's slot, if it shares memory.
    pub slot: Option<Arc<ServerSlot>>,
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
