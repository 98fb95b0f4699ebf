//! One update on its way: from the gradients that it takes to what the ledger says of it.

use std::time::{Duration, Instant};

use pserver_run::record::{Commit, Phases, TowerRecord};
use pserver_run::request::Losses;
use pserver_run::{Evidence, ExamplesDigest, GlobalStep, StateDigest};

use crate::contribution::Contribution;
use crate::serials::AppliedSerials;

/// A state, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Updates that led to it.
    pub global_step: GlobalStep,
    /// Its digest.
    pub digest: StateDigest,
}

/// The gradients of an update, and how they are to be applied.
///
/// Nothing of the run changes until [`Core::committed`](crate::decisions::Core::committed) hears that it was carried out.
#[derive(Debug)]
pub struct Update<G> {
    /// The state that it is applied to.
    pub at: At,
    /// The gradients, in tower order.
    pub contributions: Vec<Contribution<G>>,
    /// The learning rate.
    pub learning_rate: f32,
    /// Upper limit of the moving averages' decay.
    pub moving_average_decay: f32,
    /// The tower steps that are applied after it, in asynchronous mode.
    pub applied: Option<AppliedSerials>,
    /// From the update before to the last of its gradients.
    pub gather: Duration,
    /// When the last of its gradients came.
    pub gathered: Instant,
}

impl<G: Evidence> Update<G> {
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
        self.mean(|one| one.gradient.norm())
    }

    fn mean(&self, of: impl Fn(&Contribution<G>) -> f32) -> f32 {
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
            global_step: self.at.global_step,
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

fn tower_record<G: Evidence>(contribution: &Contribution<G>, gathered: Instant) -> TowerRecord {
    let Contribution { push, gradient, .. } = contribution;
    TowerRecord {
        of: push.tower_step,
        worker: push.member.worker.0,
        examples: ExamplesDigest(push.examples_digest),
        loss: push.losses.total,
        norm: gradient.norm(),
        held_micros: micros(contribution.held),
        compute_micros: micros(push.compute_time),
        waited_micros: micros(gathered.saturating_duration_since(contribution.arrived)),
        staleness: contribution.staleness,
    }
}

/// Whole microseconds; the largest number of them for what is longer than half a million years.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
