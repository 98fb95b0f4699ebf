//! What a worker computes tower steps with: kernels of this project on a CPU, or libtorch.

use cifar_data::Batch;
use cifar_kernels::{Convolutions, InstructionSet, Network, TRUNK_VALUES};
use pserver_run::{Kernels, Layout};
use pserver_wire::gradient_buffer::GradientBuffer;
use pserver_wire::messages::Losses;
use tch::{Device, TchError};

use crate::gradients::compute_gradients;
use crate::model::{Model, Variables};

/// Computes the gradients of tower steps.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Torch { model: Model, layout: Layout },
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
            },
        };
        Ok(Engine { kind })
    }

    /// Where a buffer of gradients is cut: the trunk's and the head's, nine tenths of all, which travel while the
    /// trunk's are computed.
    pub const CUTS: [usize; 1] = [TRUNK_VALUES];

    /// The losses of a batch, and the gradients.
    ///
    /// They are a function of the arguments alone: with equal numerics, the same bits each time.
    ///
    /// # Errors
    ///
    /// [`TchError`] if libtorch fails, of memory for example.
    ///
    /// # Panics
    ///
    /// If the batch is of another size, or `out` is cut elsewhere than at [`CUTS`](Self::CUTS).
    pub fn gradients(
        &mut self,
        variables: &[f32],
        batch: &Batch,
        out: &mut GradientBuffer,
    ) -> Result<Losses, TchError> {
        const TRUNK: usize = 0;
        const HEAD: usize = 1;
        match &mut self.kind {
            Kind::Torch { model, layout } => {
                let variables = Variables::new(layout, variables, model.device())?.trainable();
                let (losses, all) = compute_gradients(model, layout, &variables, batch)?;
                let (trunk, head) = all.split_at(TRUNK_VALUES);
                out.part(HEAD).copy_from_slice(head);
                out.part(TRUNK).copy_from_slice(trunk);
                Ok(losses)
            }
            Kind::Own(network) => {
                let (images, labels) = (&batch.images, &batch.labels);
                let losses = network.head_gradients(variables, images, labels, out.part(HEAD));
                out.ready(HEAD);
                network.trunk_gradients(variables, images, out.part(TRUNK));
                Ok(Losses {
                    cross_entropy: losses.cross_entropy,
                    local3_weight_loss: losses.local3_weight_loss,
                    local4_weight_loss: losses.local4_weight_loss,
                    total: losses.total,
                })
            }
        }
    }
}
