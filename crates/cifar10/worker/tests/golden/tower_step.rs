//! A whole tower step, as the worker's loop computes it.

use cifar_data::Batch;
use cifar_worker::engine::{Engine, NUM_TRUNK_VALUES};
use pserver_state::Values;
use pserver_wire::messages::Losses;

/// Losses and all gradients of a batch.
pub(crate) fn all_gradients(
    engine: &mut Engine,
    variables: &Values,
    batch: &Batch,
) -> (Losses, Values) {
    let mut gradients = Values::zeros(variables.len());
    let (trunk, head) = gradients.split_at_mut(NUM_TRUNK_VALUES);
    let losses = engine.head_gradients(variables, batch, head).unwrap();
    engine.trunk_gradients(variables, batch, trunk);
    (losses, gradients)
}
