//! Where the time of the last steps went.

use std::collections::VecDeque;

use pserver_ledger::median;
use pserver_ledger::record::Commit;
use pserver_ledger::step_time::{PARTS, Part, parts_of, total_of};
use serde::Serialize;

/// Steps that the medians are taken of.
pub const WINDOW: usize = 128;

/// Steps over which the speed is averaged, as in the tutorial's lines.
const SPEED_WINDOW: usize = 20;

/// The times of the last steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    steps: VecDeque<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    parts: [u64; PARTS.len()],
    total: u64,
    examples: u64,
}

/// The median step of the last ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MedianStep {
    /// Its whole time, in microseconds.
    pub median_micros: u64,
    /// The parts, one after the other.
    pub parts: Vec<Part>,
}

impl Times {
    /// A step was committed that took so many examples.
    pub(crate) fn add(&mut self, commit: &Commit, examples: u64) {
        if self.steps.len() == WINDOW {
            self.steps.pop_front();
        }
        self.steps.push_back(Step {
            parts: parts_of(commit),
            total: total_of(commit),
            examples,
        });
    }

    /// The median of the last steps; `None` before the first.
    #[must_use]
    pub fn median_step(&self) -> Option<MedianStep> {
        if self.steps.is_empty() {
            return None;
        }
        Some(MedianStep {
            median_micros: median(self.steps.iter().map(|step| step.total)),
            parts: Part::medians(self.steps.iter().map(|step| step.parts)),
        })
    }

    /// Examples per second over the last few steps; 0 before the first.
    #[must_use]
    pub fn examples_per_sec(&self) -> f64 {
        let last = || self.steps.iter().rev().take(SPEED_WINDOW);
        let examples: f64 = last().map(|step| step.examples as f64).sum();
        let micros: f64 = last().map(|step| step.total as f64).sum();
        examples * 1e6 / micros.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use pserver_ledger::fixtures::commit;

    use super::*;

    #[test]
    fn the_medians_are_those_of_the_last_steps() {
        let mut times = Times::default();
        assert_eq!(times.median_step(), None);
        assert_eq!(times.examples_per_sec(), 0.0);
        for step in 0..500_u64 {
            let mut commit = commit(step, &[0, 1]);
            commit.phases.apply_micros = if step < 400 { 90_000 } else { 10_000 };
            commit.gather_micros = 30_000;
            times.add(&commit, 80);
        }
        assert_eq!(times.steps.len(), WINDOW);
        let step = times.median_step().unwrap();
        assert_eq!(step.median_micros, 40_000);
        assert_eq!(step.parts.len(), PARTS.len());
        assert_eq!(step.parts[3].median_micros, 10_000);
        assert!((times.examples_per_sec() - 2000.0).abs() < 1e-6);
    }
}
