//! Answers the wire: a lock, a clock and a way to wait, around a [`Run`] and the way that its
//! commits take.

use std::mem;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pserver_core::decisions::ForFollower;
use pserver_core::{Decision, Phase, Update};
use pserver_guard::limits::max_workers;
use pserver_run::record::Record;
use pserver_run::request::PULL_HOLD;
use pserver_run::{EvalData, GlobalStep, Layout, RunConfig, Score};
use pserver_state::Pool;
use pserver_wire::gradient::Gradient;
use pserver_wire::gradient_slot::Nonce;
use pserver_wire::messages::{
    self, Assignment, Attachment, CheckpointReply, CheckpointRequest, Delivery, FollowerId,
    Goodbye, LedgerPart, LedgerPosition, Member, Order, Pull, Push, Pushed, Refusal, Registered,
    Registration, Status, Then, TowerSummary, Verdict,
};
use pserver_wire::server::{Landing, ParameterServer, RequestError};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::commit_path::CommitPath;
use crate::event::{Event, EventQueue};
use crate::follower_files::{FollowerFiles, Kept};
use crate::run::Run;
use crate::slots::Slots;

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

/// The run behind a lock, and those who wait for it.
#[derive(Debug)]
pub struct Service {
    inner: Mutex<Inner>,
    /// Wakes the one who supervises the run.
    changed: Notify,
    /// Wakes the followers that wait for a checkpoint, which is not at every step.
    for_followers: broadcast::Sender<()>,
    num_towers: u32,
    /// Memory of gradients that were applied, for those to come.
    gradients: Pool,
    follower_files: FollowerFiles,
    orders: mpsc::Sender<Commission>,
    orders_given: Mutex<Option<mpsc::Receiver<Commission>>>,
    /// How often the lock was taken.
    #[cfg(test)]
    acquisitions: std::sync::atomic::AtomicU32,
}

/// The run, the way into its files, and what is to be told of it.
#[derive(Debug)]
struct Inner {
    run: Run,
    commit_path: CommitPath,
    slots: Slots,
    /// Workers that wait for a tower step, in the order in which they came.
    waiting: Vec<Waiting>,
    events: EventQueue,
    failure: Option<anyhow::Error>,
    /// Something could not be kept: nothing more is given out or taken.
    has_failed: bool,
}

/// A pull without work: it is answered as soon as there is some.
#[derive(Debug)]
struct Waiting {
    pull: Pull,
    answer: oneshot::Sender<Assignment>,
}

impl Inner {
    /// Fails where something could not be kept.
    fn goes_on(&self) -> Result<(), RequestError> {
        match self.has_failed {
            true => Err(RequestError::ShuttingDown),
            false => Ok(()),
        }
    }

    /// Takes a gradient, and commits the step if it was the last one missing. The verdict, and whether there may be
    /// something new for those who wait.
    fn push(&mut self, push: Push, gradient: Gradient) -> Result<(Verdict, bool), RequestError> {
        match self.run.core.push(now(), push, gradient) {
            // One that simply counts frees no work. To look for some would cost a pull of every worker that waits.
            Decision::Answer(verdict) => {
                let changes = verdict != Verdict::Accepted || self.run.core.has_questions();
                Ok((verdict, changes))
            }
            Decision::Complete(update) => Ok((self.commit(*update)?, true)),
        }
    }

    /// Commits a step that is complete; the answer to the push that completed it.
    fn commit(&mut self, update: Update<Gradient>) -> Result<Verdict, RequestError> {
        match self.commit_path.commit(now, &mut self.run, update) {
            Ok(None) => Ok(Verdict::Accepted),
            Ok(Some(update)) => Ok(self.run.core.overflowed(&update)),
            Err(error) => {
                self.fail(error);
                Err(RequestError::ShuttingDown)
            }
        }
    }

    /// Answers a pull now, or as soon as there is work. A newer pull of a worker takes the place of the one before.
    fn pull(&mut self, pull: Pull) -> oneshot::Receiver<Assignment> {
        let (answer, answered) = oneshot::channel();
        let is_older = |waiting: &Waiting| waiting.pull.member == pull.member;
        self.waiting.retain(|waiting| !is_older(waiting));
        match self.assignment(pull) {
            // A request that was dropped meanwhile needs no answer.
            Some(assignment) => drop(answer.send(assignment)),
            None => self.waiting.push(Waiting { pull, answer }),
        }
        answered
    }

    /// Answers the workers that wait and for which there is an answer now, in the order in which they came.
    fn answer_waiting(&mut self) {
        for waiting in mem::take(&mut self.waiting) {
            // A worker that gave up gets no tower step.
            if waiting.answer.is_closed() {
                continue;
            }
            match self.assignment(waiting.pull) {
                Some(assignment) => drop(waiting.answer.send(assignment)),
                None => self.waiting.push(waiting),
            }
        }
    }

    /// Work for a worker, if there is any. One that shares memory reads the variables itself.
    fn assignment(&mut self, pull: Pull) -> Option<Assignment> {
        let mut assignment = self.run.pull(now(), pull)?;
        if let Assignment::Work(work) = &mut assignment
            && matches!(work.variables, Delivery::Sent(_))
            && self.slots.slot(pull.member.worker).is_some()
        {
            // The state that the file holds is that of the work: both change under the same lock.
            let sequence = self.commit_path.state_file().sequence();
            work.variables = Delivery::InStateFile { sequence };
        }
        Some(assignment)
    }

    /// Keeps what happened in the ledger, and for the one who tells people.
    fn keep_events(&mut self) {
        let events = self.run.take_events();
        if !events.is_empty() {
            // Somebody may have left or been lost.
            let is_there = |worker| self.run.core.has_worker(worker);
            self.slots.retain(is_there);
        }
        if let Err(error) = self.commit_path.happened(now(), &events) {
            self.fail(error);
        }
        for event in events {
            self.events.push(event);
        }
    }

    fn fail(&mut self, error: anyhow::Error) {
        self.has_failed = true;
        self.failure.get_or_insert(error);
        // They hear at their next request that nothing goes on here.
        self.waiting.clear();
    }
}

impl Service {
    /// A service for `run`, whose gradients are of `layout` and whose commits take
    /// `commit_path`. Followers get and give `follower_files`.
    #[must_use]
    pub fn new(
        run: Run,
        commit_path: CommitPath,
        layout: &Layout,
        follower_files: FollowerFiles,
    ) -> Self {
        // One is enough: to have missed changes is to see that there was one.
        let (for_followers, _) = broadcast::channel(1);
        let (orders, orders_given) = mpsc::channel(MAX_ORDERS);
        let num_towers = run.core.run().num_towers;
        let most = run.core.run().gradients_per_update() as usize + 1;
        let inner = Inner {
            run,
            commit_path,
            slots: Slots::new(layout.num_values()),
            waiting: Vec::new(),
            events: EventQueue::default(),
            failure: None,
            has_failed: false,
        };
        Service {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            for_followers,
            num_towers,
            gradients: Pool::new(layout.num_values(), most),
            follower_files,
            orders,
            orders_given: Mutex::new(Some(orders_given)),
            #[cfg(test)]
            acquisitions: std::sync::atomic::AtomicU32::new(0),
        }
    }

    /// The orders that come, for the one who carries them out; `None` if somebody has them already.
    pub fn orders(&self) -> Option<mpsc::Receiver<Commission>> {
        let mut orders = self.orders_given.lock();
        orders.as_mut().ok()?.take()
    }

    /// Why the newest state or record could not be kept, if so; the run must then not go on.
    pub fn take_failure(&self) -> Option<anyhow::Error> {
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
    /// If that cannot be written.
    pub fn checkpoint_is_written(&self, global_step: GlobalStep) -> anyhow::Result<()> {
        let record = Record::Checkpoint { global_step };
        self.lock().commit_path.keep(now(), record)
    }

    /// Keeps in the ledger that the server leaves.
    ///
    /// # Errors
    ///
    /// If that cannot be written.
    pub fn end(&self, goodbye: Goodbye) -> anyhow::Result<()> {
        let mut inner = self.lock();
        let global_step = inner.run.core.at().global_step;
        inner.commit_path.end(now(), global_step, goodbye)
    }

    /// Asks the run something that changes nothing for those who wait.
    pub fn ask<T>(&self, question: impl FnOnce(&mut Run, Instant) -> T) -> T {
        let inner = &mut *self.lock();
        let answer = question(&mut inner.run, now());
        inner.keep_events();
        answer
    }

    /// Changes the run and answers those who wait for that.
    pub fn change<T>(&self, change: impl FnOnce(&mut Run, Instant) -> T) -> T {
        let inner = &mut *self.lock();
        let answer = change(&mut inner.run, now());
        self.settle(inner, true);
        answer
    }

    /// What is to be done when something has happened. `changes`: there may be something new for those who wait.
    fn settle(&self, inner: &mut Inner, changes: bool) {
        if changes {
            inner.answer_waiting();
        }
        inner.keep_events();
        if changes {
            self.changed.notify_one();
        }
    }

    /// A checkpoint of this step is there for followers.
    pub fn checkpoint_saved(&self, global_step: GlobalStep) {
        self.follower_files.checkpoint_is_there(global_step);
        self.ask(|run, _| run.saves.finished(global_step));
        self.tell_followers();
    }

    /// The last state is saved: workers and followers may be told that the run is over.
    pub fn saved(&self) {
        self.change(|run, now| run.core.saved(now));
        self.tell_followers();
    }

    /// Waits until something has changed since the last call. For one who supervises the run, and no other.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn tell_followers(&self) {
        // Nobody follows now: that is no error.
        let _ = self.for_followers.send(());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        #[cfg(test)]
        self.acquisitions
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.inner.lock().unwrap_or_else(|_| {
            // The panic has said what is wrong; the last commit is safe in its file.
            error!("a bug: the server panicked in the middle of a decision, and ends");
            pserver_cli::console::finish();
            std::process::exit(BUG)
        })
    }
}

/// The answer to a pull, or that there is none yet, within [`PULL_HOLD`].
async fn within_hold(answered: oneshot::Receiver<Assignment>) -> Assignment {
    match tokio::time::timeout(PULL_HOLD, answered).await {
        Ok(Ok(assignment)) => assignment,
        // It took too long, a newer pull took its place, or the server goes on no more.
        Ok(Err(_)) | Err(_) => Assignment::Wait,
    }
}

/// Time comes from tokio's clock, which a simulation can set, and is handed down from here.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl ParameterServer for Service {
    async fn run(&self) -> Result<RunConfig, RequestError> {
        Ok(self.ask(|run, _| run.core.run_to_join()))
    }

    async fn register(
        &self,
        registration: Registration,
    ) -> Result<Result<Registered, Refusal>, RequestError> {
        let most = max_workers(self.num_towers);
        if self.ask(|run, _| run.core.num_workers()) >= most {
            return Err(RequestError::NotNow(format!(
                "there are {most} workers, which is all that a run of {} towers takes",
                self.num_towers
            )));
        }
        let secret = messages::random_secret().map_err(|error| {
            RequestError::NotNow(format!("the server's host has no random numbers: {error}"))
        })?;
        Ok(self.change(|run, now| run.core.register(now, registration, secret)))
    }

    async fn share_memory(&self, member: Member) -> Result<messages::SharedMemory, RequestError> {
        let mut inner = self.lock();
        if !inner.run.core.is_member(member) {
            return Ok(messages::SharedMemory::Unregistered);
        }
        Ok(match inner.slots.offer(member.worker) {
            Ok(slot_path) => messages::SharedMemory::Offered {
                state_path: inner.commit_path.state_file().shared_path(),
                slot_path,
            },
            Err(error) => messages::SharedMemory::Refused {
                reason: format!("the server's host gives no memory: {error}"),
            },
        })
    }

    async fn attach(&self, member: Member, nonce: Nonce) -> Result<Attachment, RequestError> {
        let mut inner = self.lock();
        if !inner.run.core.is_member(member) {
            return Ok(Attachment::Unregistered);
        }
        Ok(inner.slots.attach(member.worker, nonce))
    }

    async fn pull(&self, pull: Pull) -> Result<Assignment, RequestError> {
        let answered = {
            let inner = &mut *self.lock();
            inner.goes_on()?;
            let answered = inner.pull(pull);
            self.settle(inner, false);
            answered
        };
        Ok(within_hold(answered).await)
    }

    fn land(&self, member: Member) -> Result<Result<Landing, Verdict>, RequestError> {
        let slot = {
            let inner = self.lock();
            inner.goes_on()?;
            if let Some(verdict) = inner.run.core.turned_away(member) {
                return Ok(Err(verdict));
            }
            inner.slots.slot(member.worker)
        };
        let memory = self.gradients.take();
        Ok(Ok(Landing { memory, slot }))
    }

    async fn push(
        &self,
        push: Push,
        gradient: Gradient,
        then: Then,
    ) -> Result<Pushed, RequestError> {
        let tower = push.tower_step.tower;
        if tower.0 >= self.num_towers {
            return Err(RequestError::Invalid(format!("there is no tower {tower}")));
        }
        let pull = Pull {
            member: push.member,
            held: Some(push.state_digest),
        };
        let (verdict, answered) = {
            let inner = &mut *self.lock();
            inner.goes_on()?;
            let pushed = inner.push(push, gradient);
            let pulls = then == Then::Pull && matches!(pushed, Ok((Verdict::Accepted, _)));
            let answered = pulls.then(|| inner.pull(pull));
            self.settle(inner, !matches!(pushed, Ok((_, false))));
            (pushed?.0, answered)
        };
        let next = match answered {
            Some(answered) => Some(within_hold(answered).await),
            None => None,
        };
        Ok(Pushed { verdict, next })
    }

    async fn summarize(&self, member: Member, summary: TowerSummary) -> Result<bool, RequestError> {
        Ok(self.ask(|run, now| run.summarize(now, member, summary)))
    }

    async fn heartbeat(&self, member: Member) -> Result<bool, RequestError> {
        Ok(self.ask(|run, now| run.core.heartbeat(now, member)))
    }

    async fn leave(&self, member: Member) -> Result<(), RequestError> {
        self.change(|run, _| run.core.leave(member));
        Ok(())
    }

    async fn status(&self) -> Result<Status, RequestError> {
        Ok(self.ask(|run, _| run.status()))
    }

    async fn follower_heartbeat(&self, follower: FollowerId) -> Result<(), RequestError> {
        self.ask(|run, now| run.core.follower_seen(now, follower));
        Ok(())
    }

    async fn checkpoint(
        &self,
        request: CheckpointRequest,
    ) -> Result<CheckpointReply, RequestError> {
        let mut news = self.for_followers.subscribe();
        let answer = async {
            loop {
                let found = self.ask(|run, now| {
                    let saved = run.saves.saved();
                    run.core.checkpoint_for(now, request, saved)
                });
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
            let is_over = self.ask(|run, _| matches!(run.core.phase(), Phase::Closed(_)));
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
        let (data, newest) = self.ask(|run, now| {
            run.core.follower_seen(now, follower);
            (run.core.run().data, run.core.at().global_step)
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
