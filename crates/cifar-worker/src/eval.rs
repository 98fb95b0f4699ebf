//! Precision @ 1: how often the class with the highest logit is the right one.

use cifar_data::{Batch, Dataset, Split, pipeline};
use tch::TchError;

use crate::gradients::tensors_of;
use crate::model::{Model, NUM_CLASSES, Variables};

/// Examples per batch. It only bounds memory: the last batch may be smaller, and each example is
/// counted once (the tutorial's loop counts 112 of the 10,000 twice).
const BATCH_SIZE: u32 = 200;

/// Counts of a scoring, by class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Examples of each class.
    pub examples: [u32; NUM_CLASSES as usize],
    /// Those of them that were recognised.
    pub correct: [u32; NUM_CLASSES as usize],
}

impl Score {
    /// Examples of all classes.
    #[must_use]
    pub fn num_examples(&self) -> u32 {
        self.examples.iter().sum()
    }

    /// Recognised examples of all classes.
    #[must_use]
    pub fn num_correct(&self) -> u32 {
        self.correct.iter().sum()
    }

    /// Share of the examples that were recognised; 0 where there was none.
    #[must_use]
    pub fn precision_at_1(&self) -> f64 {
        f64::from(self.num_correct()) / f64::from(self.num_examples().max(1))
    }
}

/// Scores `variables` on the first `num_examples` of `split`, at most all of them.
///
/// # Errors
///
/// [`TchError`] if libtorch fails, of memory for example.
pub fn score(
    model: &Model,
    variables: &Variables,
    dataset: &Dataset,
    split: Split,
    num_examples: u32,
) -> Result<Score, TchError> {
    let num_examples = num_examples.min(dataset.records(split).len() as u32);
    let mut score = Score::default();
    for start in (0..num_examples).step_by(BATCH_SIZE as usize) {
        let batch = pipeline::inputs(dataset, split, start..num_examples.min(start + BATCH_SIZE));
        let recognised = predictions(model, variables, &batch)?;
        for (label, predicted) in batch.labels.iter().zip(recognised) {
            score.examples[usize::from(*label)] += 1;
            score.correct[usize::from(*label)] += u32::from(i64::from(*label) == predicted);
        }
    }
    Ok(score)
}

/// The class with the highest logit, for each example.
fn predictions(model: &Model, variables: &Variables, batch: &Batch) -> Result<Vec<i64>, TchError> {
    let (images, _) = tensors_of(batch, model.device())?;
    let logits = tch::no_grad(|| model.inference(variables, &images))?;
    let classes = logits.f_argmax(1, false)?.f_to_device(tch::Device::Cpu)?;
    Vec::<i64>::try_from(classes)
}
