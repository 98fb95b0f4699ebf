//! The run as a server knows it, and every decision about it.
//!
//! Each request and the passing of time is one method call that takes the time as an argument and
//! returns the answer; what is worth telling people, or keeping, is collected as [`Fact`]s. There is no clock,
//! lock, socket or file here, so a simulation can stand in for all of them, and a test for the gradients.
//!
//! ```text
//!              the last step is committed, a number is not finite, or the server is asked to stop
//!   Training ------------------------------------------> Closing ----------------> Closed
//!   pulls get work                                       pulls wait while the      pulls get
//!                                                        state is being saved      goodbye
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pserver_run::member::{
    CheckpointRequest, FollowerId, Member, Refusal, Registered, Registration, Secret, WorkerId,
};
use pserver_run::record::Record;
use pserver_run::request::{Goodbye, PULL_HOLD, Pull, Push, Verdict};
use pserver_run::{
    Evidence, ExamplesDigest, GlobalStep, Mode, Numerics, RunConfig, SampleSequence, StateDigest,
    TowerStep,
};

use crate::aggregator::Aggregator;
use crate::assignment::{Assigned, Assignments};
use crate::contribution::Contribution;
use crate::fact::{Fact, Notice};
use crate::followers::Followers;
use crate::membership::{Members, Worker};
use crate::pace::Pace;
use crate::patience::{Passed, Patience};
use crate::schedule::LearningRateSchedule;
use crate::scrutiny::{Norms, Questions};
use crate::serials::AppliedSerials;
use crate::update::{At, Update, micros};

/// Tower steps that may be applied ahead of one that is not, in asynchronous mode.
pub const MAX_AHEAD: usize = 1024;

/// What is decided about a push.
#[derive(Debug)]
#[must_use]
pub enum Decision<G> {
    /// This is the answer.
    Answer(Verdict),
    /// It was the last gradient that the next update needed. The update is to be carried out, and
    /// [`Core::committed`] to hear of it; then the answer is [`Verdict::Accepted`]. If it cannot be carried out,
    /// [`Core::overflowed`] has the answer.
    Complete(Box<Update<G>>),
}

/// Limits that may change from one start of a run to the next.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The run is complete at this step.
    pub max_steps: GlobalStep,
    /// How long a worker stays without a heartbeat or another request.
    pub worker_lease: Duration,
    /// Whether workers of different numerics may take part.
    pub mixed: bool,
    /// Fewer workers than this, for the stall timeout, end the run for now.
    pub min_workers: u32,
    /// How long a run may go on without a gradient, or with too few workers.
    pub stall_timeout: Duration,
    /// Share of the tower steps that two workers compute, to compare; 0 to 1.
    pub audit_fraction: f64,
}

/// What a worker that pulls gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// To compute this, at the present state.
    Work(Assigned),
    /// The run is over for it.
    Goodbye(Goodbye),
    /// It is no member.
    Unregistered,
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

/// The run. `G` is a gradient: of it no more is known than what is [evident](Evidence).
#[derive(Debug)]
pub struct Core<G> {
    run: RunConfig,
    limits: Limits,
    schedule: LearningRateSchedule,
    sequence: SampleSequence,
    lifecycle: Lifecycle,
    members: Members,
    followers: Followers,
    step: Step<G>,
    asynchronous: Asynchronous,
    norms: Norms,
    pace: Pace,
    patience: Patience,
    facts: Vec<Fact>,
}

/// How far the run is, and how long that may take.
#[derive(Debug)]
struct Lifecycle {
    phase: Phase,
    /// The server does not end before this, so that workers can come and be told.
    linger_until: Option<Instant>,
    /// Nobody is waited for after this, once the run is over.
    told_until: Option<Instant>,
    /// Nothing more is begun, and what is under way is waited for until then.
    drain_until: Option<Instant>,
}

/// What ends with a step; in asynchronous mode tower steps and what is known of them outlast it.
#[derive(Debug)]
struct Step<G> {
    at: At,
    towers: Assignments,
    questions: Questions<G>,
    aggregator: Aggregator<G>,
    /// The commit before it, or the first work given; `None` before both.
    began: Option<Instant>,
}

/// What only asynchronous mode needs.
#[derive(Debug)]
struct Asynchronous {
    /// The tower steps that were applied.
    applied: AppliedSerials,
    /// The digests of the last states that gradients may still be taken at, the newest last.
    recent: VecDeque<StateDigest>,
}

impl<G: Evidence> Core<G> {
    /// A run that goes on from the state `at` this step. `applied` are the tower steps that made it, which matters
    /// only in asynchronous mode.
    ///
    /// If it is complete already, it lingers for one lease, so that workers that come back from the
    /// time before can be told; unless there are [none](Self::expect_nobody).
    #[must_use]
    pub fn new(
        now: Instant,
        run: RunConfig,
        limits: Limits,
        at: At,
        applied: AppliedSerials,
    ) -> Self {
        let complete = at.global_step >= limits.max_steps;
        let mut core = Core {
            schedule: LearningRateSchedule::of(&run),
            sequence: run.sequence(),
            lifecycle: Lifecycle {
                phase: match complete {
                    true => Phase::Closing(Goodbye::Complete),
                    false => Phase::Training,
                },
                linger_until: complete.then(|| now + limits.worker_lease),
                told_until: None,
                drain_until: None,
            },
            members: Members::new(limits.worker_lease),
            followers: Followers::default(),
            step: Step {
                at,
                towers: Assignments::default(),
                questions: Questions::default(),
                aggregator: Aggregator::new(run.gradients_per_update()),
                began: None,
            },
            asynchronous: Asynchronous {
                applied,
                recent: VecDeque::new(),
            },
            norms: Norms::default(),
            pace: Pace::default(),
            patience: Patience::new(now, limits.stall_timeout),
            facts: Vec::new(),
            run,
            limits,
        };
        core.begin_step();
        core
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
    pub fn at(&self) -> At {
        self.step.at
    }

    /// How far the run is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.lifecycle.phase
    }

    /// What happened since the last call.
    pub fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
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
        self.keep(Record::Joined {
            worker: member.worker.0,
            name,
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
    pub fn pull(&mut self, now: Instant, pull: Pull) -> Option<Given> {
        if self.members.is_quarantined(pull.member) {
            return Some(Given::Goodbye(Goodbye::Quarantined));
        }
        let phase = self.phase();
        let Some(worker) = self.members.seen(now, pull.member) else {
            return Some(Given::Unregistered);
        };
        worker.last_asked = now;
        match phase {
            Phase::Training => {}
            Phase::Closing(_) => return None,
            Phase::Closed(goodbye) => {
                worker.told_goodbye = true;
                return Some(Given::Goodbye(goodbye));
            }
        }
        let assigned = self.assign(now, pull.member.worker)?;
        self.step.began.get_or_insert(now);
        Some(Given::Work(assigned))
    }

    /// Whether tower steps need not be applied in order.
    #[must_use]
    pub fn is_asynchronous(&self) -> bool {
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
            self.keep(Record::Overdue {
                of: tower_step,
                slow: slow.0,
                also_given_to: worker.0,
            });
        }
        assigned
    }

    fn assign_open(&mut self, now: Instant, worker: WorkerId) -> Option<Assigned> {
        // Without an open question nobody has answered, and there is nobody to leave out.
        let at_hand = if self.step.questions.is_empty() {
            Vec::new()
        } else {
            self.workers_at_hand(now)
        };
        let everyone = |answered: &[WorkerId]| at_hand.iter().all(|id| answered.contains(id));
        self.step
            .towers
            .assign(now, worker, self.pace.overdue(), everyone)
    }

    /// The workers that may be expected to take a tower step soon: not those that hang, even if
    /// they send heartbeats.
    fn workers_at_hand(&self, now: Instant) -> Vec<WorkerId> {
        let overdue = self.pace.overdue();
        let is_at_hand = |id: WorkerId, worker: &Worker| match self.step.towers.held_by(id) {
            Some(of) => {
                let held = self.step.towers.held_for(now, of, id).unwrap_or_default();
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
        if self.asynchronous.applied.num_ahead() >= MAX_AHEAD {
            return;
        }
        let num_towers = self.run.num_towers;
        let steps = self.asynchronous.applied.missing();
        let mut steps = steps.map(|serial| TowerStep::with_serial(serial, num_towers));
        if let Some(next) = steps.find(|tower_step| !self.step.towers.knows(*tower_step)) {
            self.step.towers.open_one(next);
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
        !self.step.questions.is_empty()
    }

    /// By how many updates the gradient of a push is too old, which is 0 in a synchronous run; or the answer to one
    /// that cannot count, whatever its gradient is.
    fn check(&mut self, now: Instant, push: &Push) -> Result<u64, Verdict> {
        if let Some(verdict) = self.turned_away(push.member) {
            return Err(verdict);
        }
        let sender = self.members.seen(now, push.member);
        sender.ok_or(Verdict::Unregistered)?.last_asked = now;
        if let Phase::Closing(goodbye) | Phase::Closed(goodbye) = self.lifecycle.phase {
            return Err(Verdict::Goodbye(goodbye));
        }
        self.staleness(push).map_err(|(verdict, reason)| {
            self.keep(Record::Dropped {
                of: push.tower_step,
                worker: push.member.worker.0,
                reason,
            });
            verdict
        })
    }

    /// Takes the gradient of a tower step, which is that of `push`, checked in size.
    pub fn push(&mut self, now: Instant, push: Push, gradient: G) -> Decision<G> {
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
        let held = self.step.towers.held_for(now, of, worker);
        let contribution = Contribution {
            doubt: self.norms.doubt(push.losses.total, gradient.norm()),
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
    fn update(&mut self, now: Instant, contributions: Vec<Contribution<G>>) -> Update<G> {
        let mut learning_rate = self.schedule.learning_rate(self.step.at.global_step);
        let mut applied = None;
        if let Mode::Asynchronous { scaled, .. } = self.run.mode {
            let mut serials = self.asynchronous.applied.clone();
            for one in &contributions {
                serials.insert(one.of().serial(self.run.num_towers));
                if scaled {
                    learning_rate /= one.staleness as f32 + 1.0;
                }
            }
            applied = Some(serials);
        }
        Update {
            at: self.step.at,
            learning_rate,
            moving_average_decay: self.run.moving_average_decay,
            applied,
            gather: self
                .step
                .began
                .map_or(Duration::ZERO, |began| now.saturating_duration_since(began)),
            gathered: now,
            contributions,
        }
    }

    /// An update was carried out, and the state after it has this digest.
    pub fn committed(&mut self, now: Instant, update: &Update<G>, digest: StateDigest) {
        for one in &update.contributions {
            // In asynchronous mode the others remain open.
            self.step.towers.close(one.of());
        }
        if let Some(applied) = &update.applied {
            self.asynchronous.applied.clone_from(applied);
        }
        self.norms.note(update.norm());
        self.step.at = At {
            global_step: update.at.global_step.next(),
            digest,
        };
        self.step.began = Some(now);
        self.begin_step();
        if self.step.at.global_step >= self.limits.max_steps {
            self.lifecycle.phase = Phase::Closing(Goodbye::Complete);
        }
        if self.phase() == Phase::Training {
            self.drained_a_step();
        }
    }

    fn begin_step(&mut self) {
        if let Mode::Asynchronous { max_staleness, .. } = self.run.mode {
            let recent = &mut self.asynchronous.recent;
            recent.push_back(self.step.at.digest);
            // One more than can count, so that it can be told from those of another start.
            while recent.len() > max_staleness as usize + 2 {
                recent.pop_front();
            }
            return;
        }
        self.step.questions.clear();
        let at = self.step.at.global_step;
        self.step.towers.begin_step(at, self.run.num_towers);
    }

    /// An update of gradients that make sense cannot be carried out: a variable would not be finite. The answer to
    /// the push that completed it.
    ///
    /// # Panics
    ///
    /// If the update is not one that [`push`](Self::push) made: those have gradients.
    pub fn overflowed(&mut self, update: &Update<G>) -> Verdict {
        let last = update.contributions.iter().max_by_key(|one| one.arrived);
        let last = last.expect("an update has gradients");
        let (of, worker) = (last.of(), last.worker());
        self.diverge(of, worker, update.loss())
    }

    fn diverge(&mut self, tower_step: TowerStep, worker: WorkerId, loss: f32) -> Verdict {
        self.lifecycle.phase = Phase::Closing(Goodbye::Diverged);
        self.tell(Notice::Diverged {
            tower_step,
            worker: self.name_of(worker),
            loss,
        });
        Verdict::Goodbye(Goodbye::Diverged)
    }

    fn name_of(&self, worker: WorkerId) -> String {
        let worker = self.members.get(worker);
        worker.map_or_else(String::new, |worker| worker.name.clone())
    }

    fn keep(&mut self, record: Record) {
        self.facts.push(Fact::Kept(record));
    }

    fn tell(&mut self, notice: Notice) {
        self.facts.push(Fact::Told(notice));
    }

    /// Takes a heartbeat; false if the member is unknown.
    pub fn heartbeat(&mut self, now: Instant, member: Member) -> bool {
        // It hears why at its next request.
        self.members.is_quarantined(member) || self.members.seen(now, member).is_some()
    }

    /// Ends a membership; what the worker had is free at once.
    pub fn leave(&mut self, member: Member) {
        if self.members.remove(member).is_some() {
            let worker = member.worker;
            self.step.towers.release(worker);
            self.keep(Record::Left { worker: worker.0 });
        }
    }

    /// Takes the heartbeat of a follower.
    pub fn follower_seen(&mut self, now: Instant, follower: FollowerId) {
        self.followers.seen(now, follower);
    }

    /// Answers a follower that asks for a checkpoint, of which the newest is of step `saved`; `None` if the caller
    /// should ask again when something has changed.
    pub fn checkpoint_for(
        &mut self,
        now: Instant,
        request: CheckpointRequest,
        saved: Option<GlobalStep>,
    ) -> Option<ForFollower> {
        self.followers.seen(now, request.follower);
        // `None` is less than any step.
        if let Some(step) = saved.filter(|step| Some(*step) > request.newer_than) {
            return Some(ForFollower::Checkpoint(step));
        }
        let Phase::Closed(goodbye) = self.phase() else {
            return None;
        };
        self.followers.told(request.follower);
        Some(ForFollower::Goodbye(goodbye))
    }

    /// Lets time pass: gives up the workers whose lease is over, says when the run stands still, and
    /// stops it when it has for too long. Called a few times a second.
    pub fn tick(&mut self, now: Instant) {
        if let Some(pause) = self.patience.wake(now) {
            self.members.extend(now, pause);
            self.step.towers.extend(now, pause);
            self.keep(Record::Suspended {
                pause_micros: micros(pause),
            });
        }
        self.expire(now);
        if self.lifecycle.phase != Phase::Training {
            return;
        }
        self.end_drain(now);
        let has_enough = self.num_workers() >= self.limits.min_workers as usize;
        match self.patience.pass(now, has_enough) {
            Passed::Quietly => {}
            Passed::StandsStill => {
                let waits_for = self.waits_for(now);
                self.keep(Record::StoodStill { waits_for });
            }
            Passed::Stalled => {
                let waits_for = self.waits_for(now);
                self.tell(Notice::Stalled { waits_for });
                self.stop();
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        for (worker, _) in self.members.expire(now) {
            self.step.towers.release(worker);
            self.keep(Record::Lost { worker: worker.0 });
        }
    }

    /// Ends the run before its time: the server was asked to stop, or the run stands still.
    pub fn stop(&mut self) {
        if self.lifecycle.phase == Phase::Training {
            self.lifecycle.phase = Phase::Closing(Goodbye::Stopping);
        }
    }

    /// The last state is saved: the workers may be told.
    pub fn saved(&mut self, now: Instant) {
        if let Phase::Closing(goodbye) = self.lifecycle.phase {
            self.lifecycle.phase = Phase::Closed(goodbye);
            self.lifecycle.told_until = Some(now + self.limits.worker_lease);
            self.followers.close(now);
        }
    }

    /// No worker of the time before will come back: a run that is complete already ends at once.
    pub fn expect_nobody(&mut self) {
        self.lifecycle.linger_until = None;
    }

    /// Whether nobody is left to be told that the run is over. A worker that does not ask for as long as
    /// a lease, though it may send heartbeats, is not waited for.
    #[must_use]
    pub fn everyone_told(&self, now: Instant) -> bool {
        let is_late = |until: Instant| now >= until;
        let all_told = || self.members.iter().all(|(_, worker)| worker.told_goodbye);
        matches!(self.lifecycle.phase, Phase::Closed(_))
            && self.lifecycle.linger_until.is_none_or(is_late)
            && (self.lifecycle.told_until.is_some_and(is_late) || all_told())
            && self.followers.everyone_told(now)
    }
}

mod drain;

mod judgement;

mod report;

#[cfg(test)]
mod tests;
