//! The gradient of one tower step.

use cifar_data::Batch;
use cifar_model::{DECAYED, WEIGHT_DECAY};
use pserver_run::Layout;
use pserver_state::Values;
use pserver_wire::messages::Losses;
use tch::{Device, Kind, Reduction, TchError, Tensor};

use crate::model::{IMAGE_SIZE, Model, Variables};

/// The loss of a batch and its gradient with respect to each variable.
///
/// The gradients lie end to end in the layout's order, as they go over the wire. They are a
/// function of the arguments alone: on the same kind of device, with the same number of threads,
/// the same bits each time.
///
/// # Errors
///
/// [`TchError`] if libtorch fails, of memory for example.
pub fn compute_gradients(
    model: &Model,
    layout: &Layout,
    variables: &Variables,
    batch: &Batch,
) -> Result<(Losses, Values), TchError> {
    let (images, labels) = tensors_of(batch, model.device())?;
    let logits = model.inference(variables, &images)?;
    let cross_entropy = mean_cross_entropy(&logits, &labels)?;
    let [local3, local4] = weight_losses(layout, variables)?;
    let total = cross_entropy.f_add(&local3)?.f_add(&local4)?;
    let by_variable = Tensor::f_run_backward(&[&total], variables.tensors(), false, false)?;

    let mut gradients = Values::zeros(layout.num_values());
    for ((_, range), gradient) in layout.iter().zip(by_variable) {
        let count = range.len();
        gradient
            .f_to_device(Device::Cpu)?
            .f_contiguous()?
            .f_copy_data(&mut gradients[range], count)?;
    }
    let losses = Losses {
        cross_entropy: scalar(&cross_entropy)?,
        local3_weight_loss: scalar(&local3)?,
        local4_weight_loss: scalar(&local4)?,
        total: scalar(&total)?,
    };
    Ok((losses, gradients))
}

/// The batch as tensors: images `[B, 24, 24, 3]` f32 and labels `[B]` i64.
///
/// # Errors
///
/// [`TchError`] if the device has no room.
pub fn tensors_of(batch: &Batch, device: Device) -> Result<(Tensor, Tensor), TchError> {
    let images = Tensor::f_from_slice(&batch.images)?.f_reshape([-1, IMAGE_SIZE, IMAGE_SIZE, 3])?;
    let labels = Tensor::f_from_slice(&batch.labels)?.f_to_kind(Kind::Int64)?;
    Ok((images.f_to_device(device)?, labels.f_to_device(device)?))
}

/// Mean over the batch of the cross entropy between logits `[B, 10]` and labels `[B]`.
fn mean_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
    let (no_weights, ignore_none, no_smoothing) = (None::<Tensor>, -100, 0.0);
    logits.f_cross_entropy_loss(
        labels,
        no_weights,
        Reduction::Mean,
        ignore_none,
        no_smoothing,
    )
}

/// The terms of the variables with weight decay: its factor times half the sum of squares, TensorFlow's `l2_loss`.
fn weight_losses(layout: &Layout, variables: &Variables) -> Result<[Tensor; 2], TchError> {
    let all = layout.specs().iter().zip(variables.tensors());
    let decayed = all.filter(|(spec, _)| DECAYED.contains(&spec.name.as_str()));
    let losses = decayed.map(|(_, variable)| {
        variable
            .f_square()?
            .f_sum(Kind::Float)?
            .f_mul_scalar(0.5 * WEIGHT_DECAY)
    });
    let losses = losses.collect::<Result<Vec<_>, TchError>>()?;
    Ok(<[Tensor; 2]>::try_from(losses).expect("the layout is the model's"))
}

fn scalar(tensor: &Tensor) -> Result<f32, TchError> {
    Ok(tensor.f_double_value(&[])? as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_paths_have_one_weight_decay() {
        assert_eq!(
            cifar_kernels::WEIGHT_DECAY.to_bits(),
            (WEIGHT_DECAY as f32).to_bits()
        );
    }
}
