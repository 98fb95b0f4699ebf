//! One worker's gradient of a tower step, with all that is known of it.

use std::fmt;
use std::time::{Duration, Instant};

use pserver_run::member::WorkerId;
use pserver_run::request::Push;
use pserver_run::{Numerics, TowerStep};

/// One worker's gradient of a tower step, and what is known of it.
#[derive(Debug)]
pub struct Contribution<G> {
    /// Whose it is and of what, and what the worker says of it.
    pub push: Push,
    /// The gradient.
    pub gradient: G,
    /// What is wrong with it at first sight.
    pub doubt: Option<Doubt>,
    /// What the worker computes with: only equals come to the same bits.
    pub numerics: Numerics,
    /// From giving the tower step out to having the gradient.
    pub held: Duration,
    /// When it came.
    pub arrived: Instant,
    /// Updates since the variables that it was taken at.
    pub staleness: u64,
}

impl<G> Contribution<G> {
    /// The tower step.
    #[must_use]
    pub fn of(&self) -> TowerStep {
        self.push.tower_step
    }

    /// Who computed it.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.push.member.worker
    }
}

/// What is wrong with a gradient at first sight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doubt {
    /// Its loss or one of its numbers is infinite or no number.
    NotFinite,
    /// Its norm is far above those of the last steps.
    Absurd {
        /// Its norm.
        norm: f32,
        /// The median of the last steps.
        median: f32,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::NotFinite => f.write_str("it is not finite"),
            Doubt::Absurd { norm, median } => {
                write!(
                    f,
                    "its norm is {norm}, the median of the last steps {median}"
                )
            }
        }
    }
}
