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

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cifar_params::{Layout, Numerics, RunConfig, StateDigest, TrainingState, Values};
use cifar_sequence::{GlobalStep, Tower, TowerStep};
use cifar_wire::messages::{
    Assignment, Goodbye, Losses, Member, Pull, Push, Refusal, Registered, Registration, Session,
    Status, Verdict, Work, WorkerId, WorkerStatus,
};

use crate::aggregator::{Aggregator, TowerGradient};
use crate::assignment::{Assigned, Assignments, Holder};
use crate::commit::{all_finite, commit};
use crate::membership::Members;
use crate::pace::Pace;
use crate::schedule::LearningRateSchedule;
use crate::step_log::Throughput;

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
}

/// A run that got no gradient for this long stands still, and says what it waits for.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Something worth telling people.
#[derive(Debug)]
pub enum Event {
    /// A worker registered.
    Joined {
        /// Its number.
        worker: WorkerId,
        /// Its name.
        name: String,
        /// What it computes with.
        numerics: String,
    },
    /// A worker said that it leaves.
    Left {
        /// Its number.
        worker: WorkerId,
        /// Its name.
        name: String,
    },
    /// A worker gave no sign of life for its lease; its tower goes to another.
    Lost {
        /// Its number.
        worker: WorkerId,
        /// Its name.
        name: String,
    },
    /// A tower step takes far longer than usual, and is also given to an idle worker.
    Overdue {
        /// The tower step.
        tower_step: TowerStep,
        /// Who has it.
        slow: WorkerId,
        /// Who has it too now.
        also_given_to: WorkerId,
    },
    /// No gradient has come for some seconds.
    StandsStill {
        /// Who is missing, and since when.
        waits_for: String,
    },
    /// A run that stood still goes on.
    GoesOn {
        /// How long it stood.
        after: Duration,
    },
    /// The run stood still, or had too few workers, for so long that it ends for now.
    Stalled {
        /// Who is missing, and since when.
        waits_for: String,
    },
    /// A step was applied.
    Committed {
        /// The step before the update.
        global_step: GlobalStep,
        /// Mean total loss over the towers.
        loss: f32,
        /// Mean time of the last steps.
        step_time: Duration,
    },
    /// The state should be saved.
    CheckpointDue(Arc<Snapshot>),
    /// A loss, gradient or variable was not finite.
    Diverged {
        /// The tower step that showed it.
        tower_step: TowerStep,
        /// The name of the worker that computed it.
        worker: String,
        /// Its total loss.
        loss: f32,
    },
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

/// The run.
#[derive(Debug)]
pub struct Training {
    run: RunConfig,
    limits: Limits,
    schedule: LearningRateSchedule,
    phase: Phase,
    /// The server does not end before this, so that workers can come and be told.
    linger_until: Option<Instant>,
    members: Members,
    towers: Assignments,
    aggregator: Aggregator,
    snapshot: Arc<Snapshot>,
    /// The snapshot before, whose memory the next one takes if nobody reads it any more.
    previous: Option<Arc<Snapshot>>,
    loss: Option<f32>,
    throughput: Throughput,
    pace: Pace,
    last_progress: Instant,
    told_standstill: bool,
    /// When there were last as many workers as there have to be.
    enough_workers: Instant,
    events: Vec<Event>,
}

impl Training {
    /// A run that goes on from `state`.
    ///
    /// If it is complete already, it lingers for one lease, so that workers that come back from the
    /// time before can be told.
    #[must_use]
    pub fn new(
        now: Instant,
        session: Session,
        run: RunConfig,
        limits: Limits,
        state: TrainingState,
    ) -> Self {
        let complete = state.global_step >= limits.max_steps;
        Training {
            schedule: LearningRateSchedule::of(&run),
            phase: if complete {
                Phase::Closing(Goodbye::Complete)
            } else {
                Phase::Training
            },
            linger_until: complete.then(|| now + limits.worker_lease),
            members: Members::new(session, limits.worker_lease),
            towers: Assignments::new(run.num_towers),
            aggregator: Aggregator::new(run.num_towers),
            snapshot: Arc::new(Snapshot::new(state)),
            previous: None,
            loss: None,
            throughput: Throughput::default(),
            pace: Pace::default(),
            last_progress: now,
            told_standstill: false,
            enough_workers: now,
            events: Vec::new(),
            run,
            limits,
        }
    }

    /// The run's configuration, with the numerics once a worker has come.
    #[must_use]
    pub fn run(&self) -> &RunConfig {
        &self.run
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

    /// Makes a worker a member.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if its data set or numerics are not the run's.
    pub fn register(
        &mut self,
        now: Instant,
        registration: Registration,
    ) -> Result<Registered, Refusal> {
        if registration.data_digest != self.run.data.digest() {
            return Err(Refusal::DataSet {
                expected: self.run.data.to_string(),
            });
        }
        let Registration { name, numerics, .. } = registration;
        // Before the first worker has come only the threads are known.
        let of_run = self.run.numerics.clone().unwrap_or_else(|| Numerics {
            threads: self.run.threads,
            ..numerics.clone()
        });
        if numerics != of_run && !self.limits.mixed {
            return Err(Refusal::Numerics {
                worker: Box::new(numerics),
                run: Box::new(of_run),
            });
        }
        self.run.numerics.get_or_insert(of_run);
        let member = self.members.admit(now, name.clone(), numerics.clone());
        self.events.push(Event::Joined {
            worker: member.worker,
            name,
            numerics: numerics.to_string(),
        });
        Ok(Registered {
            member,
            lease: self.members.lease(),
        })
    }

    /// Answers a pull; `None` if the caller should ask again when something has changed.
    pub fn pull(&mut self, now: Instant, pull: Pull) -> Option<Assignment> {
        let Some(worker) = self.members.seen(now, pull.member) else {
            return Some(Assignment::Unregistered);
        };
        match self.phase {
            Phase::Training => {}
            Phase::Closing(_) => return None,
            Phase::Closed(goodbye) => {
                worker.told_goodbye = true;
                return Some(Assignment::Goodbye(goodbye));
            }
        }
        let id = pull.member.worker;
        let assigned = self.towers.assign(now, id, self.pace.overdue())?;
        self.throughput.begin(now);
        let digest = self.snapshot.digest;
        let variables = (pull.held != Some(digest))
            .then(|| Bytes::from_owner(SharedVariables(Arc::clone(&self.snapshot))));
        let tower_step = self.announce(id, assigned);
        Some(Assignment::Work(Work {
            tower_step,
            state_digest: digest,
            variables,
        }))
    }

    /// The tower step of an assignment; that it goes to a second worker is worth telling.
    fn announce(&mut self, worker: WorkerId, assigned: Assigned) -> TowerStep {
        let (tower, slow) = match assigned {
            Assigned::Tower(tower) => (tower, None),
            Assigned::Overdue { tower, slow } => (tower, Some(slow)),
        };
        let tower_step = TowerStep {
            global_step: self.snapshot.state.global_step,
            tower,
        };
        if let Some(slow) = slow {
            self.events.push(Event::Overdue {
                tower_step,
                slow,
                also_given_to: worker,
            });
        }
        tower_step
    }

    /// Takes the gradient of a tower step, and commits the step if it was the last.
    ///
    /// `gradients` are those of `push`, checked in size.
    pub fn push(&mut self, now: Instant, push: &Push, gradients: Values) -> Verdict {
        let Some(worker) = self.members.seen(now, push.member) else {
            return Verdict::Unregistered;
        };
        let name = worker.name.clone();
        if let Phase::Closing(goodbye) | Phase::Closed(goodbye) = self.phase {
            return Verdict::Goodbye(goodbye);
        }
        if let Some(verdict) = self.out_of_step(push) {
            return verdict;
        }
        let TowerStep { tower, .. } = push.tower_step;
        if !push.losses.total.is_finite() || !all_finite(&gradients) {
            return self.diverge(push.tower_step, name, push.losses.total);
        }
        if self.aggregator.add(
            tower,
            TowerGradient {
                gradients,
                losses: push.losses,
            },
        ) {
            self.credit(now, push);
        }
        if let Some(complete) = self.aggregator.take_complete() {
            return self.commit(now, complete, push, name);
        }
        Verdict::Accepted
    }

    /// The verdict on a gradient that was not taken at the present state.
    fn out_of_step(&self, push: &Push) -> Option<Verdict> {
        let (step, of_push) = (self.snapshot.state.global_step, push.tower_step.global_step);
        if of_push > step {
            return Some(Verdict::Ahead { global_step: step });
        }
        if of_push < step || push.state_digest != self.snapshot.digest {
            return Some(Verdict::Stale {
                staleness: step.0 - of_push.0,
            });
        }
        None
    }

    fn credit(&mut self, now: Instant, push: &Push) {
        let id = push.member.worker;
        if let Some(time) = self.towers.done(now, push.tower_step.tower, id) {
            self.pace.note(time);
        }
        self.progress(now);
        if let Some(worker) = self.members.get_mut(id) {
            worker.tower_steps += 1;
            worker.compute_time = push.compute_time;
        }
    }

    fn commit(
        &mut self,
        now: Instant,
        towers: Vec<TowerGradient>,
        last: &Push,
        worker: String,
    ) -> Verdict {
        let before = self.snapshot.state.global_step;
        let gradients: Vec<&Values> = towers.iter().map(|tower| &tower.gradients).collect();
        let learning_rate = self.schedule.learning_rate(before);
        let mut next = self.spare_state();
        let committed = commit(
            &self.snapshot.state,
            &gradients,
            learning_rate,
            self.run.moving_average_decay,
            &mut next,
        );
        if committed.is_err() {
            return self.diverge(last.tower_step, worker, last.losses.total);
        }
        self.previous = Some(std::mem::replace(
            &mut self.snapshot,
            Arc::new(Snapshot::new(next)),
        ));
        self.towers.begin_step();
        self.throughput.step(now);
        let loss = mean_total_loss(towers.iter().map(|tower| tower.losses));
        self.loss = Some(loss);
        let step_time = self.throughput.step_time();
        self.events.push(Event::Committed {
            global_step: before,
            loss,
            step_time,
        });
        self.after_commit();
        Verdict::Accepted
    }

    /// A state to be overwritten: the one before the present, if nobody reads it any more.
    fn spare_state(&mut self) -> TrainingState {
        let spare = self.previous.take().and_then(Arc::into_inner);
        spare.map_or_else(|| self.snapshot.state.clone(), |snapshot| snapshot.state)
    }

    fn after_commit(&mut self) {
        let step = self.snapshot.state.global_step;
        if step >= self.limits.max_steps {
            self.phase = Phase::Closing(Goodbye::Complete);
        } else if step.0.is_multiple_of(self.limits.checkpoint_steps) {
            self.events.push(Event::CheckpointDue(self.snapshot()));
        }
    }

    fn diverge(&mut self, tower_step: TowerStep, worker: String, loss: f32) -> Verdict {
        self.phase = Phase::Closing(Goodbye::Diverged);
        self.events.push(Event::Diverged {
            tower_step,
            worker,
            loss,
        });
        Verdict::Goodbye(Goodbye::Diverged)
    }

    /// Notes a sign of life; false if the member is unknown.
    pub fn heartbeat(&mut self, now: Instant, member: Member) -> bool {
        self.members.seen(now, member).is_some()
    }

    /// Ends a membership; what the worker had is free at once.
    pub fn leave(&mut self, member: Member) {
        if let Some(worker) = self.members.remove(member) {
            self.towers.release(member.worker);
            self.events.push(Event::Left {
                worker: member.worker,
                name: worker.name,
            });
        }
    }

    /// A gradient was taken: the run goes on.
    fn progress(&mut self, now: Instant) {
        if self.told_standstill {
            let after = now.saturating_duration_since(self.last_progress);
            self.events.push(Event::GoesOn { after });
        }
        self.told_standstill = false;
        self.last_progress = now;
    }

    /// Lets time pass: gives up the workers whose lease is over, says when the run stands still, and
    /// stops it when it has for too long. Called a few times a second.
    pub fn tick(&mut self, now: Instant) {
        self.expire(now);
        if self.phase != Phase::Training {
            return;
        }
        if self.members.iter().count() >= self.limits.min_workers as usize {
            self.enough_workers = now;
        }
        let still = now.saturating_duration_since(self.last_progress);
        if still > STANDSTILL && !self.told_standstill {
            self.told_standstill = true;
            self.events.push(Event::StandsStill {
                waits_for: self.waits_for(now),
            });
        }
        let too_few = now.saturating_duration_since(self.enough_workers);
        if still.max(too_few) > self.limits.stall_timeout {
            self.events.push(Event::Stalled {
                waits_for: self.waits_for(now),
            });
            self.stop();
        }
    }

    /// Who is missing, and since when.
    fn waits_for(&self, now: Instant) -> String {
        let (have, need) = (self.members.iter().count(), self.limits.min_workers);
        if have == 0 {
            let since = now.saturating_duration_since(self.last_progress).as_secs();
            return format!("workers: none is registered, no gradient came for {since} s");
        }
        let mut missing: Vec<String> = Vec::new();
        if have < need as usize {
            missing.push(format!("workers: {have} of at least {need} are registered"));
        }
        let step = self.snapshot.state.global_step;
        for (tower, holders) in self.towers.open() {
            let who: Vec<String> = holders
                .iter()
                .map(|holder| self.describe(now, holder))
                .collect();
            let who = if who.is_empty() {
                "nobody".to_owned()
            } else {
                who.join(" and ")
            };
            missing.push(format!("step {step} tower {tower}, which {who} computes"));
        }
        missing.join("; ")
    }

    fn describe(&self, now: Instant, holder: &Holder) -> String {
        let id = holder.worker;
        let worker = self.members.iter().find(|(member, _)| *member == id);
        let name = worker.map_or("", |(_, worker)| &worker.name);
        let since = now.saturating_duration_since(holder.since).as_secs();
        format!("worker {id} ({name}) since {since} s")
    }

    fn expire(&mut self, now: Instant) {
        for (id, worker) in self.members.expire(now) {
            self.towers.release(id);
            self.events.push(Event::Lost {
                worker: id,
                name: worker.name,
            });
        }
    }

    /// Ends the run before its time: the server was asked to stop, or the run stands still.
    pub fn stop(&mut self) {
        if self.phase == Phase::Training {
            self.phase = Phase::Closing(Goodbye::Stopping);
        }
    }

    /// The last state is saved: the workers may be told.
    pub fn saved(&mut self) {
        if let Phase::Closing(goodbye) = self.phase {
            self.phase = Phase::Closed(goodbye);
        }
    }

    /// Whether nobody is left to be told that the run is over.
    #[must_use]
    pub fn everyone_told(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Closed(_))
            && self.linger_until.is_none_or(|until| now >= until)
            && self.members.iter().all(|(_, worker)| worker.told_goodbye)
    }

    /// Whether `tower` is one of the run's.
    #[must_use]
    pub fn has_tower(&self, tower: Tower) -> bool {
        tower.0 < self.run.num_towers
    }

    /// How the run stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let step_time = self.throughput.step_time().as_secs_f64();
        let examples = f64::from(self.run.num_towers) * f64::from(self.run.batch_size);
        Status {
            run: self.run.clone(),
            global_step: self.snapshot.state.global_step,
            max_steps: self.limits.max_steps,
            loss: self.loss,
            examples_per_sec: if step_time > 0.0 {
                examples / step_time
            } else {
                0.0
            },
            activity: self.activity(),
            workers: self
                .members
                .iter()
                .map(|(id, worker)| self.worker_status(id, worker))
                .collect(),
        }
    }

    fn activity(&self) -> String {
        match self.phase {
            Phase::Training if self.members.iter().next().is_none() => {
                "waits for workers".to_owned()
            }
            Phase::Training => {
                let (have, need) = (self.aggregator.have(), self.run.num_towers);
                format!(
                    "trains: has {have} of {need} towers of step {}",
                    self.snapshot.state.global_step
                )
            }
            Phase::Closing(_) => "saves the last checkpoint".to_owned(),
            Phase::Closed(Goodbye::Complete) => "is complete".to_owned(),
            Phase::Closed(Goodbye::Stopping) => "stops".to_owned(),
            Phase::Closed(Goodbye::Diverged) => "has diverged".to_owned(),
        }
    }

    fn worker_status(&self, id: WorkerId, worker: &crate::membership::Worker) -> WorkerStatus {
        WorkerStatus {
            worker: id,
            name: worker.name.clone(),
            tower: self.towers.held_by(id),
            tower_steps: worker.tower_steps,
            compute_time: worker.compute_time,
        }
    }
}

fn mean_total_loss(losses: impl ExactSizeIterator<Item = Losses>) -> f32 {
    let count = losses.len() as f64;
    (losses.map(|losses| f64::from(losses.total)).sum::<f64>() / count) as f32
}

/// The state before the first step of a run that begins with `seed`.
#[must_use]
pub fn initial_state(layout: &Layout, seed: u64) -> TrainingState {
    TrainingState::initial(cifar_params::initial::initial_variables(layout, seed))
}

/// A small run for the tests of this crate.
#[cfg(test)]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests;
