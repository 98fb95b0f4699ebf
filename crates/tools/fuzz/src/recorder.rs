//! A parameter server that notes what it is asked, and answers what it is told to.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use pserver_run::{GlobalStep, RunConfig, Score};
use pserver_state::Values;
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient::Gradient;
use pserver_wire::gradient_slot::{Generation, Nonce, ServerSlot, WorkerSlot};
use pserver_wire::messages::{
    Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, Gradients, LedgerPart,
    LedgerPosition, Member, Order, Pull, Push, Pushed, Refusal, Registered, Registration,
    SharedMemory, Status, Then, TowerSummary, Verdict,
};
use pserver_wire::server::{Landing, ParameterServer, RequestError};

use crate::layout::layout;

/// A request, as the server sees it.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Run,
    Register(Registration),
    ShareMemory(Member),
    Attach(Member, Nonce),
    Pull(Pull),
    /// With the gradients, wherever they were.
    Push(Push, Values, Then),
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

/// What the slot holds that every worker shares with the recorder.
pub(crate) const IN_SLOT: (Generation, [f32; 4]) = (Generation(3), [4.0, 3.0, 2.0, 1.0]);

#[derive(Debug)]
pub(crate) struct Recorder {
    asked: Mutex<Option<Asked>>,
    answer: Mutex<Option<Answer>>,
    slot: Arc<ServerSlot>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// # Errors
    ///
    /// If the system has no memory for a slot.
    pub(crate) fn new() -> io::Result<Self> {
        let (generation, gradients) = IN_SLOT;
        let slot = ServerSlot::create(gradients.len())?;
        slot.reserve()?;
        let mut worker =
            WorkerSlot::open(&slot.path(), gradients.len()).map_err(io::Error::other)?;
        while worker.write(&gradients) != generation {}
        Ok(Recorder {
            asked: Mutex::default(),
            answer: Mutex::default(),
            slot: Arc::new(slot),
        })
    }

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

    fn land(&self, _: Member) -> Result<Result<Landing, Verdict>, RequestError> {
        Ok(Ok(Landing {
            memory: Values::zeros(layout().num_values()),
            slot: Some(Arc::clone(&self.slot)),
        }))
    }

    async fn push(
        &self,
        push: Push,
        gradient: Gradient,
        then: Then,
    ) -> Result<Pushed, RequestError> {
        match self.note(Asked::Push(push, gradient.values, then)) {
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
            Asked::Push(push, values, then) => {
                let gradients = Gradients::Sent(vec![values.as_bytes().to_vec().into()]);
                client.push(push, gradients, then).await.map(drop)
            }
            Asked::Summarize(member, summary) => client.summarize(member, summary).await.map(drop),
            Asked::Heartbeat(member) => client.heartbeat(member).await.map(drop),
            Asked::Leave(member) => client.leave(member).await,
            Asked::Status => client.status().await.map(drop),
            Asked::FollowerHeartbeat(follower) => client.follower_heartbeat(follower).await,
            Asked::Checkpoint(request) => client.checkpoint(request).await.map(drop),
            Asked::Ledger(from) => client.follow(from).await?.next().await.map(drop),
            Asked::ReportScore(follower, score) => client.report_score(follower, &score).await,
            Asked::Administer(order) => client.administer(order).await.map(drop),
        }
    }
}
