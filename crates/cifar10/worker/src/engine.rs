//! What a worker computes tower steps with: kernels of this project on a CPU, or libtorch.

use cifar_data::Batch;
use cifar_kernels::{Convolutions, InstructionSet, Network, TRUNK_VALUES};
use pserver_run::{Kernels, Layout};
use pserver_state::Values;
use pserver_wire::messages::Losses;
use tch::{Device, TchError};

use crate::gradients::compute_gradients;
use crate::model::{Model, Variables};

/// Variables of the trunk, both convolutions; those of the head come after them.
///
/// All lie end to end in the layout's order, so these are the first numbers of any buffer of them.
pub const NUM_TRUNK_VALUES: usize = TRUNK_VALUES;

/// Computes the gradients of tower steps, the head's first and then the trunk's.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Torch {
        model: Model,
        layout: Layout,
        /// All gradients of the tower step whose head was asked for last.
        gradients: Values,
    },
    Own(Box<Network>),
}

impl Engine {
    /// For batches of `batch_size`, with `kernels` as the worker's
    /// [numerics](crate::numerics::of_this_process) have them.
    ///
    /// # Errors
    ///
    /// [`TchError`] if the device has no room.
    pub fn new(
        device: Device,
        kernels: Kernels,
        layout: &Layout,
        batch_size: usize,
    ) -> Result<Self, TchError> {
        let own = |convolutions| {
            let network = Network::new(InstructionSet::widest(), convolutions, batch_size);
            Kind::Own(Box::new(network))
        };
        let kind = match kernels {
            Kernels::Direct => own(Convolutions::Direct),
            Kernels::Winograd => own(Convolutions::Winograd),
            Kernels::Auto | Kernels::Torch => Kind::Torch {
                model: Model::new(device)?,
                layout: layout.clone(),
                gradients: Values::zeros(0),
            },
        };
        Ok(Engine { kind })
    }

    /// The losses of a batch, and the gradients of the head: all but the first [`NUM_TRUNK_VALUES`].
    ///
    /// They are a function of the arguments alone: with equal numerics, the same bits each time.
    ///
    /// # Errors
    ///
    /// [`TchError`] if libtorch fails, of memory for example.
    ///
    /// # Panics
    ///
    /// If the batch or `gradients` is of another size.
    pub fn head_gradients(
        &mut self,
        variables: &[f32],
        batch: &Batch,
        gradients: &mut [f32],
    ) -> Result<Losses, TchError> {
        match &mut self.kind {
            Kind::Torch {
                model,
                layout,
                gradients: all,
            } => {
                let variables = Variables::new(layout, variables, model.device())?.trainable();
                let losses;
                (losses, *all) = compute_gradients(model, layout, &variables, batch)?;
                gradients.copy_from_slice(&all[NUM_TRUNK_VALUES..]);
                Ok(losses)
            }
            Kind::Own(network) => {
                let losses =
                    network.head_gradients(variables, &batch.images, &batch.labels, gradients);
                Ok(Losses {
                    cross_entropy: losses.cross_entropy,
                    local3_weight_loss: losses.local3_weight_loss,
                    local4_weight_loss: losses.local4_weight_loss,
                    total: losses.total,
                })
            }
        }
    }

    /// The gradients of the trunk, the first [`NUM_TRUNK_VALUES`], for the arguments of the
    /// [`head_gradients`](Self::head_gradients) before.
    ///
    /// # Panics
    ///
    /// If the batch or `gradients` is of another size.
    pub fn trunk_gradients(&mut self, variables: &[f32], batch: &Batch, gradients: &mut [f32]) {
        match &mut self.kind {
            Kind::Torch { gradients: all, .. } => {
                gradients.copy_from_slice(&all[..NUM_TRUNK_VALUES]);
            }
            Kind::Own(network) => network.trunk_gradients(variables, &batch.images, gradients),
        }
    }
}
