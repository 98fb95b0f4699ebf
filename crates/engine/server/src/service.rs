//! Answers the wire: a lock, a clock and a way to wait, around [`Training`] and the way that its
//! commits take.

use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pserver_guard::limits::max_workers;
use pserver_run::{EvalData, GlobalStep, Layout, RunConfig, Score};
use pserver_state::{Pool, Values};
use pserver_wire::client::PULL_HOLD;
use pserver_wire::gradient_slot::{Generation, Nonce};
use pserver_wire::messages::{
    self, Assignment, Attachment, CheckpointReply, CheckpointRequest, FollowerId, Goodbye,
    Gradients, LedgerPart, LedgerPosition, Member, Order, Pull, Push, Pushed as PushAnswer,
    ReceivedGradients, Refusal, Registered, Registration, Secret, Status, TowerSummary, Variables,
    Verdict,
};
use pserver_wire::server::{ParameterServer, RequestError};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::commit_path::{AtPoint, CommitPart, CommitPath, CommitPoint, KeepError};
use crate::event::{Event, EventQueue};
use crate::follower_files::{FollowerFiles, Kept};
use crate::gradient::Gradient;
use crate::shared_memory::SharedMemory;
use crate::training::{ForFollower, Phase, Pushed, Training};
use crate::update::Update;

/// How often somebody who follows the ledger gets what is new.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Orders that wait to be looked at.
const MAX_ORDERS: usize = 16;

/// How a program ends that panics.
const BUG: i32 = 101;

/// An order that is to be carried out.
#[derive(Debug)]
pub struct Commission {
    /// What is to be done.
    pub order: Order,
    /// Waits for the step of the checkpoint that is written for it.
    pub done: oneshot::Sender<GlobalStep>,
}

/// The run behind a lock, and a signal for whoever waits for it to change.
pub struct Service {
    guarded: Mutex<Guarded>,
    /// Wakes who waits in the order in which they came, so that a simulation can be repeated: a
    /// `watch` wakes them in a random order.
    changed: broadcast::Sender<()>,
    /// Wakes the followers that wait for a checkpoint, which is not at every step.
    for_followers: broadcast::Sender<()>,
    num_towers: u32,
    /// Memory of gradients that were applied, for those to come.
    gradients: Pool,
    at_point: AtPoint,
    follower_files: FollowerFiles,
    orders: mpsc::Sender<Commission>,
    orders_given: Mutex<Option<mpsc::Receiver<Commission>>>,
}

/// The run, the way into its files, and what is to be told of it.
#[derive(Debug)]
struct Guarded {
    training: Training,
    commit_path: CommitPath,
    shared_memory: SharedMemory,
    events: EventQueue,
    failure: Option<KeepError>,
    /// Something could not be kept: nothing more is given out or taken.
    has_failed: bool,
    /// The member whose push was the last of a step, until it is heard of again.
    answered: Option<(Member, GlobalStep)>,
}

impl Guarded {
    /// Keeps what happened in the ledger, and for the one who tells people.
    fn keep_events(&mut self) {
        let events = self.training.take_events();
        if !events.is_empty() {
            // Somebody may have left or been lost.
            let is_there = |worker| self.training.has_worker(worker);
            self.shared_memory.retain(is_there);
        }
        if let Err(error) = self.commit_path.happened(now(), &events) {
            self.fail(error);
        }
        for event in events {
            self.events.push(event);
        }
    }

    fn fail(&mut self, error: KeepError) {
        self.has_failed = true;
        self.failure.get_or_insert(error);
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("guarded", &self.guarded)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// A service for `training`, whose gradients are of `layout` and whose commits take
    /// `commit_path`. `at_point` is called at every point of every commit; followers get and give
    /// `follower_files`.
    #[must_use]
    pub fn new(
        training: Training,
        commit_path: CommitPath,
        layout: &Layout,
        at_point: AtPoint,
        follower_files: FollowerFiles,
    ) -> Self {
        // One is enough: to have missed changes is to see that there was one.
        let ((changed, _), (for_followers, _)) = (broadcast::channel(1), broadcast::channel(1));
        let (orders, orders_given) = mpsc::channel(MAX_ORDERS);
        let num_towers = training.run().num_towers;
        let most = training.run().gradients_per_update() as usize + 1;
        let guarded = Guarded {
            training,
            commit_path,
            shared_memory: SharedMemory::new(layout.num_values()),
            events: EventQueue::default(),
            failure: None,
            has_failed: false,
            answered: None,
        };
        Service {
            guarded: Mutex::new(guarded),
            changed,
            for_followers,
            num_towers,
            gradients: Pool::new(layout.num_values(), most),
            at_point,
            follower_files,
            orders,
            orders_given: Mutex::new(Some(orders_given)),
        }
    }

    /// The orders that come, for the one who carries them out; `None` if somebody has them already.
    pub fn orders(&self) -> Option<mpsc::Receiver<Commission>> {
        let mut orders = self.orders_given.lock();
        orders.as_mut().ok()?.take()
    }

    /// Why the newest state or record could not be kept, if so; the run must then not go on.
    pub fn take_failure(&self) -> Option<KeepError> {
        self.lock().failure.take()
    }

    /// What happened since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        let (events, left_out) = self.lock().events.take();
        if left_out > 0 {
            warn!(
                left_out,
                "some of what happened is not told: it came faster than it could be"
            );
        }
        events
    }

    /// Keeps in the ledger that a checkpoint was written.
    ///
    /// # Errors
    ///
    /// [`KeepError`] if that cannot be written.
    pub fn checkpoint_is_written(&self, global_step: GlobalStep) -> Result<(), KeepError> {
        self.lock().commit_path.checkpoint(now(), global_step)
    }

    /// Keeps in the ledger that the server leaves.
    ///
    /// # Errors
    ///
    /// [`KeepError`] if that cannot be written.
    pub fn end(&self, goodbye: Goodbye) -> Result<(), KeepError> {
        let mut guarded = self.lock();
        let global_step = guarded.training.snapshot().state.global_step;
        guarded.commit_path.end(now(), global_step, goodbye)
    }

    /// Asks the run something that changes nothing for those who wait.
    pub fn ask<T>(&self, question: impl FnOnce(&mut Training, Instant) -> T) -> T {
        let mut guarded = self.lock();
        let answer = question(&mut guarded.training, now());
        guarded.keep_events();
        answer
    }

    /// Changes the run and wakes those who wait.
    pub fn change<T>(&self, change: impl FnOnce(&mut Training, Instant) -> T) -> T {
        let answer = self.ask(change);
        self.tell_change();
        answer
    }

    /// A checkpoint of this step is there for followers.
    pub fn checkpoint_saved(&self, global_step: GlobalStep) {
        self.follower_files.checkpoint_is_there(global_step);
        self.ask(|training, _| training.checkpoint_saved(global_step));
        self.tell_followers();
    }

    /// The last state is saved: workers and followers may be told that the run is over.
    pub fn saved(&self) {
        self.change(|training, now| training.saved(now));
        self.tell_followers();
    }

    /// Hears of every change from now on, of several at once perhaps.
    pub fn changes(&self) -> broadcast::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes a gradient, and commits the step if it was the last one missing.
    fn take(&self, push: &Push, gradient: Gradient) -> Result<Verdict, RequestError> {
        let guarded = &mut *self.lock();
        if guarded.has_failed {
            return Err(RequestError::ShuttingDown);
        }
        match guarded.training.push(now(), push, gradient) {
            Pushed::Answered(verdict) => Ok(self.answer(guarded, verdict)),
            Pushed::Complete(update) => self.commit(guarded, push.member, *update),
        }
    }

    /// Answers a push that completes no step.
    fn answer(&self, guarded: &mut Guarded, verdict: Verdict) -> Verdict {
        guarded.keep_events();
        // One that simply counts leaves those who wait nothing to do: with many workers they
        // would all be woken for each.
        if verdict != Verdict::Accepted || guarded.training.has_questions() {
            self.tell_change();
        }
        verdict
    }

    /// Commits a step that is complete; the answer to `pusher`.
    fn commit(
        &self,
        guarded: &mut Guarded,
        pusher: Member,
        update: Update,
    ) -> Result<Verdict, RequestError> {
        let Guarded {
            training,
            commit_path,
            ..
        } = guarded;
        let step = update.global_step();
        let at = |point| (self.at_point)(point, step);
        let answer = match commit_path.commit(now, at, training, update) {
            Ok(None) => {
                at(CommitPoint::Before(CommitPart::Reply));
                guarded.answered = Some((pusher, step));
                Ok(Verdict::Accepted)
            }
            Ok(Some(update)) => Ok(training.overflowed(&update)),
            Err(error) => Err(error),
        };
        guarded.keep_events();
        self.tell_change();
        answer.map_err(|error| {
            guarded.fail(error);
            RequestError::ShuttingDown
        })
    }

    /// Work for a worker, if there is any. One that shares memory reads the variables itself.
    fn give(&self, pull: Pull) -> Option<Assignment> {
        let mut guarded = self.lock();
        let mut assignment = guarded.training.pull(now(), pull);
        guarded.keep_events();
        if let Some(Assignment::Work(work)) = &mut assignment
            && matches!(work.variables, Variables::Sent(_))
            && guarded.shared_memory.slot(pull.member.worker).is_some()
        {
            // The state that the file holds is that of the work: both change under this lock.
            let sequence = guarded.commit_path.state_file().sequence();
            work.variables = Variables::InStateFile { sequence };
        }
        assignment
    }

    /// Takes the gradients that a worker has put into its slot. If they may count they are copied out, outside of
    /// the lock.
    ///
    /// What the slot holds belongs to another push if this one was on its way for too long: then
    /// nobody waits for its answer any more.
    fn take_from_slot(&self, push: &Push, generation: Generation) -> Result<Verdict, RequestError> {
        let not_there = || {
            let what = "the gradients of this push are not in the worker's slot";
            RequestError::Invalid(what.to_owned())
        };
        let mut guarded = self.lock();
        if let Err(verdict) = guarded.training.check(now(), push) {
            return Ok(self.answer(&mut guarded, verdict));
        }
        let slot = guarded.shared_memory.slot(push.member.worker);
        let slot = slot.ok_or_else(not_there)?;
        drop(guarded);
        let gradient = Gradient::out_of(&slot, generation, self.gradients.take());
        let gradient = gradient.ok_or_else(not_there)?;
        self.take(push, gradient)
    }

    fn accept(&self, push: &Push, gradients: ReceivedGradients) -> Result<Verdict, RequestError> {
        self.heard_from(push.member)?;
        if push.tower_step.tower.0 >= self.num_towers {
            return Err(RequestError::Invalid(format!(
                "there is no tower {}",
                push.tower_step.tower
            )));
        }
        match gradients {
            Gradients::Sent(values) => self.take(push, Gradient::new(values)),
            Gradients::InSlot(generation) => self.take_from_slot(push, generation),
        }
    }

    /// A worker asks for something: that shows that the answer to its push was sent.
    fn heard_from(&self, member: Member) -> Result<(), RequestError> {
        let mut guarded = self.lock();
        if guarded.has_failed {
            return Err(RequestError::ShuttingDown);
        }
        if let Some((_, step)) = guarded.answered.take_if(|(who, _)| *who == member) {
            (self.at_point)(CommitPoint::After(CommitPart::Reply), step);
        }
        Ok(())
    }

    /// Work for a worker, or what else there is to say, within [`PULL_HOLD`].
    async fn assignment(&self, pull: Pull) -> Assignment {
        let mut changes = self.changes();
        let answer = async {
            loop {
                if let Some(assignment) = self.give(pull) {
                    return assignment;
                }
                // The sender lives as long as this service; having missed a change is one.
                let _ = changes.recv().await;
            }
        };
        let answer = tokio::time::timeout(PULL_HOLD, answer).await;
        answer.unwrap_or(Assignment::Wait)
    }

    fn tell_change(&self) {
        // Nobody waits now: that is no error.
        let _ = self.changed.send(());
    }

    fn tell_followers(&self) {
        // Nobody follows now: that is no error.
        let _ = self.for_followers.send(());
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(|_| {
            // The panic has said what is wrong; the last commit is safe in its file.
            error!("a bug: the server panicked in the middle of a decision, and ends");
            pserver_cli::console::finish();
            std::process::exit(BUG)
        })
    }
}

/// Time comes from tokio's clock, which a simulation can set, and is handed down from here.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl ParameterServer for Service {
    async fn run(&self) -> Result<RunConfig, RequestError> {
        Ok(self.ask(|training, _| training.run_to_join()))
    }

    async fn register(
        &self,
        registration: Registration,
    ) -> Result<Result<Registered, Refusal>, RequestError> {
        let most = max_workers(self.num_towers);
        if self.ask(|training, _| training.num_workers()) >= most {
            return Err(RequestError::NotNow(format!(
                "there are {most} workers, which is all that a run of {} towers takes",
                self.num_towers
            )));
        }
        let secret = Secret::random().map_err(|error| {
            RequestError::NotNow(format!("the server's host has no random numbers: {error}"))
        })?;
        Ok(self.change(|training, now| training.register(now, registration, secret)))
    }

    async fn share_memory(&self, member: Member) -> Result<messages::SharedMemory, RequestError> {
        let mut guarded = self.lock();
        if !guarded.training.is_member(member) {
            return Ok(messages::SharedMemory::Unregistered);
        }
        Ok(match guarded.shared_memory.offer(member.worker) {
            Ok(slot_path) => messages::SharedMemory::Offered {
                state_path: guarded.commit_path.state_file().shared_path(),
                slot_path,
            },
            Err(error) => messages::SharedMemory::Refused {
                reason: format!("the server's host gives no memory: {error}"),
            },
        })
    }

    async fn attach(&self, member: Member, nonce: Nonce) -> Result<Attachment, RequestError> {
        let mut guarded = self.lock();
        if !guarded.training.is_member(member) {
            return Ok(Attachment::Unregistered);
        }
        Ok(guarded.shared_memory.attach(member.worker, nonce))
    }

    async fn pull(&self, pull: Pull) -> Result<Assignment, RequestError> {
        self.heard_from(pull.member)?;
        Ok(self.assignment(pull).await)
    }

    fn turned_away(&self, member: Member) -> Option<Verdict> {
        self.lock().training.turned_away(member)
    }

    fn gradient_memory(&self) -> Values {
        self.gradients.take()
    }

    async fn push(
        &self,
        push: Push,
        gradients: ReceivedGradients,
    ) -> Result<Verdict, RequestError> {
        self.accept(&push, gradients)
    }

    async fn push_and_pull(
        &self,
        push: Push,
        gradients: ReceivedGradients,
    ) -> Result<PushAnswer, RequestError> {
        let pull = Pull {
            member: push.member,
            held: Some(push.state_digest),
        };
        let verdict = self.accept(&push, gradients)?;
        let next = match verdict {
            Verdict::Accepted => Some(self.assignment(pull).await),
            _ => None,
        };
        Ok(PushAnswer { verdict, next })
    }

    async fn summarize(&self, member: Member, summary: TowerSummary) -> Result<bool, RequestError> {
        Ok(self.ask(|training, now| training.summarize(now, member, summary)))
    }

    async fn heartbeat(&self, member: Member) -> Result<bool, RequestError> {
        Ok(self.ask(|training, now| training.heartbeat(now, member)))
    }

    async fn leave(&self, member: Member) -> Result<(), RequestError> {
        self.change(|training, _| training.leave(member));
        Ok(())
    }

    async fn status(&self) -> Result<Status, RequestError> {
        Ok(self.ask(|training, _| training.status()))
    }

    async fn follower_heartbeat(&self, follower: FollowerId) -> Result<(), RequestError> {
        self.ask(|training, now| training.follower_seen(now, follower));
        Ok(())
    }

    async fn checkpoint(
        &self,
        request: CheckpointRequest,
    ) -> Result<CheckpointReply, RequestError> {
        let mut news = self.for_followers.subscribe();
        let answer = async {
            loop {
                let found = self.ask(|training, now| training.checkpoint_for(now, request));
                if let Some(found) = found {
                    return found;
                }
                let _ = news.recv().await;
            }
        };
        let global_step = match tokio::time::timeout(PULL_HOLD, answer).await {
            Err(_) => return Ok(CheckpointReply::Wait),
            Ok(ForFollower::Goodbye(goodbye)) => return Ok(CheckpointReply::Goodbye(goodbye)),
            Ok(ForFollower::Checkpoint(global_step)) => global_step,
        };
        let file = self.follower_files.checkpoint(global_step).await;
        let file = file.map_err(|error| {
            warn!(global_step = global_step.0, %error, "checkpoint is not sent");
            RequestError::NotNow(error.to_string())
        })?;
        Ok(CheckpointReply::Checkpoint { global_step, file })
    }

    async fn ledger(&self, from: LedgerPosition) -> Result<Option<LedgerPart>, RequestError> {
        let began = tokio::time::Instant::now();
        loop {
            // Asked first: what was written before the run was over is in the file by then.
            let is_over = self.ask(|training, _| matches!(training.phase(), Phase::Closed(_)));
            let part = self.follower_files.ledger(from).await.map_err(|error| {
                warn!(%error, "ledger is not sent");
                RequestError::NotNow(error.to_string())
            })?;
            if !part.bytes.is_empty() {
                return Ok(Some(part));
            }
            if is_over {
                return Ok(None);
            }
            if began.elapsed() >= PULL_HOLD {
                return Ok(Some(part));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn report_score(&self, follower: FollowerId, score: Score) -> Result<(), RequestError> {
        let (data, newest) = self.ask(|training, now| {
            training.follower_seen(now, follower);
            (training.run().data, training.snapshot().state.global_step)
        });
        let num_examples = match score.eval_data {
            EvalData::Test => data.num_test_examples(),
            EvalData::TrainEval => data.num_train_examples(),
        };
        let counted = score.confusion.num_examples();
        if score.global_step > newest || !(1..=u64::from(num_examples)).contains(&counted) {
            return Err(RequestError::Invalid(format!(
                "no score of this run: step {}, the run is at {newest}; {counted} examples, {data} has {num_examples}",
                score.global_step
            )));
        }
        let (global_step, precision_at_1) = (score.global_step.0, score.confusion.precision_at_1());
        match self.follower_files.keep_score(now(), data, score).await {
            Ok(Kept::Already) => {}
            Ok(Kept::Now) => info!(
                global_step,
                precision_at_1,
                num_examples = counted,
                "checkpoint is scored"
            ),
            Ok(Kept::NotWanted(reason)) => debug!(global_step, reason, "score is not kept"),
            Err(error) => {
                warn!(%error, "score is not kept");
                return Err(RequestError::NotNow(error.to_string()));
            }
        }
        Ok(())
    }

    async fn administer(&self, order: Order) -> Result<GlobalStep, RequestError> {
        let (done, step) = oneshot::channel();
        let commission = Commission { order, done };
        let gone = RequestError::ShuttingDown;
        self.orders.try_send(commission).map_err(|_| gone.clone())?;
        step.await.map_err(|_| gone)
    }
}

#[cfg(test)]
mod tests;
