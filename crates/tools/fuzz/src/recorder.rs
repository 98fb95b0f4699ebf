//! A parameter server that notes what it is asked, and answers what it is told to.

use std::sync::{Mutex, PoisonError};

use pserver_run::{GlobalStep, RunConfig, Score};
use pserver_state::Values;
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient_slot::Nonce;
use pserver_wire::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, Gradients,
    GradientsToSend, LedgerPart, LedgerPosition, Member, Order, Pull, Push, Pushed,
    ReceivedGradients, Refusal, Registered, Registration, SharedMemory, Status, TowerSummary,
    Verdict,
};
use pserver_wire::server::{ParameterServer, RequestError};

use crate::in_memory::layout;

/// A request, as the server sees it.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Run,
    Register(Registration),
    ShareMemory(Member),
    Attach(Member, Nonce),
    Pull(Pull),
    Push(Push, ReceivedGradients),
    PushAndPull(Push, ReceivedGradients),
    Summarize(Member, TowerSummary),
    Heartbeat(Member),
    Leave(Member),
    Status,
    FollowerHeartbeat(FollowerId),
    Checkpoint(CheckpointRequest),
    Ledger(LedgerPosition),
    ReportScore(FollowerId, Score),
    Administer(Order),
}

/// An answer, as the client sees it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Run(RunConfig),
    Registered(Registered),
    SharedMemory(SharedMemory),
    Attachment(Attachment),
    Assignment(Assignment),
    Pushed(Pushed),
    Checkpoint(CheckpointReply),
    LedgerPart(LedgerPart),
    Status(Status),
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    asked: Mutex<Option<Asked>>,
    answer: Mutex<Option<Answer>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// What was asked last.
    pub(crate) fn take(&self) -> Option<Asked> {
        lock(&self.asked).take()
    }

    /// Answers the next request so.
    pub(crate) fn answer(&self, answer: Answer) {
        *lock(&self.answer) = Some(answer);
    }

    fn note(&self, asked: Asked) -> Option<Answer> {
        *lock(&self.asked) = Some(asked);
        lock(&self.answer).take()
    }
}

/// What is said where no answer was given.
fn no_answer<T>() -> Result<T, RequestError> {
    Err(RequestError::NotNow("nothing".to_owned()))
}

impl ParameterServer for Recorder {
    async fn run(&self) -> Result<RunConfig, RequestError> {
        match self.note(Asked::Run) {
            Some(Answer::Run(run)) => Ok(run),
            _ => no_answer(),
        }
    }

    async fn register(
        &self,
        registration: Registration,
    ) -> Result<Result<Registered, Refusal>, RequestError> {
        match self.note(Asked::Register(registration)) {
            Some(Answer::Registered(registered)) => Ok(Ok(registered)),
            _ => no_answer(),
        }
    }

    async fn share_memory(&self, member: Member) -> Result<SharedMemory, RequestError> {
        match self.note(Asked::ShareMemory(member)) {
            Some(Answer::SharedMemory(memory)) => Ok(memory),
            _ => no_answer(),
        }
    }

    async fn attach(&self, member: Member, nonce: Nonce) -> Result<Attachment, RequestError> {
        match self.note(Asked::Attach(member, nonce)) {
            Some(Answer::Attachment(attachment)) => Ok(attachment),
            _ => no_answer(),
        }
    }

    async fn pull(&self, pull: Pull) -> Result<Assignment, RequestError> {
        match self.note(Asked::Pull(pull)) {
            Some(Answer::Assignment(assignment)) => Ok(assignment),
            _ => no_answer(),
        }
    }

    fn turned_away(&self, _: Member) -> Option<Verdict> {
        None
    }

    fn gradient_memory(&self) -> Values {
        Values::zeros(layout().num_values())
    }

    async fn push(
        &self,
        push: Push,
        gradients: ReceivedGradients,
    ) -> Result<Verdict, RequestError> {
        self.note(Asked::Push(push, gradients));
        no_answer()
    }

    async fn push_and_pull(
        &self,
        push: Push,
        gradients: ReceivedGradients,
    ) -> Result<Pushed, RequestError> {
        match self.note(Asked::PushAndPull(push, gradients)) {
            Some(Answer::Pushed(pushed)) => Ok(pushed),
            _ => no_answer(),
        }
    }

    async fn summarize(&self, member: Member, summary: TowerSummary) -> Result<bool, RequestError> {
        self.note(Asked::Summarize(member, summary));
        no_answer()
    }

    async fn heartbeat(&self, member: Member) -> Result<bool, RequestError> {
        self.note(Asked::Heartbeat(member));
        no_answer()
    }

    async fn leave(&self, member: Member) -> Result<(), RequestError> {
        self.note(Asked::Leave(member));
        no_answer()
    }

    async fn status(&self) -> Result<Status, RequestError> {
        match self.note(Asked::Status) {
            Some(Answer::Status(status)) => Ok(status),
            _ => no_answer(),
        }
    }

    async fn follower_heartbeat(&self, follower: FollowerId) -> Result<(), RequestError> {
        self.note(Asked::FollowerHeartbeat(follower));
        no_answer()
    }

    async fn checkpoint(
        &self,
        request: CheckpointRequest,
    ) -> Result<CheckpointReply, RequestError> {
        match self.note(Asked::Checkpoint(request)) {
            Some(Answer::Checkpoint(reply)) => Ok(reply),
            _ => no_answer(),
        }
    }

    async fn ledger(&self, from: LedgerPosition) -> Result<Option<LedgerPart>, RequestError> {
        match self.note(Asked::Ledger(from)) {
            Some(Answer::LedgerPart(part)) => Ok(Some(part)),
            _ => no_answer(),
        }
    }

    async fn report_score(&self, follower: FollowerId, score: Score) -> Result<(), RequestError> {
        self.note(Asked::ReportScore(follower, score));
        no_answer()
    }

    async fn administer(&self, order: Order) -> Result<GlobalStep, RequestError> {
        self.note(Asked::Administer(order));
        no_answer()
    }
}

impl Asked {
    /// Asks the same by a client; the answer is of no interest.
    pub(crate) async fn ask(self, client: &mut Client) -> Result<(), ClientError> {
        match self {
            Asked::Run => client.run().await.map(drop),
            Asked::Register(registration) => client.register(registration).await.map(drop),
            Asked::ShareMemory(member) => client.share_memory(member).await.map(drop),
            Asked::Attach(member, nonce) => client.attach(member, nonce).await.map(drop),
            Asked::Pull(pull) => client.pull(pull).await.map(drop),
            Asked::Push(push, gradients) => client.push(push, to_send(gradients)).await.map(drop),
            Asked::PushAndPull(push, gradients) => {
                let pushed = client.push_and_pull(push, to_send(gradients));
                pushed.await.map(drop)
            }
            Asked::Summarize(member, summary) => client.summarize(member, summary).await.map(drop),
            Asked::Heartbeat(member) => client.heartbeat(member).await.map(drop),
            Asked::Leave(member) => client.leave(member).await,
            Asked::Status => client.status().await.map(drop),
            Asked::FollowerHeartbeat(follower) => client.follower_heartbeat(follower).await,
            Asked::Checkpoint(request) => client.checkpoint(request).await.map(drop),
            Asked::Ledger(from) => client.follow(from).await?.next().await.map(drop),
            Asked::ReportScore(follower, score) => client.report_score(follower, &score).await,
            Asked::Administer(Order::SaveCheckpoint) => client.save_checkpoint().await.map(drop),
            Asked::Administer(Order::Drain) => client.drain().await.map(drop),
            Asked::Administer(Order::Stop) => client.stop().await.map(drop),
        }
    }
}

/// Gradients that were received, to be sent on.
fn to_send(gradients: ReceivedGradients) -> GradientsToSend {
    match gradients {
        Gradients::Sent(values) => Gradients::Sent(vec![values.as_bytes().to_vec().into()]),
        Gradients::InSlot(generation) => Gradients::InSlot(generation),
    }
}
