//! One update on its way: from the gradients that it takes to the state after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pserver_ledger::Commit;
use pserver_ledger::record::{Phases, TowerRecord};
use pserver_run::{ExamplesDigest, GlobalStep, StateDigest};
use pserver_state::TrainingState;
use pserver_wire::messages::Losses;

use crate::aggregator::Contribution;
use crate::commit::{NotFinite, commit};
use crate::serials::AppliedSerials;
use crate::training::Snapshot;

/// The gradients of an update, and what they are applied to.
///
/// Nothing of the run changes until it is handed back to
/// [`Training::commit`](crate::training::Training::commit).
#[derive(Debug)]
pub struct Update {
    /// The state that it is applied to.
    pub(crate) before: Arc<Snapshot>,
    /// The gradients, in tower order.
    pub(crate) contributions: Vec<Contribution>,
    /// The learning rate.
    pub(crate) learning_rate: f32,
    /// Upper limit of the moving averages' decay.
    pub(crate) moving_average_decay: f32,
    /// The tower steps that are applied after it, in asynchronous mode.
    pub(crate) applied: Option<AppliedSerials>,
    /// From the update before to the last of its gradients.
    pub(crate) gather: Duration,
    /// When the last of its gradients came.
    pub(crate) gathered: Instant,
}

impl Update {
    /// The step, counted before the update.
    #[must_use]
    pub fn global_step(&self) -> GlobalStep {
        self.before.state.global_step
    }

    /// Makes `next` the state after the update.
    ///
    /// # Errors
    ///
    /// [`NotFinite`] if a variable or a moving average is not finite after it.
    pub fn apply(&self, next: &mut TrainingState) -> Result<(), NotFinite> {
        let gradients: Vec<&[f32]> = self
            .contributions
            .iter()
            .map(|one| &one.gradient.values[..])
            .collect();
        commit(
            &self.before.state,
            &gradients,
            self.learning_rate,
            self.moving_average_decay,
            next,
        )
    }

    /// The tower steps that are applied after it, in asynchronous mode.
    #[must_use]
    pub fn applied(&self) -> Option<&AppliedSerials> {
        self.applied.as_ref()
    }

    /// Mean total loss over the gradients.
    #[must_use]
    pub fn loss(&self) -> f32 {
        self.mean(|one| one.push.losses.total)
    }

    /// Mean of each loss over the gradients.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            cross_entropy: self.mean(|one| one.push.losses.cross_entropy),
            local3_weight_loss: self.mean(|one| one.push.losses.local3_weight_loss),
            local4_weight_loss: self.mean(|one| one.push.losses.local4_weight_loss),
            total: self.loss(),
        }
    }

    /// Mean norm of the gradients.
    #[must_use]
    pub fn norm(&self) -> f32 {
        self.mean(|one| one.gradient.norm)
    }

    fn mean(&self, of: impl Fn(&Contribution) -> f32) -> f32 {
        let sum: f64 = self
            .contributions
            .iter()
            .map(|one| f64::from(of(one)))
            .sum();
        (sum / self.contributions.len() as f64) as f32
    }

    /// What the ledger is to say of it.
    #[must_use]
    pub fn record(&self, digest: StateDigest, phases: Phases) -> Commit {
        Commit {
            global_step: self.global_step(),
            learning_rate: self.learning_rate,
            loss: self.loss(),
            towers: self
                .contributions
                .iter()
                .map(|one| tower_record(one, self.gathered))
                .collect(),
            gather_micros: micros(self.gather),
            phases,
            digest,
        }
    }
}

fn tower_record(contribution: &Contribution, gathered: Instant) -> TowerRecord {
    let Contribution { push, gradient, .. } = contribution;
    TowerRecord {
        of: push.tower_step,
        worker: push.member.worker.0,
        examples: ExamplesDigest(push.examples_digest),
        loss: push.losses.total,
        norm: gradient.norm,
        held_micros: micros(contribution.held),
        compute_micros: micros(push.compute_time),
        waited_micros: micros(gathered.saturating_duration_since(contribution.arrived)),
        staleness: contribution.staleness,
    }
}

/// Whole microseconds; the largest number of them for what is longer than half a million years.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
