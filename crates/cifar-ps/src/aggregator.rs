//! Collects one gradient per tower of the current step.

use std::collections::BTreeMap;

use cifar_params::Values;
use cifar_sequence::Tower;
use cifar_wire::messages::Losses;

/// The gradients of the current step that have come in.
///
/// Pure: no clock, lock, wait or log line. Unlike TensorFlow's accumulator, in which one fast worker
/// may fill two places of a step, a place here belongs to a tower, so each part of the batch counts
/// exactly once.
#[derive(Debug)]
pub struct Aggregator {
    num_towers: u32,
    /// Keyed by tower, so a repeated push cannot count twice, and read in tower order, so the mean
    /// has the same bits whatever order pushes arrive in.
    pending: BTreeMap<Tower, TowerGradient>,
}

/// The gradient of one tower.
#[derive(Debug)]
pub struct TowerGradient {
    /// All variables end to end.
    pub gradients: Values,
    /// The tower's losses.
    pub losses: Losses,
}

impl Aggregator {
    /// An empty aggregator for `num_towers` towers.
    #[must_use]
    pub fn new(num_towers: u32) -> Self {
        Aggregator {
            num_towers,
            pending: BTreeMap::new(),
        }
    }

    /// Takes the gradient of `tower`; false if it has one already, which is then kept.
    pub fn add(&mut self, tower: Tower, gradient: TowerGradient) -> bool {
        if self.pending.contains_key(&tower) {
            return false;
        }
        self.pending.insert(tower, gradient);
        true
    }

    /// Number of towers whose gradient is there.
    #[must_use]
    pub fn have(&self) -> usize {
        self.pending.len()
    }

    /// The gradients of all towers in tower order, once they are all there; the next step begins
    /// with none.
    pub fn take_complete(&mut self) -> Option<Vec<TowerGradient>> {
        if self.pending.len() < self.num_towers as usize {
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

    fn gradient(numbers: &[f32]) -> TowerGradient {
        TowerGradient {
            gradients: Values::from(numbers),
            losses: Losses {
                cross_entropy: 1.0,
                total: numbers[0],
            },
        }
    }

    #[test]
    fn a_step_is_complete_when_every_tower_is_there() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(Tower(1), gradient(&[1.0])));
        assert!(aggregator.take_complete().is_none());
        assert!(aggregator.add(Tower(0), gradient(&[2.0])));
        let complete = aggregator.take_complete().unwrap();
        assert_eq!(
            [complete[0].losses.total, complete[1].losses.total],
            [2.0, 1.0],
            "in tower order"
        );
        assert_eq!(aggregator.have(), 0);
    }

    #[test]
    fn a_second_gradient_of_a_tower_does_not_count() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(Tower(0), gradient(&[1.0])));
        assert!(!aggregator.add(Tower(0), gradient(&[9.0])));
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
                aggregator.add(Tower(tower), gradient(&[numbers[tower as usize]]));
            }
            let complete = aggregator.take_complete().unwrap();
            let mut found = [0.0];
            mean(complete.iter().map(|tower| &tower.gradients[..]), &mut found);
            let expected = numbers[1..].iter().fold(numbers[0], |sum, number| sum + number) / 5.0;
            prop_assert_eq!(found[0].to_bits(), expected.to_bits());
        }
    }
}
