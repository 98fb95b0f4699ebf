//! The first block, one image at a time: conv1 -> biases -> max-pool -> ReLU -> LRN, and back.
//!
//! ReLU and max-pooling commute, and after pooling there is a quarter as much to do. The convolution's
//! result, the largest of all, is needed by nobody but the pool, so it never leaves the cache: what
//! is kept of an image is the pooled one and the winners.

use pulp::Simd;

use crate::buffer::{Buffer, zeros};
use crate::conv1::{self, PADDED_IMAGE_VALUES};
use crate::lrn::{self, Padded};
use crate::max_pool::{self, Winner};
use crate::pointwise::{add_biases, add_rows, relu, relu_backward};
use crate::shape::{CHANNELS, CONV1_VALUES, IMAGE, PADDED, PADDED_ORIGIN, POOLED, POOLED_VALUES};

const ROW: usize = POOLED * CHANNELS;
const PADDED_ROW: usize = PADDED * CHANNELS;

/// Memory of the block for one image.
#[derive(Debug)]
pub(crate) struct FirstBlock {
    image: Buffer,
    /// The convolution's result, or its gradient.
    convolution: Buffer,
    /// The gradient of what was pooled.
    pooled_gradient: Buffer,
    positions: Box<[u32; POOLED_VALUES]>,
    squares: Padded,
    products: Padded,
}

impl FirstBlock {
    pub(crate) fn new() -> Self {
        FirstBlock {
            image: zeros(PADDED_IMAGE_VALUES),
            convolution: zeros(CONV1_VALUES),
            pooled_gradient: zeros(POOLED_VALUES),
            positions: Box::new([0; POOLED_VALUES]),
            squares: Padded::new(),
            products: Padded::new(),
        }
    }

    /// Writes the block's result to the middle of `padded`, and what the way back needs to `pooled`
    /// and `winners`.
    #[inline(always)]
    pub(crate) fn forward<S: Simd>(
        &mut self,
        simd: S,
        image: &[f32],
        (weights, biases): (&[f32], &[f32]),
        pooled: &mut [f32],
        winners: &mut [Winner],
        padded: &mut [f32],
    ) {
        conv1::pad(image, &mut self.image);
        conv1::forward(simd, &self.image, weights, &mut self.convolution);
        add_biases(simd, &mut self.convolution, biases);
        max_pool::forward(simd, IMAGE, &self.convolution, pooled, winners);
        relu(simd, pooled);
        let rows = padded[PADDED_ORIGIN..].chunks_mut(PADDED_ROW);
        for (x, y) in pooled.chunks_exact(ROW).zip(rows) {
            lrn::forward(simd, x, &mut y[..ROW], &mut self.squares);
        }
    }

    /// Adds what this image gives to the gradients of the weights and biases, given that of the
    /// block's result, `[12][12][64]`.
    #[inline(always)]
    pub(crate) fn backward<S: Simd>(
        &mut self,
        simd: S,
        image: &[f32],
        dy: &[f32],
        pooled: &[f32],
        winners: &[Winner],
        (weights, biases): (&mut [f32], &mut [f32]),
    ) {
        let rows = pooled.chunks_exact(ROW).zip(dy.chunks_exact(ROW));
        for ((x, dy), dx) in rows.zip(self.pooled_gradient.chunks_exact_mut(ROW)) {
            lrn::backward(simd, x, dy, dx, &mut self.squares, &mut self.products);
        }
        relu_backward(simd, pooled, &mut self.pooled_gradient);
        add_rows(simd, &self.pooled_gradient, biases);
        max_pool::backward(
            simd,
            IMAGE,
            &self.pooled_gradient,
            winners,
            &mut self.positions,
            &mut self.convolution,
        );
        conv1::pad(image, &mut self.image);
        conv1::add_weights_gradient(simd, &self.image, &self.convolution, weights);
    }
}
