//! Precision @ 1: how often the class with the highest logit is the right one.

use anyhow::anyhow;
use cifar_data::{Dataset, Split, pipeline};
use pserver_cli::exit::{Exit, Failure};
use pserver_run::Confusion;
use tch::{Device, Tensor};

use crate::gradients::tensors_of;
use crate::model::{Model, Variables};

/// Examples per batch. It only bounds memory: the last batch may be smaller, and each example is
/// counted once (the tutorial's loop counts 112 of the 10,000 twice).
const BATCH_SIZE: u32 = 200;

/// Scores `variables` on the first `num_examples` of `split`, at most all of them.
///
/// # Errors
///
/// A [`Failure`] if libtorch fails, of memory for example, or the network's output is not finite.
pub fn score(
    model: &Model,
    variables: &Variables,
    dataset: &Dataset,
    split: Split,
    num_examples: u32,
) -> Result<Confusion, Failure> {
    let num_examples = num_examples.min(dataset.records(split).len() as u32);
    let mut confusion = Confusion::default();
    for start in (0..num_examples).step_by(BATCH_SIZE as usize) {
        let batch = pipeline::inputs(dataset, split, start..num_examples.min(start + BATCH_SIZE));
        let (images, _) = tensors_of(&batch, model.device())?;
        let logits = finite_logits(model, variables, &images)?;
        let classes = logits.f_argmax(1, false)?.f_to_device(Device::Cpu)?;
        for (label, predicted) in batch.labels.iter().zip(Vec::<i64>::try_from(classes)?) {
            confusion.note(usize::from(*label), predicted as usize);
        }
    }
    Ok(confusion)
}

/// The logits of images, `[N, 10]`: numbers that can be compared.
pub(crate) fn finite_logits(
    model: &Model,
    variables: &Variables,
    images: &Tensor,
) -> Result<Tensor, Failure> {
    let logits = tch::no_grad(|| model.inference(variables, images))?;
    // The variables may be too large to compute with.
    let is_finite = bool::try_from(logits.f_isfinite()?.f_all()?)?;
    if !is_finite {
        let error = anyhow!(
            "the network's output is not finite: the model has diverged; take an earlier checkpoint"
        );
        return Err(Failure::new(Exit::Diverged, error));
    }
    Ok(logits)
}
