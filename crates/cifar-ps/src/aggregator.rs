//! Collects the gradients that make an update.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cifar_params::Values;
use cifar_sequence::{ExamplesDigest, TowerStep};
use cifar_wire::messages::{Losses, WorkerId};

/// The gradients that have come in for the next update.
///
/// Pure: no clock, lock, wait or log line. Unlike TensorFlow's accumulator, in which one fast worker
/// may fill two places of a step, a place here belongs to a tower, so each part of the batch counts
/// at most once.
#[derive(Debug)]
pub struct Aggregator {
    /// Gradients that make an update.
    needed: usize,
    /// Keyed by tower, so a repeated push cannot count twice, and read in tower order, so the mean
    /// has the same bits whatever order pushes arrive in.
    pending: BTreeMap<TowerStep, TowerGradient>,
}

/// The gradient of one tower, and what is known of it.
#[derive(Debug)]
pub struct TowerGradient {
    /// Step and tower.
    pub of: TowerStep,
    /// All variables end to end.
    pub gradients: Values,
    /// Their Euclidean norm.
    pub norm: f32,
    /// The tower's losses.
    pub losses: Losses,
    /// Digest of the examples that were decoded.
    pub examples: ExamplesDigest,
    /// Who computed it.
    pub worker: WorkerId,
    /// From giving the tower step out to having the gradient.
    pub held: Duration,
    /// The part of it that the worker computed.
    pub compute_time: Duration,
    /// When it came.
    pub arrived: Instant,
    /// Updates since the variables that it was taken at.
    pub staleness: u64,
}

impl Aggregator {
    /// An empty aggregator for updates of `needed` gradients.
    #[must_use]
    pub fn new(needed: u32) -> Self {
        Aggregator {
            needed: needed as usize,
            pending: BTreeMap::new(),
        }
    }

    /// Takes a gradient; false if its tower has one already, which is then kept.
    pub fn add(&mut self, gradient: TowerGradient) -> bool {
        if self.pending.contains_key(&gradient.of) {
            return false;
        }
        self.pending.insert(gradient.of, gradient);
        true
    }

    /// Number of gradients that are there.
    #[must_use]
    pub fn have(&self) -> usize {
        self.pending.len()
    }

    /// Number of gradients that make an update.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// The gradients in tower order, once enough are there; the next update begins with none.
    pub fn take_complete(&mut self) -> Option<Vec<TowerGradient>> {
        if self.pending.len() < self.needed {
            return None;
        }
        Some(std::mem::take(&mut self.pending).into_values().collect())
    }
}

/// The mean of `parts`, element by element: their sum in the given order, divided by their number.
///
/// # Panics
///
/// If there is no part, or one differs from `mean` in length.
pub fn mean<'a>(mut parts: impl ExactSizeIterator<Item = &'a [f32]>, mean: &mut [f32]) {
    let count = parts.len() as f32;
    mean.copy_from_slice(parts.next().expect("there is at least one tower"));
    for part in parts {
        assert_eq!(part.len(), mean.len());
        for (sum, number) in mean.iter_mut().zip(part) {
            *sum += number;
        }
    }
    for sum in mean {
        *sum /= count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::training::fixtures::tower_gradient;

    #[test]
    fn an_update_is_complete_when_every_tower_is_there() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(tower_gradient(0, 1, &[1.0])));
        assert!(aggregator.take_complete().is_none());
        assert!(aggregator.add(tower_gradient(0, 0, &[2.0])));
        let complete = aggregator.take_complete().unwrap();
        assert_eq!(
            [complete[0].norm, complete[1].norm],
            [2.0, 1.0],
            "in tower order"
        );
        assert_eq!(aggregator.have(), 0);
    }

    #[test]
    fn a_second_gradient_of_a_tower_does_not_count() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(tower_gradient(0, 0, &[1.0])));
        assert!(!aggregator.add(tower_gradient(0, 0, &[9.0])));
        assert_eq!(aggregator.have(), 1);
    }

    proptest! {
        #[test]
        fn the_mean_has_the_same_bits_in_every_order_of_arrival(
            order in Just((0..5_u32).collect::<Vec<_>>()).prop_shuffle(),
            numbers in prop::collection::vec(-1e6_f32..1e6, 5),
        ) {
            let mut aggregator = Aggregator::new(5);
            for tower in order {
                aggregator.add(tower_gradient(0, tower, &[numbers[tower as usize]]));
            }
            let complete = aggregator.take_complete().unwrap();
            let mut found = [0.0];
            mean(complete.iter().map(|tower| &tower.gradients[..]), &mut found);
            let expected = numbers[1..].iter().fold(numbers[0], |sum, number| sum + number) / 5.0;
            prop_assert_eq!(found[0].to_bits(), expected.to_bits());
        }
    }
}
