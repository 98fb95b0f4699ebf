//! The run as the server knows it, and every decision about it.
//!
//! Each request and the passing of time is one method call that takes the time as an argument and
//! returns the answer; what is worth telling people is collected as [`Event`]s. There is no clock,
//! lock, socket or file here, so a simulation can stand in for all of them.
//!
//! ```text
//!              the last step is committed, a number is not finite, or the server is asked to stop
//!   Training ------------------------------------------> Closing ----------------> Closed
//!   pulls get work                                       pulls wait while the      pulls get
//!                                                        state is being saved      goodbye
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pserver_run::request::PULL_HOLD;
use pserver_run::{
    ExamplesDigest, GlobalStep, Layout, Mode, Numerics, RunConfig, SampleSequence, StateDigest,
    TowerStep,
};
use pserver_state::TrainingState;
use pserver_wire::gradient::Gradient;
use pserver_wire::messages::{
    Assignment, CheckpointRequest, FollowerId, Goodbye, Member, Pull, Push, Refusal, Registered,
    Registration, Secret, TowerSummary, Variables, Verdict, Work, WorkerId,
};

use crate::aggregator::{Aggregator, Contribution};
use crate::assignment::{Assigned, Assignments};
use crate::event::{Event, Who};
use crate::followers::Followers;
use crate::loss_averages::LossAverages;
use crate::membership::{Members, Worker};
use crate::pace::Pace;
use crate::patience::{Passed, Patience};
use crate::saves::Saves;
use crate::schedule::LearningRateSchedule;
use crate::scrutiny::{Norms, Questions};
use crate::serials::AppliedSerials;
use crate::step_log::Throughput;
use crate::summaries::{UpdateSummary, Wanted};
use crate::update::Update;

/// Tower steps that may be applied ahead of one that is not, in asynchronous mode.
pub(crate) const MAX_AHEAD: usize = 1024;

/// A state and its digest: immutable, shared by every pull of its step.
#[derive(Debug)]
pub struct Snapshot {
    /// Variables, averages and global step.
    pub state: TrainingState,
    /// Digest of the state.
    pub digest: StateDigest,
}

impl Snapshot {
    /// Takes the digest of a state.
    #[must_use]
    pub fn new(state: TrainingState) -> Self {
        let digest = state.digest();
        Snapshot { state, digest }
    }
}

/// Lends the variables of a snapshot to the wire without a copy.
struct SharedVariables(Arc<Snapshot>);

impl AsRef<[u8]> for SharedVariables {
    fn as_ref(&self) -> &[u8] {
        self.0.state.variables.as_bytes()
    }
}

/// What is decided about a push.
#[derive(Debug)]
#[must_use]
pub enum Decision {
    /// This is the answer.
    Answer(Verdict),
    /// It was the last gradient that the next update needed. The update is to be carried out and handed to
    /// [`Training::commit`]; then the answer is [`Verdict::Accepted`]. If it cannot be carried out,
    /// [`Training::overflowed`] has the answer.
    Complete(Box<Update>),
}

/// Limits and intervals that may change from one start of a run to the next.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The run is complete at this step.
    pub max_steps: GlobalStep,
    /// A checkpoint is due whenever the global step is a multiple of this.
    pub checkpoint_steps: u64,
    /// How long a worker stays without a sign of life.
    pub worker_lease: Duration,
    /// Whether workers of different numerics may take part.
    pub mixed: bool,
    /// Fewer workers than this, for the stall timeout, end the run for now.
    pub min_workers: u32,
    /// How long a run may go on without a gradient, or with too few workers.
    pub stall_timeout: Duration,
    /// Share of the tower steps that two workers compute, to compare; 0 to 1.
    pub audit_fraction: f64,
    /// A summary is due whenever the global step is a multiple of this; 0 for none.
    pub summary_steps: u64,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There are steps to compute.
    Training,
    /// No more steps; the state is being saved.
    Closing(Goodbye),
    /// Saved; workers are told.
    Closed(Goodbye),
}

/// What a follower that asks for a checkpoint gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForFollower {
    /// The checkpoint of this step.
    Checkpoint(GlobalStep),
    /// There will be no newer one.
    Goodbye(Goodbye),
}

/// The run.
#[derive(Debug)]
pub struct Training {
    run: RunConfig,
    limits: Limits,
    schedule: LearningRateSchedule,
    sequence: SampleSequence,
    phase: Phase,
    /// The server does not end before this, so that workers can come and be told.
    linger_until: Option<Instant>,
    /// Nobody is waited for after this, once the run is over.
    told_until: Option<Instant>,
    /// Nothing more is begun, and what is under way is waited for until then.
    drain_until: Option<Instant>,
    members: Members,
    followers: Followers,
    saves: Saves,
    towers: Assignments,
    questions: Questions,
    norms: Norms,
    aggregator: Aggregator,
    snapshot: Arc<Snapshot>,
    /// In asynchronous mode, what was applied, and the digests of the last states that gradients
    /// may still be taken at, the newest last.
    applied: AppliedSerials,
    recent: VecDeque<StateDigest>,
    loss: Option<f32>,
    loss_averages: LossAverages,
    summaries: Wanted,
    throughput: Throughput,
    pace: Pace,
    /// The last commit, or the first work given; `None` before both.
    step_began: Option<Instant>,
    patience: Patience,
    events: Vec<Event>,
}

impl Training {
    /// A run that goes on from `state`. `applied` are the tower steps that made it, which matters
    /// only in asynchronous mode.
    ///
    /// If it is complete already, it lingers for one lease, so that workers that come back from the
    /// time before can be told; unless there are [none](Self::expect_nobody).
    #[must_use]
    pub fn new(
        now: Instant,
        run: RunConfig,
        limits: Limits,
        state: TrainingState,
        applied: AppliedSerials,
    ) -> Self {
        let complete = state.global_step >= limits.max_steps;
        let needed = run.gradients_per_update();
        let snapshot = Arc::new(Snapshot::new(state));
        let mut training = Training {
            schedule: LearningRateSchedule::of(&run),
            sequence: SampleSequence::new(
                run.seed,
                run.num_towers,
                run.batch_size,
                run.data.num_train_examples(),
                run.input,
            ),
            phase: if complete {
                Phase::Closing(Goodbye::Complete)
            } else {
                Phase::Training
            },
            linger_until: complete.then(|| now + limits.worker_lease),
            told_until: None,
            drain_until: None,
            members: Members::new(limits.worker_lease),
            followers: Followers::default(),
            saves: Saves::default(),
            towers: Assignments::default(),
            questions: Questions::default(),
            norms: Norms::default(),
            aggregator: Aggregator::new(needed),
            recent: VecDeque::new(),
            applied,
            loss: None,
            loss_averages: LossAverages::new(snapshot.state.global_step),
            summaries: Wanted::every(limits.summary_steps),
            snapshot,
            throughput: Throughput::default(),
            pace: Pace::default(),
            step_began: None,
            patience: Patience::new(now, limits.stall_timeout),
            events: Vec::new(),
            run,
            limits,
        };
        training.begin_step();
        training
    }

    /// The run's configuration, with the numerics once there is an update.
    #[must_use]
    pub fn run(&self) -> &RunConfig {
        &self.run
    }

    /// What a worker has to know to take part: the configuration, with the numerics that it has to have.
    #[must_use]
    pub fn run_to_join(&self) -> RunConfig {
        RunConfig {
            numerics: self.known_numerics(),
            ..self.run.clone()
        }
    }

    /// The newest state.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// How far the run is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Makes a worker a member, whose requests will show `secret`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if its data set or numerics are not the run's.
    pub fn register(
        &mut self,
        now: Instant,
        registration: Registration,
        secret: Secret,
    ) -> Result<Registered, Refusal> {
        if registration.data_digest != self.run.data.digest() {
            return Err(Refusal::DataSet {
                expected: self.run.data.to_string(),
            });
        }
        let Registration { name, numerics, .. } = registration;
        // Before the first worker has come only the threads are known.
        let of_run = self.known_numerics().unwrap_or_else(|| Numerics {
            threads: self.run.threads,
            ..numerics.clone()
        });
        if numerics != of_run && !self.limits.mixed {
            return Err(Refusal::Numerics {
                worker: Box::new(numerics),
                run: Box::new(of_run),
            });
        }
        let member = self
            .members
            .admit(now, secret, name.clone(), numerics.clone());
        self.events.push(Event::Joined {
            who: Who {
                worker: member.worker,
                name,
            },
            numerics: numerics.to_string(),
        });
        Ok(Registered {
            member,
            lease: self.members.lease(),
        })
    }

    /// The numerics of the first update, and before that of the workers that are there.
    fn known_numerics(&self) -> Option<Numerics> {
        let of_run = self.run.numerics.as_ref();
        let of_worker = || {
            self.members
                .iter()
                .map(|(_, worker)| &worker.numerics)
                .next()
        };
        of_run.or_else(of_worker).cloned()
    }

    /// Answers a pull; `None` if the caller should ask again when something has changed.
    pub fn pull(&mut self, now: Instant, pull: Pull) -> Option<Assignment> {
        if self.members.is_quarantined(pull.member) {
            return Some(Assignment::Goodbye(Goodbye::Quarantined));
        }
        let Some(worker) = self.members.seen(now, pull.member) else {
            return Some(Assignment::Unregistered);
        };
        worker.last_asked = now;
        match self.phase {
            Phase::Training => {}
            Phase::Closing(_) => return None,
            Phase::Closed(goodbye) => {
                worker.told_goodbye = true;
                return Some(Assignment::Goodbye(goodbye));
            }
        }
        let assigned = self.assign(now, pull.member.worker)?;
        self.throughput.begin(now);
        self.step_began.get_or_insert(now);
        let digest = self.snapshot.digest;
        let variables = if pull.held == Some(digest) {
            Variables::Held
        } else {
            let shared = SharedVariables(Arc::clone(&self.snapshot));
            Variables::Sent(Bytes::from_owner(shared))
        };
        Some(Assignment::Work(Work {
            tower_step: assigned.tower_step,
            state_digest: digest,
            variables,
            attempt: assigned.attempt,
            summary_step: self.ask_for_summary(assigned.tower_step),
        }))
    }

    fn ask_for_summary(&mut self, of: TowerStep) -> Option<GlobalStep> {
        let serial = self
            .is_asynchronous()
            .then(|| of.serial(self.run.num_towers));
        let global_step = self.snapshot.state.global_step;
        self.summaries.ask(of, serial, global_step)
    }

    /// Takes what a worker alone knows of a tower step; false if nobody waits for it.
    pub fn summarize(&mut self, now: Instant, member: Member, summary: TowerSummary) -> bool {
        let is_taken = self.is_member(member) && self.summaries.take(summary.summary_step);
        if is_taken {
            let (at, summary) = (now, Box::new(summary));
            self.events.push(Event::TowerSummarised { at, summary });
        }
        is_taken
    }

    /// Asks for no more summaries: they cannot be kept.
    pub fn stop_summaries(&mut self) {
        self.summaries = Wanted::every(0);
    }

    fn is_asynchronous(&self) -> bool {
        matches!(self.run.mode, Mode::Asynchronous { .. })
    }

    fn assign(&mut self, now: Instant, worker: WorkerId) -> Option<Assigned> {
        let mut assigned = self.assign_open(now, worker);
        if assigned.is_none() && self.is_asynchronous() && !self.is_draining() {
            self.open_next();
            assigned = self.assign_open(now, worker);
        }
        if let Some(Assigned {
            tower_step,
            slow: Some(slow),
            ..
        }) = assigned
        {
            self.events.push(Event::Overdue {
                tower_step,
                slow,
                also_given_to: worker,
            });
        }
        assigned
    }

    fn assign_open(&mut self, now: Instant, worker: WorkerId) -> Option<Assigned> {
        // Without an open question nobody has answered, and there is nobody to leave out.
        let at_hand = if self.questions.is_empty() {
            Vec::new()
        } else {
            self.workers_at_hand(now)
        };
        let everyone = |answered: &[WorkerId]| at_hand.iter().all(|id| answered.contains(id));
        self.towers
            .assign(now, worker, self.pace.overdue(), everyone)
    }

    /// The workers that may be expected to take a tower step soon: not those that hang, even if
    /// they give signs of life.
    fn workers_at_hand(&self, now: Instant) -> Vec<WorkerId> {
        let overdue = self.pace.overdue();
        let is_at_hand = |id: WorkerId, worker: &Worker| match self.towers.held_by(id) {
            Some(of) => {
                let held = self.towers.held_for(now, of, id).unwrap_or_default();
                overdue.is_none_or(|overdue| held <= overdue)
            }
            None => now.saturating_duration_since(worker.last_asked) <= 2 * PULL_HOLD,
        };
        let workers = self.members.iter();
        workers
            .filter(|(id, worker)| is_at_hand(*id, worker))
            .map(|(id, _)| id)
            .collect()
    }

    /// Opens the first tower step that is neither applied nor open, unless so many are applied
    /// ahead of one that is not that the run has to wait for that one.
    fn open_next(&mut self) {
        if self.applied.num_ahead() >= MAX_AHEAD {
            return;
        }
        let num_towers = self.run.num_towers;
        let steps = self.applied.missing();
        let mut steps = steps.map(|serial| TowerStep::with_serial(serial, num_towers));
        if let Some(next) = steps.find(|tower_step| !self.towers.knows(*tower_step)) {
            self.towers.open_one(next);
        }
    }

    /// Whether this is a worker of the run now.
    #[must_use]
    pub fn is_member(&self, member: Member) -> bool {
        self.members.contains(member)
    }

    /// Whether there is a worker of this number now.
    #[must_use]
    pub fn has_worker(&self, worker: WorkerId) -> bool {
        self.members.get(worker).is_some()
    }

    /// Why no gradient of this worker is looked at, if so.
    #[must_use]
    pub fn turned_away(&self, member: Member) -> Option<Verdict> {
        if self.members.is_quarantined(member) {
            return Some(Verdict::Goodbye(Goodbye::Quarantined));
        }
        (!self.is_member(member)).then_some(Verdict::Unregistered)
    }

    /// Whether a tower step that was answered is to be computed once more.
    #[must_use]
    pub fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// By how many updates the gradient of a push is too old, which is 0 in a synchronous run; or the answer to one
    /// that cannot count, whatever its gradient is.
    fn check(&mut self, now: Instant, push: &Push) -> Result<u64, Verdict> {
        if let Some(verdict) = self.turned_away(push.member) {
            return Err(verdict);
        }
        let sender = self.members.seen(now, push.member);
        sender.ok_or(Verdict::Unregistered)?.last_asked = now;
        if let Phase::Closing(goodbye) | Phase::Closed(goodbye) = self.phase {
            return Err(Verdict::Goodbye(goodbye));
        }
        self.staleness(push).map_err(|(verdict, reason)| {
            self.events.push(Event::Dropped {
                tower_step: push.tower_step,
                worker: push.member.worker,
                reason,
            });
            verdict
        })
    }

    /// Takes the gradient of a tower step, which is that of `push`, checked in size.
    pub fn push(&mut self, now: Instant, push: Push, gradient: Gradient) -> Decision {
        let staleness = match self.check(now, &push) {
            Ok(staleness) => staleness,
            Err(verdict) => return Decision::Answer(verdict),
        };
        let (of, worker) = (push.tower_step, push.member.worker);
        let Some(sender) = self.members.get(worker) else {
            return Decision::Answer(Verdict::Unregistered);
        };
        let numerics = sender.numerics.clone();
        if ExamplesDigest(push.examples_digest) != ExamplesDigest::of(self.sequence.samples(of)) {
            self.quarantine(worker, format!("it did not use the examples of {of}"));
            return Decision::Answer(Verdict::Goodbye(Goodbye::Quarantined));
        }
        let held = self.towers.held_for(now, of, worker);
        let contribution = Contribution {
            doubt: self.norms.doubt(push.losses.total, gradient.norm),
            held: held.unwrap_or(push.compute_time),
            push,
            gradient,
            numerics,
            arrived: now,
            staleness,
        };
        self.judge(now, contribution)
    }

    /// The update that these gradients make.
    fn update(&mut self, now: Instant, contributions: Vec<Contribution>) -> Update {
        let mut learning_rate = self.schedule.learning_rate(self.snapshot.state.global_step);
        let mut applied = None;
        if let Mode::Asynchronous { scaled, .. } = self.run.mode {
            let mut serials = self.applied.clone();
            for one in &contributions {
                serials.insert(one.of().serial(self.run.num_towers));
                if scaled {
                    learning_rate /= one.staleness as f32 + 1.0;
                }
            }
            applied = Some(serials);
        }
        Update {
            before: self.snapshot(),
            learning_rate,
            moving_average_decay: self.run.moving_average_decay,
            applied,
            gather: self
                .step_began
                .map_or(Duration::ZERO, |began| now.saturating_duration_since(began)),
            gathered: now,
            contributions,
        }
    }

    /// An update was carried out: `next`, the state after it, is the newest.
    pub fn commit(&mut self, now: Instant, update: Update, next: Snapshot) {
        let (loss, norm) = (update.loss(), update.norm());
        let before = update.global_step();
        let losses = update.losses();
        let loss_averages = self.loss_averages.take_in(losses);
        for one in &update.contributions {
            // In asynchronous mode the others remain open.
            self.towers.close(one.of());
        }
        if let Some(applied) = update.applied {
            self.applied = applied;
        }
        if self.summaries.includes(before) {
            let gradients = update
                .contributions
                .into_iter()
                .map(|one| one.gradient.values);
            self.events.push(Event::SummaryDue(Box::new(UpdateSummary {
                at: now,
                before: update.before,
                gradients: gradients.collect(),
                learning_rate: update.learning_rate,
                losses,
                loss_averages,
            })));
        }
        self.snapshot = Arc::new(next);
        self.norms.note(norm);
        self.loss = Some(loss);
        self.throughput.step(now);
        self.step_began = Some(now);
        self.begin_step();
        self.events.push(Event::Committed {
            global_step: before,
            loss,
            step_time: self.throughput.step_time(),
        });
        self.after_commit();
    }

    fn begin_step(&mut self) {
        if let Mode::Asynchronous { max_staleness, .. } = self.run.mode {
            self.recent.push_back(self.snapshot.digest);
            // One more than can count, so that it can be told from those of another start.
            while self.recent.len() > max_staleness as usize + 2 {
                self.recent.pop_front();
            }
            return;
        }
        self.questions.clear();
        self.towers
            .begin_step(self.snapshot.state.global_step, self.run.num_towers);
    }

    fn after_commit(&mut self) {
        let step = self.snapshot.state.global_step;
        if step >= self.limits.max_steps {
            self.phase = Phase::Closing(Goodbye::Complete);
        } else if step.0.is_multiple_of(self.limits.checkpoint_steps) {
            self.saves.want(self.snapshot());
        }
        if self.phase == Phase::Training {
            self.drained_a_step();
        }
    }

    /// An update of gradients that make sense cannot be carried out: a variable would not be finite. The answer to
    /// the push that completed it.
    ///
    /// # Panics
    ///
    /// If the update is not one that [`push`](Self::push) made: those have gradients.
    pub fn overflowed(&mut self, update: &Update) -> Verdict {
        let last = update.contributions.iter().max_by_key(|one| one.arrived);
        let last = last.expect("an update has gradients");
        let (of, worker) = (last.of(), last.worker());
        self.diverge(of, worker, update.loss())
    }

    fn diverge(&mut self, tower_step: TowerStep, worker: WorkerId, loss: f32) -> Verdict {
        self.phase = Phase::Closing(Goodbye::Diverged);
        let Who { name, .. } = self.who(worker);
        self.events.push(Event::Diverged {
            tower_step,
            worker: name,
            loss,
        });
        Verdict::Goodbye(Goodbye::Diverged)
    }

    fn who(&self, worker: WorkerId) -> Who {
        let name = self.members.get(worker).map_or("", |worker| &worker.name);
        Who {
            worker,
            name: name.to_owned(),
        }
    }

    /// Notes a sign of life; false if the member is unknown.
    pub fn heartbeat(&mut self, now: Instant, member: Member) -> bool {
        // It hears why at its next request.
        self.members.is_quarantined(member) || self.members.seen(now, member).is_some()
    }

    /// Ends a membership; what the worker had is free at once.
    pub fn leave(&mut self, member: Member) {
        if let Some(Worker { name, .. }) = self.members.remove(member) {
            let worker = member.worker;
            self.towers.release(worker);
            self.events.push(Event::Left(Who { worker, name }));
        }
    }

    /// Notes a sign of life of a follower.
    pub fn follower_seen(&mut self, now: Instant, follower: FollowerId) {
        self.followers.seen(now, follower);
    }

    /// Answers a follower that asks for a checkpoint; `None` if the caller should ask again when
    /// something has changed.
    pub fn checkpoint_for(
        &mut self,
        now: Instant,
        request: CheckpointRequest,
    ) -> Option<ForFollower> {
        self.followers.seen(now, request.follower);
        // `None` is less than any step.
        if let Some(step) = self
            .saves
            .saved()
            .filter(|step| Some(*step) > request.newer_than)
        {
            return Some(ForFollower::Checkpoint(step));
        }
        let Phase::Closed(goodbye) = self.phase else {
            return None;
        };
        self.followers.told(request.follower);
        Some(ForFollower::Goodbye(goodbye))
    }

    /// A checkpoint of this step is there for followers.
    pub fn checkpoint_saved(&mut self, step: GlobalStep) {
        self.saves.finished(step);
    }

    /// The newest state is to be saved, though no checkpoint may be due.
    pub fn want_checkpoint(&mut self) {
        self.saves.want(self.snapshot());
    }

    /// What is saved and to be saved.
    pub fn saves(&mut self) -> &mut Saves {
        &mut self.saves
    }

    /// Lets time pass: gives up the workers whose lease is over, says when the run stands still, and
    /// stops it when it has for too long. Called a few times a second.
    pub fn tick(&mut self, now: Instant) {
        if let Some(pause) = self.patience.wake(now) {
            self.members.extend(now, pause);
            self.towers.extend(now, pause);
            self.events.push(Event::Suspended { pause });
        }
        self.expire(now);
        if self.phase != Phase::Training {
            return;
        }
        self.end_drain(now);
        let has_enough = self.num_workers() >= self.limits.min_workers as usize;
        match self.patience.pass(now, has_enough) {
            Passed::Quietly => {}
            Passed::StandsStill => {
                let waits_for = self.waits_for(now);
                self.events.push(Event::StandsStill { waits_for });
            }
            Passed::Stalled => {
                let waits_for = self.waits_for(now);
                self.events.push(Event::Stalled { waits_for });
                self.stop();
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        for (worker, Worker { name, .. }) in self.members.expire(now) {
            self.towers.release(worker);
            self.events.push(Event::Lost(Who { worker, name }));
        }
    }

    /// Ends the run before its time: the server was asked to stop, or the run stands still.
    pub fn stop(&mut self) {
        if self.phase == Phase::Training {
            self.phase = Phase::Closing(Goodbye::Stopping);
        }
    }

    /// The last state is saved: the workers may be told.
    pub fn saved(&mut self, now: Instant) {
        if let Phase::Closing(goodbye) = self.phase {
            self.phase = Phase::Closed(goodbye);
            self.told_until = Some(now + self.limits.worker_lease);
            self.followers.close(now);
        }
    }

    /// No worker of the time before will come back: a run that is complete already ends at once.
    pub fn expect_nobody(&mut self) {
        self.linger_until = None;
    }

    /// Whether nobody is left to be told that the run is over. A worker that does not ask for as long as
    /// a lease, though it may give signs of life, is not waited for.
    #[must_use]
    pub fn everyone_told(&self, now: Instant) -> bool {
        let is_late = |until: Instant| now >= until;
        let all_told = || self.members.iter().all(|(_, worker)| worker.told_goodbye);
        matches!(self.phase, Phase::Closed(_))
            && self.linger_until.is_none_or(is_late)
            && (self.told_until.is_some_and(is_late) || all_told())
            && self.followers.everyone_told(now)
    }
}

/// The state before the first step of a run that begins with `seed`.
#[must_use]
pub fn initial_state(layout: &Layout, seed: u64) -> TrainingState {
    TrainingState::initial(pserver_state::initial::initial_variables(layout, seed))
}

mod drain;

mod judgement;

mod report;

/// A small run for the tests of this crate.
#[cfg(test)]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests;
