//! One update on its way: from the gradients that it takes to the state after it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pserver_ledger::Commit;
use pserver_ledger::record::{Phases, TowerRecord, Unit};
use pserver_run::{GlobalStep, StateDigest};
use pserver_state::TrainingState;
use pserver_wire::messages::Losses;

use crate::aggregator::TowerGradient;
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
    pub(crate) gradients: Vec<TowerGradient>,
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
        let gradients: Vec<&[f32]> = self.gradients.iter().map(|of| &of.values[..]).collect();
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
        self.mean(|of| of.losses.total)
    }

    /// Mean of each loss over the gradients.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            cross_entropy: self.mean(|of| of.losses.cross_entropy),
            local3_weight_loss: self.mean(|of| of.losses.local3_weight_loss),
            local4_weight_loss: self.mean(|of| of.losses.local4_weight_loss),
            total: self.loss(),
        }
    }

    /// Mean norm of the gradients.
    #[must_use]
    pub fn norm(&self) -> f32 {
        self.mean(|of| of.norm)
    }

    fn mean(&self, of: impl Fn(&TowerGradient) -> f32) -> f32 {
        let sum: f64 = self.gradients.iter().map(|g| f64::from(of(g))).sum();
        (sum / self.gradients.len() as f64) as f32
    }

    /// What the ledger is to say of it.
    #[must_use]
    pub fn record(&self, digest: StateDigest, phases: Phases) -> Commit {
        Commit {
            global_step: self.global_step(),
            learning_rate: self.learning_rate,
            loss: self.loss(),
            towers: self
                .gradients
                .iter()
                .map(|gradient| tower_record(gradient, self.gathered))
                .collect(),
            gather_micros: micros(self.gather),
            phases,
            digest,
        }
    }
}

fn tower_record(gradient: &TowerGradient, gathered: Instant) -> TowerRecord {
    TowerRecord {
        of: Unit {
            step: gradient.of.global_step,
            tower: gradient.of.tower,
        },
        worker: gradient.worker.0,
        examples: gradient.examples,
        loss: gradient.losses.total,
        norm: gradient.norm,
        held_micros: micros(gradient.held),
        compute_micros: micros(gradient.compute_time),
        waited_micros: micros(gathered.saturating_duration_since(gradient.arrived)),
        staleness: gradient.staleness,
    }
}

/// Whole microseconds; the largest number of them for what is longer than half a million years.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
