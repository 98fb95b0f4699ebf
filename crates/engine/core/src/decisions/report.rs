//! What the run says of itself.

use std::time::Instant;

use pserver_run::Evidence;
use pserver_run::member::WorkerId;
use pserver_run::request::Goodbye;
use pserver_run::status::{Status, WorkerStatus};

use super::{Core, Phase};
use crate::assignment::Holder;
use crate::membership::Worker;

impl<G: Evidence> Core<G> {
    /// How the run stands. Its loss and speed are nothing that decisions are made of, and not known here.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            run: self.run.clone(),
            global_step: self.step.at.global_step,
            max_steps: self.limits.max_steps,
            loss: None,
            examples_per_sec: 0.0,
            activity: self.activity(),
            workers: self
                .members
                .iter()
                .map(|(id, worker)| self.worker_status(id, worker))
                .collect(),
        }
    }

    /// How many workers take part.
    #[must_use]
    pub fn num_workers(&self) -> usize {
        self.members.ids().count()
    }

    fn activity(&self) -> String {
        match self.lifecycle.phase {
            Phase::Training if self.members.iter().next().is_none() => {
                "waits for workers".to_owned()
            }
            Phase::Training => {
                let (have, need) = (self.step.aggregator.have(), self.step.aggregator.needed());
                format!(
                    "trains: has {have} of {need} towers of step {}",
                    self.step.at.global_step
                )
            }
            Phase::Closing(_) => "saves the last checkpoint".to_owned(),
            Phase::Closed(Goodbye::Complete) => "is complete".to_owned(),
            Phase::Closed(Goodbye::Stopping) => "stops".to_owned(),
            // Only workers are put into quarantine.
            Phase::Closed(Goodbye::Diverged | Goodbye::Quarantined) => "has diverged".to_owned(),
        }
    }

    fn worker_status(&self, id: WorkerId, worker: &Worker) -> WorkerStatus {
        WorkerStatus {
            worker: id,
            name: worker.name.clone(),
            tower: self.step.towers.held_by(id).map(|held| held.tower),
            tower_steps: worker.tower_steps,
            compute_time: worker.compute_time,
        }
    }

    /// Who is missing, and since when.
    pub(super) fn waits_for(&self, now: Instant) -> String {
        let (have, need) = (self.members.ids().count(), self.limits.min_workers);
        if have == 0 {
            let since = self.patience.still(now).as_secs();
            return format!("workers: none is registered, no gradient came for {since} s");
        }
        let mut missing: Vec<String> = Vec::new();
        if have < need as usize {
            missing.push(format!("workers: {have} of at least {need} are registered"));
        }
        for (tower_step, open) in self.step.towers.open() {
            let holders = open.holders.iter();
            let who: Vec<String> = holders.map(|holder| self.describe(now, holder)).collect();
            let who = if who.is_empty() {
                "nobody".to_owned()
            } else {
                who.join(" and ")
            };
            missing.push(format!("{tower_step}, which {who} computes"));
        }
        missing.join("; ")
    }

    fn describe(&self, now: Instant, holder: &Holder) -> String {
        let (worker, name) = (holder.worker, self.name_of(holder.worker));
        let since = now.saturating_duration_since(holder.since).as_secs();
        format!("worker {worker} ({name}) since {since} s")
    }
}
