//! Precision @ 1: how often the class with the highest logit is the right one.

use cifar_data::{Batch, Dataset, Split, pipeline};
use cifar_params::Confusion;
use tch::TchError;

use crate::gradients::tensors_of;
use crate::model::{Model, Variables};

/// Examples per batch. It only bounds memory: the last batch may be smaller, and each example is
/// counted once (the tutorial's loop counts 112 of the 10,000 twice).
const BATCH_SIZE: u32 = 200;

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
) -> Result<Confusion, TchError> {
    let num_examples = num_examples.min(dataset.records(split).len() as u32);
    let mut confusion = Confusion::default();
    for start in (0..num_examples).step_by(BATCH_SIZE as usize) {
        let batch = pipeline::inputs(dataset, split, start..num_examples.min(start + BATCH_SIZE));
        let predicted = predictions(model, variables, &batch)?;
        for (label, predicted) in batch.labels.iter().zip(predicted) {
            confusion.note(usize::from(*label), predicted as usize);
        }
    }
    Ok(confusion)
}

/// The class with the highest logit, for each example.
fn predictions(model: &Model, variables: &Variables, batch: &Batch) -> Result<Vec<i64>, TchError> {
    let (images, _) = tensors_of(batch, model.device())?;
    let logits = tch::no_grad(|| model.inference(variables, &images))?;
    let classes = logits.f_argmax(1, false)?.f_to_device(tch::Device::Cpu)?;
    Vec::<i64>::try_from(classes)
}
