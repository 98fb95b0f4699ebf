//! The first convolution, 5x5 over three colours, one image at a time.
//!
//! ```text
//! y[i][j][o]     = sum over r, s, c of x[i+r-2][j+s-2][c] * w[r][s][c][o]
//! dw[r][s][c][o] = sum over i, j   of x[i+r-2][j+s-2][c] * dy[i][j][o]
//! ```
//!
//! In an image with a border the five pixels under a row of the filter are 15 numbers in a line, so
//! both are products of matrices: of 24 pixels by five pieces of 15, and of 15 by 24 pieces of 24
//! pixels. Images need no gradient.

use pulp::Simd;

use crate::product::{Left, Product, Right, Start};
use crate::shape::{
    BORDER, CHANNELS, COLOURS, CONV1_VALUES, CONV1_WEIGHTS, FILTER, IMAGE, IMAGE_VALUES,
    PADDED_IMAGE,
};

/// Numbers of an image with its border.
pub(crate) const PADDED_IMAGE_VALUES: usize = PADDED_IMAGE * PADDED_ROW;
const PADDED_ROW: usize = PADDED_IMAGE * COLOURS;
const IMAGE_ROW: usize = IMAGE * COLOURS;
/// Numbers under one row of the filter.
const FILTER_ROW: usize = FILTER * COLOURS;

/// Copies an image into the middle of `padded`, whose border is zero.
#[inline(always)]
pub(crate) fn pad(image: &[f32], padded: &mut [f32]) {
    let image = &image[..IMAGE_VALUES];
    let rows = padded.chunks_exact_mut(PADDED_ROW).skip(BORDER);
    for (row, padded) in image.chunks_exact(IMAGE_ROW).zip(rows) {
        padded[BORDER * COLOURS..][..IMAGE_ROW].copy_from_slice(row);
    }
}

/// Writes the convolution of a padded image to `y`, `[24][24][64]`, without the biases.
#[inline(always)]
pub(crate) fn forward<S: Simd>(simd: S, padded: &[f32], weights: &[f32], y: &mut [f32]) {
    let y = &mut y[..CONV1_VALUES];
    for (row, y) in y.chunks_exact_mut(IMAGE * CHANNELS).enumerate() {
        let product = Product {
            rows: IMAGE,
            columns: CHANNELS,
            pieces: FILTER,
            piece_len: FILTER_ROW,
            a: Left {
                values: &padded[row * PADDED_ROW..],
                row_stride: COLOURS,
                k_stride: 1,
                piece_stride: PADDED_ROW,
            },
            b: Right {
                values: weights,
                k_stride: CHANNELS,
                piece_stride: FILTER_ROW * CHANNELS,
            },
        };
        product.write(simd, y, CHANNELS, Start::Zero);
    }
}

/// Adds the gradient of the weights that one image gives to `dw`, `[5][5][3][64]`.
#[inline(always)]
pub(crate) fn add_weights_gradient<S: Simd>(simd: S, padded: &[f32], dy: &[f32], dw: &mut [f32]) {
    let dw = &mut dw[..CONV1_WEIGHTS];
    for (row, dw) in dw.chunks_exact_mut(FILTER_ROW * CHANNELS).enumerate() {
        let product = Product {
            rows: FILTER_ROW,
            columns: CHANNELS,
            pieces: IMAGE,
            piece_len: IMAGE,
            a: Left {
                values: &padded[row * PADDED_ROW..],
                row_stride: 1,
                k_stride: COLOURS,
                piece_stride: PADDED_ROW,
            },
            b: Right {
                values: dy,
                k_stride: CHANNELS,
                piece_stride: IMAGE * CHANNELS,
            },
        };
        product.write(simd, dw, CHANNELS, Start::Present);
    }
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;
    use crate::buffer::tests::{in_f64, pseudo_random, relative_difference};
    use crate::buffer::zeros;
    use crate::instruction_set::InstructionSet;
    use crate::reference;

    struct Check;

    impl WithSimd for Check {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let (image, weights) = (
                pseudo_random(IMAGE_VALUES, 1),
                pseudo_random(CONV1_WEIGHTS, 2),
            );
            let dy = pseudo_random(CONV1_VALUES, 3);
            let (mut padded, mut y, mut dw) = (
                zeros(PADDED_IMAGE_VALUES),
                zeros(CONV1_VALUES),
                zeros(CONV1_WEIGHTS),
            );
            pad(&image, &mut padded);
            forward(simd, &padded, &weights, &mut y);
            add_weights_gradient(simd, &padded, &dy, &mut dw);
            let (image, weights, dy) = (in_f64(&image), in_f64(&weights), in_f64(&dy));
            let expected = reference::convolution(&image, &weights, IMAGE, COLOURS);
            assert!(relative_difference(&y, &expected) < 1e-6);
            let (_, expected) =
                reference::convolution_gradients(&image, &weights, &dy, IMAGE, COLOURS);
            assert!(relative_difference(&dw, &expected) < 1e-6);
        }
    }

    #[test]
    fn both_products_are_the_convolution() {
        InstructionSet::all()
            .into_iter()
            .for_each(|set| set.run(Check));
    }
}
