//! An immutable state with its digest, and how an update makes the next one.

use pserver_core::commit::{After, Before, NotFinite, commit};
use pserver_core::{At, Update, averages};
use pserver_run::StateDigest;
use pserver_state::TrainingState;
use pserver_wire::gradient::Gradient;

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

    /// Which state it is.
    #[must_use]
    pub fn at(&self) -> At {
        At {
            global_step: self.state.global_step,
            digest: self.digest,
        }
    }

    /// Makes `next` the state after an update of this one.
    ///
    /// # Errors
    ///
    /// [`NotFinite`] if a variable or a moving average is not finite after it.
    pub fn apply(
        &self,
        update: &Update<Gradient>,
        next: &mut TrainingState,
    ) -> Result<(), NotFinite> {
        let contributions = update.contributions.iter();
        let gradients: Vec<&[f32]> = contributions.map(|one| &one.gradient.values[..]).collect();
        let (rate, decay) = (update.learning_rate, update.moving_average_decay);
        apply(&self.state, &gradients, rate, decay, next)
    }
}

/// Makes `next` the state that follows `state`, by gradients in tower order.
///
/// # Errors
///
/// [`NotFinite`] if a variable or a moving average is not finite after it.
///
/// # Panics
///
/// As [`commit`].
pub fn apply(
    state: &TrainingState,
    gradients: &[&[f32]],
    learning_rate: f32,
    moving_average_decay: f32,
    next: &mut TrainingState,
) -> Result<(), NotFinite> {
    next.global_step = state.global_step.next();
    let before = Before {
        variables: &state.variables,
        averages: &state.averages,
        learning_rate,
        decay: averages::decay(moving_average_decay, next.global_step),
    };
    let mut after = After {
        variables: &mut next.variables,
        averages: &mut next.averages,
    };
    commit(&before, gradients, &mut after)
}
