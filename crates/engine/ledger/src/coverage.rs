//! Which examples of which epoch were used, and how often.

use std::collections::BTreeMap;

use pserver_run::Sample;

/// The examples used, counted per epoch.
#[derive(Clone, Debug)]
pub(crate) struct Coverage {
    num_examples: u32,
    epochs: BTreeMap<u64, Marks>,
}

/// One epoch.
#[derive(Clone, Debug)]
struct Marks {
    /// One bit for each example: whether it was used.
    bits: Vec<u64>,
    used: Used,
}

/// How often examples of an epoch were used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Examples used at least once.
    pub(crate) examples: u32,
    /// Uses of examples that had been used before.
    pub(crate) repeated: u64,
}

impl Coverage {
    /// Nothing used yet of epochs with this many examples.
    pub(crate) fn new(num_examples: u32) -> Self {
        Coverage {
            num_examples,
            epochs: BTreeMap::new(),
        }
    }

    /// Takes out the epochs before this one.
    pub(crate) fn take_before(&mut self, epoch: u64) -> impl Iterator<Item = (u64, Used)> + use<> {
        let rest = self.epochs.split_off(&epoch);
        let before = std::mem::replace(&mut self.epochs, rest);
        before.into_iter().map(|(epoch, marks)| (epoch, marks.used))
    }
}

impl Extend<Sample> for Coverage {
    fn extend<T: IntoIterator<Item = Sample>>(&mut self, samples: T) {
        for Sample { epoch, example } in samples {
            let num_words = self.num_examples.div_ceil(u64::BITS) as usize;
            let marks = self.epochs.entry(epoch).or_insert_with(|| Marks {
                bits: vec![0; num_words],
                used: Used::default(),
            });
            let word = &mut marks.bits[(example / u64::BITS) as usize];
            let bit = 1 << (example % u64::BITS);
            if *word & bit == 0 {
                *word |= bit;
                marks.used.examples += 1;
            } else {
                marks.used.repeated += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_is_counted_in_its_epoch() {
        let mut coverage = Coverage::new(130);
        let uses = [(0, 0), (0, 129), (1, 0), (0, 0), (0, 64)];
        coverage.extend(uses.map(|(epoch, example)| Sample { epoch, example }));
        let used = |examples, repeated| Used { examples, repeated };
        let first: Vec<_> = coverage.take_before(1).collect();
        assert_eq!(first, [(0, used(3, 1))]);
        let rest: Vec<_> = coverage.take_before(9).collect();
        assert_eq!(rest, [(1, used(1, 0))]);
        assert_eq!(coverage.take_before(9).count(), 0);
    }
}
