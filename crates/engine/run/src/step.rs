//! The unit of work: one tower of one global step.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of aggregated updates applied to the variables so far; 0 before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GlobalStep(pub u64);

impl GlobalStep {
    /// The step after this one; of the last number, which no run comes to, itself.
    #[must_use]
    pub fn next(self) -> Self {
        GlobalStep(self.0.saturating_add(1))
    }
}

impl fmt::Display for GlobalStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Index of one of the `num_towers` micro-batches of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tower(pub u32);

impl fmt::Display for Tower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One tower of one step: the unit that a worker computes and the server counts once.
///
/// Its gradient depends on nothing but the variables at `global_step`, the run's seed and this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TowerStep {
    /// The step whose variables the gradient is taken at; in asynchronous mode it only counts through the sample
    /// sequence.
    #[serde(rename = "step")]
    pub global_step: GlobalStep,
    /// Which micro-batch of that step.
    pub tower: Tower,
}

impl TowerStep {
    /// Number of tower steps that come before this one in a run of `num_towers` towers; of a step
    /// that no run comes to, the largest number.
    #[must_use]
    pub fn serial(self, num_towers: u32) -> u64 {
        let whole_steps = self.global_step.0.saturating_mul(u64::from(num_towers));
        whole_steps.saturating_add(u64::from(self.tower.0))
    }

    /// The tower step that `serial` others come before.
    ///
    /// # Panics
    ///
    /// If `num_towers` is 0.
    #[must_use]
    pub fn with_serial(serial: u64, num_towers: u32) -> Self {
        TowerStep {
            global_step: GlobalStep(serial / u64::from(num_towers)),
            tower: Tower((serial % u64::from(num_towers)) as u32),
        }
    }
}

impl fmt::Display for TowerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} tower {}", self.global_step, self.tower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_serials_end_with_the_largest_number() {
        assert_eq!(GlobalStep(7).next(), GlobalStep(8));
        assert_eq!(GlobalStep(u64::MAX).next(), GlobalStep(u64::MAX));
        let last = TowerStep {
            global_step: GlobalStep(u64::MAX),
            tower: Tower(1),
        };
        assert_eq!(last.serial(4), u64::MAX);
    }
}
