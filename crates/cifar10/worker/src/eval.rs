//! Precision @ 1: how often the class with the highest logit is the right one.

use cifar_data::{Batch, Dataset, Split, pipeline};
use pserver_cli::exit::Exit;
use pserver_run::Confusion;
use tch::{TchError, Tensor};

use crate::gradients::tensors_of;
use crate::model::{Model, Variables};

/// Examples per batch. It only bounds memory: the last batch may be smaller, and each example is
/// counted once (the tutorial's loop counts 112 of the 10,000 twice).
const BATCH_SIZE: u32 = 200;

/// Why images cannot be classified.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// libtorch failed, of memory for example.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// The variables are too large to compute with.
    #[error(
        "the network's output is not finite: the model has diverged; take an earlier checkpoint"
    )]
    NotFinite,
}

impl EvalError {
    /// The exit code that it means.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            EvalError::Torch(_) => Exit::Unexpected,
            EvalError::NotFinite => Exit::Diverged,
        }
    }
}

/// Scores `variables` on the first `num_examples` of `split`, at most all of them.
///
/// # Errors
///
/// [`EvalError`].
pub fn score(
    model: &Model,
    variables: &Variables,
    dataset: &Dataset,
    split: Split,
    num_examples: u32,
) -> Result<Confusion, EvalError> {
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
fn predictions(model: &Model, variables: &Variables, batch: &Batch) -> Result<Vec<i64>, EvalError> {
    let (images, _) = tensors_of(batch, model.device())?;
    let logits = finite_logits(model, variables, &images)?;
    let classes = logits.f_argmax(1, false)?.f_to_device(tch::Device::Cpu)?;
    Ok(Vec::<i64>::try_from(classes)?)
}

/// The logits of images, `[N, 10]`: numbers that can be compared.
pub(crate) fn finite_logits(
    model: &Model,
    variables: &Variables,
    images: &Tensor,
) -> Result<Tensor, EvalError> {
    let logits = tch::no_grad(|| model.inference(variables, images))?;
    let is_finite = logits.f_isfinite()?.f_all()?;
    match bool::try_from(is_finite)? {
        true => Ok(logits),
        false => Err(EvalError::NotFinite),
    }
}
