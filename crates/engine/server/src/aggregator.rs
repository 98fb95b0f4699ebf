//! Collects the gradients that make an update.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use pserver_run::{Numerics, TowerStep};
use pserver_wire::gradient::Gradient;
use pserver_wire::messages::{Push, WorkerId};

use crate::scrutiny::Doubt;

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
    pending: BTreeMap<TowerStep, Contribution>,
}

/// One worker's gradient of a tower step, and what is known of it.
#[derive(Debug)]
pub struct Contribution {
    /// Whose it is and of what, and what the worker says of it.
    pub push: Push,
    /// The gradient.
    pub gradient: Gradient,
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

impl Contribution {
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
    pub fn add(&mut self, contribution: Contribution) -> bool {
        if self.pending.contains_key(&contribution.of()) {
            return false;
        }
        self.pending.insert(contribution.of(), contribution);
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
    pub fn take_complete(&mut self) -> Option<Vec<Contribution>> {
        if self.pending.len() < self.needed {
            return None;
        }
        Some(std::mem::take(&mut self.pending).into_values().collect())
    }
}

/// The mean of one number of each tower: their sum in the given order, divided by their number.
#[inline(always)]
pub fn mean_of<const N: usize>(towers: [f32; N]) -> f32 {
    const { assert!(N > 0, "there is at least one tower") };
    towers[1..]
        .iter()
        .fold(towers[0], |sum, number| sum + number)
        / N as f32
}

/// The mean of the towers' numbers in `piece`, element by element: their sum in the given order,
/// divided by their number.
///
/// # Panics
///
/// If there is no tower, one ends before `piece`, or `mean` is not of its length.
#[inline(always)]
pub fn mean(towers: &[&[f32]], piece: Range<usize>, mean: &mut [f32]) {
    let (first, others) = towers.split_first().expect("there is at least one tower");
    mean.copy_from_slice(&first[piece.clone()]);
    // Each count is code of its own, with its own load for each tower: a processor learns by the
    // load what memory it will want next, and one that goes from tower to tower teaches it nothing.
    for group in others.chunks(4) {
        match *group {
            [a] => add_each([a], piece.clone(), mean),
            [a, b] => add_each([a, b], piece.clone(), mean),
            [a, b, c] => add_each([a, b, c], piece.clone(), mean),
            [a, b, c, d] => add_each([a, b, c, d], piece.clone(), mean),
            _ => unreachable!("a group has one to four towers"),
        }
    }
    let count = towers.len() as f32;
    for sum in mean {
        *sum /= count;
    }
}

/// Adds the numbers of one tower after the other to `sums`.
#[inline(always)]
fn add_each<const N: usize>(towers: [&[f32]; N], piece: Range<usize>, sums: &mut [f32]) {
    let towers = towers.map(|tower| &tower[piece.clone()]);
    // Known here, it need not be asked again for each number.
    assert!(towers.iter().all(|tower| tower.len() == sums.len()));
    for (index, sum) in sums.iter_mut().enumerate() {
        for tower in towers {
            *sum += tower[index];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::training::fixtures::contribution;

    #[test]
    fn an_update_is_complete_when_every_tower_is_there() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(contribution(0, 1, &[1.0])));
        assert!(aggregator.take_complete().is_none());
        assert!(aggregator.add(contribution(0, 0, &[2.0])));
        let complete = aggregator.take_complete().unwrap();
        assert_eq!(
            [complete[0].gradient.norm, complete[1].gradient.norm],
            [2.0, 1.0],
            "in tower order"
        );
        assert_eq!(aggregator.have(), 0);
    }

    #[test]
    fn a_second_gradient_of_a_tower_does_not_count() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(contribution(0, 0, &[1.0])));
        assert!(!aggregator.add(contribution(0, 0, &[9.0])));
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
                aggregator.add(contribution(0, tower, &[numbers[tower as usize]]));
            }
            let complete = aggregator.take_complete().unwrap();
            let mut found = [0.0];
            let towers: Vec<&[f32]> = complete.iter().map(|tower| &tower.gradient.values[..]).collect();
            mean(&towers, 0..1, &mut found);
            let expected = numbers[1..].iter().fold(numbers[0], |sum, number| sum + number) / 5.0;
            prop_assert_eq!(found[0].to_bits(), expected.to_bits());
        }
    }
}
