//! The second convolution, 5x5 over 64 channels, as its definition says: the direct form.
//!
//! ```text
//! y[i][j][o]     = sum over r, s, c of x[i+r-2][j+s-2][c] * w[r][s][c][o]
//! dx             = the same of dy, with w turned around and its channels swapped
//! dw[r][s][c][o] = sum over i, j   of x[i+r-2][j+s-2][c] * dy[i][j][o]
//! ```
//!
//! 4/5 of the multiplications of a step are here: 11.3 of 14.06 GFLOP of a batch of 128.
//! [`crate::winograd`] does the same with a sixth of them.

use pulp::Simd;

use crate::product::{Left, Product, Right, Start};
use crate::shape::{
    CHANNELS, CONV2_WEIGHTS, FILTER, PADDED, PADDED_ORIGIN, PADDED_VALUES, POOLED, POOLED_VALUES,
};
use crate::transpose::transpose;

const PADDED_ROW: usize = PADDED * CHANNELS;
/// Numbers of the filter that belong to one of its 25 places.
const TAP: usize = CHANNELS * CHANNELS;

/// Writes the convolution of padded images, `[16][16][64]` each, to `y`, `[12][12][64]` each, without
/// biases.
#[inline(always)]
pub(crate) fn forward<S: Simd>(simd: S, padded: &[f32], weights: &[f32], y: &mut [f32]) {
    let images = padded
        .chunks_exact(PADDED_VALUES)
        .zip(y.chunks_exact_mut(POOLED_VALUES));
    for (x, y) in images {
        for (place, weights) in weights.chunks_exact(FILTER * TAP).enumerate() {
            let start = if place == 0 {
                Start::Zero
            } else {
                Start::Present
            };
            for (row, y) in y.chunks_exact_mut(POOLED * CHANNELS).enumerate() {
                let a = Left {
                    values: &x[(row + place) * PADDED_ROW..],
                    row_stride: CHANNELS,
                    k_stride: 1,
                    piece_stride: 0,
                };
                let b = Right {
                    values: weights,
                    k_stride: CHANNELS,
                    piece_stride: 0,
                };
                let product = Product {
                    rows: POOLED,
                    columns: CHANNELS,
                    pieces: 1,
                    piece_len: FILTER * CHANNELS,
                    a,
                    b,
                };
                product.write(simd, y, CHANNELS, start);
            }
        }
    }
}

/// Adds the gradient of the weights that these images give to `dw`, `[5][5][64][64]`. Both `padded`
/// and `padded_dy` are `[16][16][64]` each.
#[inline(always)]
pub(crate) fn add_weights_gradient<S: Simd>(
    simd: S,
    padded: &[f32],
    padded_dy: &[f32],
    dw: &mut [f32],
) {
    let images = padded
        .chunks_exact(PADDED_VALUES)
        .zip(padded_dy.chunks_exact(PADDED_VALUES));
    for (x, dy) in images {
        for (place, dw) in dw.chunks_exact_mut(TAP).enumerate() {
            let (row, column) = (place / FILTER, place % FILTER);
            let product = Product {
                rows: CHANNELS,
                columns: CHANNELS,
                pieces: POOLED,
                piece_len: POOLED,
                a: Left {
                    values: &x[row * PADDED_ROW + column * CHANNELS..],
                    row_stride: 1,
                    k_stride: CHANNELS,
                    piece_stride: PADDED_ROW,
                },
                b: Right {
                    values: &dy[PADDED_ORIGIN..],
                    k_stride: CHANNELS,
                    piece_stride: PADDED_ROW,
                },
            };
            product.write(simd, dw, CHANNELS, Start::Present);
        }
    }
}

/// The filter with which the gradient is carried back: `turned[r][s][o][c] = w[4-r][4-s][c][o]`.
#[inline(always)]
pub(crate) fn turn_around(weights: &[f32], turned: &mut [f32]) {
    let weights = &weights[..CONV2_WEIGHTS];
    for (tap, turned) in weights
        .chunks_exact(TAP)
        .rev()
        .zip(turned.chunks_exact_mut(TAP))
    {
        transpose(tap, CHANNELS, CHANNELS, turned);
    }
}
