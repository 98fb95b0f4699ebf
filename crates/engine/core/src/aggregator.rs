//! Collects the gradients that make an update.

use std::collections::BTreeMap;

use pserver_run::TowerStep;

use crate::contribution::Contribution;

/// The gradients that have come in for the next update.
///
/// Pure: no clock, lock, wait or log line. Unlike TensorFlow's accumulator, in which one fast worker
/// may fill two places of a step, a place here belongs to a tower, so each part of the batch counts
/// at most once.
#[derive(Debug)]
pub(crate) struct Aggregator<G> {
    /// Gradients that make an update.
    needed: usize,
    /// Keyed by tower, so a repeated push cannot count twice, and read in tower order, so the mean
    /// has the same bits whatever order pushes arrive in.
    pending: BTreeMap<TowerStep, Contribution<G>>,
}

impl<G> Aggregator<G> {
    /// An empty aggregator for updates of `needed` gradients.
    pub(crate) fn new(needed: u32) -> Self {
        Aggregator {
            needed: needed as usize,
            pending: BTreeMap::new(),
        }
    }

    /// Takes a gradient; false if its tower has one already, which is then kept.
    pub(crate) fn add(&mut self, contribution: Contribution<G>) -> bool {
        if self.pending.contains_key(&contribution.of()) {
            return false;
        }
        self.pending.insert(contribution.of(), contribution);
        true
    }

    /// Number of gradients that are there.
    pub(crate) fn have(&self) -> usize {
        self.pending.len()
    }

    /// Number of gradients that make an update.
    pub(crate) fn needed(&self) -> usize {
        self.needed
    }

    /// The gradients in tower order, once enough are there; the next update begins with none.
    pub(crate) fn take_complete(&mut self) -> Option<Vec<Contribution<G>>> {
        if self.pending.len() < self.needed {
            return None;
        }
        Some(std::mem::take(&mut self.pending).into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use pserver_run::Evidence;

    use super::*;
    use crate::fixtures::contribution;

    #[test]
    fn an_update_is_complete_when_every_tower_is_there() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(contribution(0, 1, [1.0, 0.0])));
        assert!(aggregator.take_complete().is_none());
        assert!(aggregator.add(contribution(0, 0, [2.0, 0.0])));
        let complete = aggregator.take_complete().unwrap();
        assert_eq!(
            [complete[0].gradient.norm(), complete[1].gradient.norm()],
            [2.0, 1.0],
            "in tower order"
        );
        assert_eq!(aggregator.have(), 0);
    }

    #[test]
    fn a_second_gradient_of_a_tower_does_not_count() {
        let mut aggregator = Aggregator::new(2);
        assert!(aggregator.add(contribution(0, 0, [1.0, 0.0])));
        assert!(!aggregator.add(contribution(0, 0, [9.0, 0.0])));
        assert_eq!(aggregator.have(), 1);
    }
}
