//! The second block after its convolution, one image at a time: biases -> ReLU -> LRN -> max-pool,
//! and back.

use pulp::Simd;

use crate::buffer::{Buffer, zeros};
use crate::lrn::{self, Padded};
use crate::max_pool::{self, Winner};
use crate::pointwise::{add_biases, add_rows, relu, relu_backward};
use crate::shape::{CHANNELS, PADDED, PADDED_ORIGIN, POOLED, POOLED_VALUES};

const ROW: usize = POOLED * CHANNELS;
const PADDED_ROW: usize = PADDED * CHANNELS;

/// Memory of the block for one image.
#[derive(Debug)]
pub(crate) struct SecondBlock {
    /// What is pooled, or its gradient.
    normalized: Buffer,
    positions: Box<[u32; POOLED_VALUES]>,
    squares: Padded,
    products: Padded,
}

impl SecondBlock {
    pub(crate) fn new() -> Self {
        SecondBlock {
            normalized: zeros(POOLED_VALUES),
            positions: Box::new([0; POOLED_VALUES]),
            squares: Padded::new(),
            products: Padded::new(),
        }
    }

    /// Writes the block's result, `[6][6][64]`, to `features`. `activations`, the convolution's result,
    /// becomes that of the ReLU, which the way back needs, as it does `winners`.
    #[inline(always)]
    pub(crate) fn forward<S: Simd>(
        &mut self,
        simd: S,
        activations: &mut [f32],
        biases: &[f32],
        features: &mut [f32],
        winners: &mut [Winner],
    ) {
        add_biases(simd, activations, biases);
        relu(simd, activations);
        for (x, y) in activations
            .chunks_exact(ROW)
            .zip(self.normalized.chunks_exact_mut(ROW))
        {
            lrn::forward(simd, x, y, &mut self.squares);
        }
        max_pool::forward(simd, POOLED, &self.normalized, features, winners);
    }

    /// Writes the gradient of the convolution's result to the middle of `padded`, given that of the
    /// features, and adds what this image gives to that of the biases.
    #[inline(always)]
    pub(crate) fn backward<S: Simd>(
        &mut self,
        simd: S,
        features_gradient: &[f32],
        activations: &[f32],
        winners: &[Winner],
        padded: &mut [f32],
        biases: &mut [f32],
    ) {
        max_pool::backward(
            simd,
            POOLED,
            features_gradient,
            winners,
            &mut self.positions,
            &mut self.normalized,
        );
        let rows = activations
            .chunks_exact(ROW)
            .zip(self.normalized.chunks_exact(ROW));
        for ((x, dy), dx) in rows.zip(padded[PADDED_ORIGIN..].chunks_mut(PADDED_ROW)) {
            let dx = &mut dx[..ROW];
            lrn::backward(simd, x, dy, dx, &mut self.squares, &mut self.products);
            relu_backward(simd, x, dx);
            add_rows(simd, dx, biases);
        }
    }
}
