//! The run as its server has it: what decides about it, its newest state, which states are saved, and what people
//! look at.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pserver_core::{AppliedSerials, At, Core, Given, Limits, Phase, Update};
use pserver_run::RunConfig;
use pserver_run::request::Goodbye;
use pserver_state::TrainingState;
use pserver_wire::gradient::Gradient;
use pserver_wire::messages::{Assignment, Delivery, Member, Pull, Status, TowerSummary, Work};

use crate::event::Event;
use crate::loss_averages::LossAverages;
use crate::saves::Saves;
use crate::snapshot::Snapshot;
use crate::step_log::Throughput;
use crate::summaries::{Part, UpdateSummary, Wanted};

/// Lends the variables of a snapshot to the wire without a copy.
struct SharedVariables(Arc<Snapshot>);

impl AsRef<[u8]> for SharedVariables {
    fn as_ref(&self) -> &[u8] {
        self.0.state.variables.as_bytes()
    }
}

/// How often something is due.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// A checkpoint is due whenever the global step is a multiple of this.
    pub checkpoint_steps: u64,
    /// A summary is due whenever the global step is a multiple of this; 0 for none.
    pub summary_steps: u64,
}

/// The run.
#[derive(Debug)]
pub struct Run {
    /// What decides.
    pub core: Core<Gradient>,
    /// What is saved and to be saved.
    pub saves: Saves,
    snapshot: Arc<Snapshot>,
    checkpoint_steps: u64,
    loss: Option<f32>,
    loss_averages: LossAverages,
    summaries: Wanted,
    throughput: Throughput,
    events: Vec<Event>,
}

impl Run {
    /// A run that goes on from `state`, which the tower steps `applied` have made.
    #[must_use]
    pub fn new(
        now: Instant,
        config: RunConfig,
        limits: Limits,
        state: TrainingState,
        applied: AppliedSerials,
        intervals: Intervals,
    ) -> Self {
        let snapshot = Snapshot::new(state);
        Run {
            core: Core::new(now, config, limits, snapshot.at(), applied),
            saves: Saves::default(),
            checkpoint_steps: intervals.checkpoint_steps,
            loss: None,
            loss_averages: LossAverages::new(snapshot.state.global_step),
            summaries: Wanted::every(intervals.summary_steps),
            throughput: Throughput::default(),
            events: Vec::new(),
            snapshot: Arc::new(snapshot),
        }
    }

    /// The newest state.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.note_facts();
        mem::take(&mut self.events)
    }

    fn note_facts(&mut self) {
        let facts = self.core.take_facts().into_iter();
        self.events.extend(facts.map(Event::Happened));
    }

    /// Answers a pull; `None` if the caller should ask again when something has changed.
    pub fn pull(&mut self, now: Instant, pull: Pull) -> Option<Assignment> {
        let assigned = match self.core.pull(now, pull)? {
            Given::Work(assigned) => assigned,
            Given::Goodbye(goodbye) => return Some(Assignment::Goodbye(goodbye)),
            Given::Unregistered => return Some(Assignment::Unregistered),
        };
        self.throughput.begin(now);
        let At {
            global_step,
            digest,
        } = self.snapshot.at();
        let tower_step = assigned.tower_step;
        let is_asynchronous = self.core.is_asynchronous();
        let serial = is_asynchronous.then(|| tower_step.serial(self.core.run().num_towers));
        Some(Assignment::Work(Work {
            tower_step,
            state_digest: digest,
            variables: match pull.held == Some(digest) {
                true => Delivery::Held,
                false => Delivery::Sent(Bytes::from_owner(SharedVariables(self.snapshot()))),
            },
            attempt: assigned.attempt,
            summary_step: self.summaries.ask(tower_step, serial, global_step),
        }))
    }

    /// Takes what a worker alone knows of a tower step; false if nobody waits for it.
    pub fn summarize(&mut self, now: Instant, member: Member, summary: TowerSummary) -> bool {
        let is_taken = self.core.is_member(member) && self.summaries.take(summary.summary_step);
        if is_taken {
            let part = Part::Tower(now, Box::new(summary));
            self.events.push(Event::Summary(part));
        }
        is_taken
    }

    /// Asks for no more summaries: they cannot be kept.
    pub fn stop_summaries(&mut self) {
        self.summaries = Wanted::every(0);
    }

    /// An update was carried out: `next`, the state after it, is the newest.
    pub fn commit(&mut self, now: Instant, update: Update<Gradient>, next: Snapshot) {
        self.core.committed(now, &update, next.digest);
        self.note_facts();
        let before = mem::replace(&mut self.snapshot, Arc::new(next));
        let (global_step, losses) = (update.at.global_step, update.losses());
        let loss_averages = self.loss_averages.take_in(losses);
        self.loss = Some(losses.total);
        self.throughput.step(now);
        if self.summaries.includes(global_step) {
            let contributions = update.contributions.into_iter();
            let part = Part::Update(Box::new(UpdateSummary {
                at: now,
                before,
                gradients: contributions.map(|one| one.gradient.values).collect(),
                learning_rate: update.learning_rate,
                losses,
                loss_averages,
            }));
            self.events.push(Event::Summary(part));
        }
        self.events.push(Event::Committed {
            global_step,
            loss: losses.total,
            step_time: self.throughput.step_time(),
        });
        let is_due = global_step.next().0.is_multiple_of(self.checkpoint_steps);
        // The last state is saved as the run closes.
        if is_due && self.core.phase() != Phase::Closing(Goodbye::Complete) {
            self.want_checkpoint();
        }
    }

    /// The newest state is to be saved, though no checkpoint may be due.
    pub fn want_checkpoint(&mut self) {
        self.saves.want(self.snapshot());
    }

    /// How the run stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let step_time = self.throughput.step_time().as_secs_f64();
        let examples = self.core.run().examples_per_update() as f64;
        Status {
            loss: self.loss,
            examples_per_sec: match step_time > 0.0 {
                true => examples / step_time,
                false => 0.0,
            },
            ..self.core.status()
        }
    }
}

#[cfg(test)]
mod tests;
