//! The CPU fast path of a tower step: the tutorial's network in kernels of its own.
//!
//! It takes all variables of the model end to end and a batch, and gives the losses and the gradients. It knows
//! nothing of the rest of the project and does nothing but arithmetic: no threads, no files, no
//! memory beyond what [`Network::new`] takes.
//!
//! There is one source for all processors. It is written against the vectors of `pulp` and compiled
//! for AVX-512, for AVX2 and for none; [`InstructionSet`] says which of these this processor has. The
//! bits of a result depend on that choice and on [`Convolutions`], and on nothing else.
//!
//! Read in this order: [`network`] is a step. `first_block` and `second_block` are its stages, made of
//! `conv1`, `max_pool`, `lrn` and `pointwise`; between them lies `second_convolution`, as its definition
//! says (`conv2`) or with a sixth of the multiplications (`winograd`); `head` is the rest. All of them
//! multiply with `product`.
//!
//! libtorch is the reference, the way of GPUs and of processors without vectors. On one core this takes 30 ms where
//! libtorch takes 105 (64 in the direct form): nearly all of a step is one loop that keeps its sums in registers,
//! images go through the layers a few at a time while they are in the cache, and the second convolution needs a sixth
//! of its multiplications in Winograd's form. Its threads are worker processes: a run has one for each core.

pub mod instruction_set;

mod shape;

mod variables;

pub mod network;

mod first_block;

mod conv1;

mod max_pool;

mod lrn;

mod pointwise;

mod second_convolution;

mod conv2;

mod winograd;

mod second_block;

mod head;

mod product;

mod transpose;

mod buffer;

/// What the kernels' tests compare with.
#[cfg(test)]
mod reference;

pub use head::WEIGHT_DECAY;
pub use instruction_set::InstructionSet;
pub use network::Network;
pub use variables::{HEAD_VALUES, TRUNK_VALUES};

/// How the second convolution is computed, where four fifths of the multiplications are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convolutions {
    /// As its definition says.
    Direct,
    /// By Winograd's minimal filtering: a sixth of the multiplications, and other roundings.
    Winograd,
}

/// The losses of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// Mean cross entropy over the batch.
    pub cross_entropy: f32,
    /// The weight decay of local3.
    pub local3_weight_loss: f32,
    /// The weight decay of local4.
    pub local4_weight_loss: f32,
    /// Their sum.
    pub total: f32,
}
