//! The score of a checkpoint: what the examples of each class were taken for.

use serde::{Deserialize, Serialize};

use crate::GlobalStep;
use crate::data_set::NUM_CLASSES;

/// A score. All that it says follows from its table of counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Updates that made the state that was scored.
    pub global_step: GlobalStep,
    /// Which examples were looked at.
    pub eval_data: EvalData,
    /// Which numbers of the state the network took.
    pub variables: ScoredVariables,
    /// What was seen.
    pub confusion: Confusion,
}

/// Which examples are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalData {
    /// Those kept for testing.
    #[default]
    Test,
    /// The training examples, without distortion.
    TrainEval,
}

/// Which numbers of a state are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoredVariables {
    /// The moving averages.
    #[default]
    Averages,
    /// The variables themselves.
    Raw,
}

/// How many examples of each class were taken for which: a row for each label, in it a column for
/// each class that had the highest logit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion(pub [[u32; NUM_CLASSES]; NUM_CLASSES]);

impl Confusion {
    /// Counts an example of class `label` that was taken for `predicted`.
    ///
    /// # Panics
    ///
    /// If one of them is no class.
    pub fn note(&mut self, label: usize, predicted: usize) {
        self.0[label][predicted] += 1;
    }

    /// Examples of class `label`.
    ///
    /// # Panics
    ///
    /// If that is no class.
    #[must_use]
    pub fn examples_of(&self, label: usize) -> u64 {
        self.0[label].iter().map(|count| u64::from(*count)).sum()
    }

    /// Those of them that were recognised.
    ///
    /// # Panics
    ///
    /// If that is no class.
    #[must_use]
    pub fn correct_of(&self, label: usize) -> u64 {
        u64::from(self.0[label][label])
    }

    /// Share of the examples of class `label` that were recognised; 0 where there was none.
    ///
    /// # Panics
    ///
    /// If that is no class.
    #[must_use]
    pub fn precision_of(&self, label: usize) -> f64 {
        share(self.correct_of(label), self.examples_of(label))
    }

    /// Examples of all classes.
    #[must_use]
    pub fn num_examples(&self) -> u64 {
        (0..NUM_CLASSES).map(|label| self.examples_of(label)).sum()
    }

    /// Recognised examples of all classes.
    #[must_use]
    pub fn num_correct(&self) -> u64 {
        (0..NUM_CLASSES).map(|label| self.correct_of(label)).sum()
    }

    /// Share of the examples that were recognised; 0 where there was none.
    #[must_use]
    pub fn precision_at_1(&self) -> f64 {
        share(self.num_correct(), self.num_examples())
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_the_diagonal_is_right() {
        let mut confusion = Confusion::default();
        for (label, predicted) in [(0, 0), (0, 0), (0, 3), (9, 9), (4, 2)] {
            confusion.note(label, predicted);
        }
        assert_eq!(confusion.num_examples(), 5);
        assert_eq!(confusion.num_correct(), 3);
        assert!((confusion.precision_at_1() - 0.6).abs() < 1e-12);
        assert_eq!(confusion.examples_of(0), 3);
        assert_eq!(confusion.correct_of(0), 2);
        assert!(confusion.precision_of(4).abs() < 1e-12);
        assert!(confusion.precision_of(7).abs() < 1e-12);
    }
}
