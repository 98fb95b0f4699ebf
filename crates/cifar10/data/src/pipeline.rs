//! From samples to a batch.
//!
//! A batch is a function of the data set, the run's seed and the samples: whichever worker makes
//! it, and however often, it has the same bits.

use std::fmt;
use std::ops::Range;

use pserver_run::{ExamplesDigest, InputKind, Sample};

use crate::dataset::Dataset;
use crate::distort::{self, Distortion, IMAGE_VALUES};
use crate::split::Split;

/// Images and labels of some examples.
#[derive(Clone, PartialEq)]
pub struct Batch {
    /// `[B, 24, 24, 3]`, f32, standardized: mean 0 and standard deviation 1 in each image.
    pub images: Vec<f32>,
    /// `[B]`, each in `0..10`.
    pub labels: Vec<u8>,
    /// Which examples these are.
    pub examples_digest: ExamplesDigest,
}

impl Batch {
    /// A batch of no examples, to be overwritten.
    #[must_use]
    pub fn empty() -> Self {
        Batch {
            images: Vec::new(),
            labels: Vec::new(),
            examples_digest: ExamplesDigest::of([]),
        }
    }

    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.len())
            .field("examples_digest", &self.examples_digest)
            .finish_non_exhaustive()
    }
}

/// Makes `batch` the training batch of `samples`, prepared as `input` says. Its memory is used again.
///
/// Distorted examples are the tutorial's `distorted_inputs`, but for where its randomness comes from: the draws of
/// `(seed, epoch, example)`. Plain ones, each the central crop, are for comparing with another implementation.
///
/// # Panics
///
/// If a sample's example is not in the training set: a sequence of another data set.
pub fn train_batch(
    dataset: &Dataset,
    input: InputKind,
    seed: u64,
    samples: &[Sample],
    batch: &mut Batch,
) {
    let distortion = |sample: &Sample| match input {
        InputKind::Distorted => Some(Distortion::draw(seed, sample.epoch, sample.example)),
        InputKind::Plain => None,
    };
    prepare(dataset, Split::Train, samples, distortion, batch);
}

/// Examples `range` of `split` for evaluation: the central crop, in file order.
///
/// The tutorial's `inputs`. Their epoch, for the digest, is 0.
///
/// # Panics
///
/// If `range` goes beyond the split.
#[must_use]
pub fn inputs(dataset: &Dataset, split: Split, range: Range<u32>) -> Batch {
    let samples: Vec<Sample> = range.map(|example| Sample { epoch: 0, example }).collect();
    let mut batch = Batch::empty();
    prepare(dataset, split, &samples, |_| None, &mut batch);
    batch
}

fn prepare(
    dataset: &Dataset,
    split: Split,
    samples: &[Sample],
    distortion: impl Fn(&Sample) -> Option<Distortion>,
    batch: &mut Batch,
) {
    let records = dataset.records(split);
    let Batch { images, labels, .. } = batch;
    images.resize(samples.len() * IMAGE_VALUES, 0.0);
    labels.clear();
    // Noted where a record is read, not where it was planned: a step that skips one is found out.
    let mut decoded = Vec::with_capacity(samples.len());
    for (sample, image) in samples.iter().zip(images.as_chunks_mut().0) {
        let record = records.get(sample.example as usize);
        labels.push(record.label());
        decoded.push(*sample);
        match distortion(sample) {
            Some(distortion) => distort::distort(record, &distortion, image),
            None => distort::central_crop(record, image),
        }
    }
    batch.examples_digest = ExamplesDigest::of(decoded);
}
