//! From tower steps to examples.
//!
//! The run is one long sequence of positions. Tower step `(t, m)` of a run with `M` towers takes
//! positions `(t*M + m)*B .. +B`, `B` the batch size. Position `p` lies in epoch `p / E` at offset
//! `p % E`, `E` the number of training examples. An epoch may end in the middle of a batch: nothing
//! is dropped and nothing repeated.
//!
//! ```text
//! position   0         B         2B        3B        4B        5B
//!            | (0, 0)  | (0, 1)  | (1, 0)  | (1, 1)  | (2, 0)  |      M = 2
//! epoch      0 . . . . . . . . . . . . . . 1 . . . . . . . . . .      E = 3.5 B
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::step::TowerStep;
use crate::stream::{Purpose, Stream};

/// How training examples are ordered and prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// The tutorial's training pipeline: shuffled anew each epoch, random crop, flip, brightness
    /// and contrast.
    Distorted,
    /// File order, central crop, no distortion: for comparing with another implementation.
    Plain,
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InputKind::Distorted => "distorted",
            InputKind::Plain => "plain",
        })
    }
}

/// A name that is no input kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no input is called {0:?}; there are distorted and plain")]
pub struct UnknownInputKind(String);

impl FromStr for InputKind {
    type Err = UnknownInputKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "distorted" => Ok(InputKind::Distorted),
            "plain" => Ok(InputKind::Plain),
            _ => Err(UnknownInputKind(name.to_owned())),
        }
    }
}

/// One place in the sample sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// How many times the whole training set was passed before.
    pub epoch: u64,
    /// Index of the example in the training set, in file order.
    pub example: u32,
}

/// The order in which a run uses its training examples.
#[derive(Clone, Debug)]
pub struct SampleSequence {
    seed: u64,
    num_towers: u32,
    batch_size: u32,
    num_examples: u32,
    input: InputKind,
    /// The permutations used last: a batch touches at most a few epochs, and making one anew
    /// costs a shuffle of the whole set.
    permutations: Vec<(u64, Vec<u32>)>,
}

/// Epochs whose permutation is kept. Batches are prepared one step ahead, so that around the end of
/// an epoch two are in use.
const KEPT_PERMUTATIONS: usize = 2;

impl SampleSequence {
    /// The sequence of a run.
    ///
    /// # Panics
    ///
    /// If `num_towers`, `batch_size` or `num_examples` is 0.
    #[must_use]
    pub fn new(
        seed: u64,
        num_towers: u32,
        batch_size: u32,
        num_examples: u32,
        input: InputKind,
    ) -> Self {
        assert!(
            num_towers > 0 && batch_size > 0 && num_examples > 0,
            "an empty sequence has no samples"
        );
        SampleSequence {
            seed,
            num_towers,
            batch_size,
            num_examples,
            input,
            permutations: Vec::new(),
        }
    }

    /// The samples of a tower step, `batch_size` of them, in order.
    pub fn samples(&mut self, tower_step: TowerStep) -> Vec<Sample> {
        let first = tower_step.serial(self.num_towers) * u64::from(self.batch_size);
        (first..first + u64::from(self.batch_size))
            .map(|position| self.sample_at(position))
            .collect()
    }

    fn sample_at(&mut self, position: u64) -> Sample {
        let epoch = position / u64::from(self.num_examples);
        let offset = position % u64::from(self.num_examples);
        let example = match self.input {
            InputKind::Plain => offset as u32,
            InputKind::Distorted => self.permutation(epoch)[offset as usize],
        };
        Sample { epoch, example }
    }

    fn permutation(&mut self, epoch: u64) -> &[u32] {
        let kept = self.permutations.iter().position(|(of, _)| *of == epoch);
        let index = kept.unwrap_or_else(|| {
            self.permutations.truncate(KEPT_PERMUTATIONS - 1);
            self.permutations
                .insert(0, (epoch, permutation(self.seed, epoch, self.num_examples)));
            0
        });
        &self.permutations[index].1
    }
}

/// The order of the examples `0..num_examples` in `epoch`: every order equally likely.
///
/// Fisher and Yates's shuffle as given by Durstenfeld (1964), from the last place down.
#[must_use]
pub fn permutation(seed: u64, epoch: u64, num_examples: u32) -> Vec<u32> {
    let mut stream = Stream::new(seed, Purpose::Permutation, epoch, 0);
    let mut order: Vec<u32> = (0..num_examples).collect();
    for last in (1..num_examples).rev() {
        order.swap(last as usize, stream.below(last + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::step::{GlobalStep, Tower};

    fn all_samples(sequence: &mut SampleSequence, num_towers: u32, steps: u64) -> Vec<Sample> {
        (0..steps)
            .flat_map(|step| (0..num_towers).map(move |tower| (step, tower)))
            .flat_map(|(step, tower)| {
                sequence.samples(TowerStep {
                    global_step: GlobalStep(step),
                    tower: Tower(tower),
                })
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_epoch_uses_every_example_once(
            seed: u64, num_towers in 1_u32..5, batch_size in 1_u32..9, num_examples in 1_u32..40,
        ) {
            let mut sequence =
                SampleSequence::new(seed, num_towers, batch_size, num_examples, InputKind::Distorted);
            let steps = 3 * u64::from(num_examples).div_ceil(u64::from(num_towers * batch_size));
            let samples = all_samples(&mut sequence, num_towers, steps);
            for (epoch, samples) in samples.chunks_exact(num_examples as usize).enumerate() {
                let mut examples: Vec<u32> = samples.iter().map(|sample| sample.example).collect();
                examples.sort_unstable();
                prop_assert_eq!(examples, (0..num_examples).collect::<Vec<_>>());
                prop_assert!(samples.iter().all(|sample| sample.epoch == epoch as u64));
            }
        }

        #[test]
        fn a_tower_step_has_the_same_samples_whenever_it_is_asked_for(
            seed: u64, steps in prop::collection::vec(0_u64..1000, 1..20),
        ) {
            let fresh = || SampleSequence::new(seed, 2, 7, 50, InputKind::Distorted);
            let mut used = fresh();
            for step in steps {
                let tower_step = TowerStep { global_step: GlobalStep(step), tower: Tower(1) };
                prop_assert_eq!(used.samples(tower_step), fresh().samples(tower_step));
            }
        }

        #[test]
        fn the_order_does_not_depend_on_how_the_batch_is_divided(seed: u64) {
            let mut one = SampleSequence::new(seed, 1, 12, 50, InputKind::Distorted);
            let mut three = SampleSequence::new(seed, 3, 4, 50, InputKind::Distorted);
            prop_assert_eq!(all_samples(&mut one, 1, 20), all_samples(&mut three, 3, 20));
        }
    }

    #[test]
    fn plain_input_is_in_file_order() {
        let mut sequence = SampleSequence::new(9, 1, 4, 6, InputKind::Plain);
        let samples = all_samples(&mut sequence, 1, 2);
        let examples: Vec<u32> = samples.iter().map(|sample| sample.example).collect();
        assert_eq!(examples, [0, 1, 2, 3, 4, 5, 0, 1]);
    }

    #[test]
    fn epochs_are_ordered_differently() {
        assert_ne!(permutation(1, 0, 50_000), permutation(1, 1, 50_000));
        assert_ne!(permutation(1, 0, 50_000), permutation(2, 0, 50_000));
    }
}
