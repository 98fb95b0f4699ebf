//! A whole tower step, as the worker's loop computes it.

use cifar_data::Batch;
use cifar_worker::engine::Engine;
use pserver_state::Values;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts};
use pserver_wire::messages::{Gradients, Losses};

/// Losses and all gradients of a batch.
pub(crate) fn all_gradients(
    engine: &mut Engine,
    variables: &Values,
    batch: &Batch,
) -> (Losses, Values) {
    let mut buffer = GradientBuffer::to_keep(&Parts::new(variables.len(), &Engine::CUTS));
    let losses = engine.gradients(variables, batch, &mut buffer).unwrap();
    let Gradients::Sent(parts) = buffer.gradients() else {
        panic!("they are in no slot");
    };
    let mut gradients = Values::zeros(variables.len());
    gradients.as_bytes_mut().copy_from_slice(&parts.concat());
    (losses, gradients)
}
