//! The second convolution in the form that was chosen, with what it keeps from call to call.

use pulp::Simd;

use crate::buffer::{Buffer, zeros};
use crate::shape::CONV2_WEIGHTS;
use crate::winograd::{self, Tiles};
use crate::{Convolutions, conv2};

/// The second convolution for a step's variables.
#[derive(Debug)]
pub(crate) struct SecondConvolution {
    /// The filter turned around, for the gradient of the input.
    turned: Buffer,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Direct,
    Winograd {
        filter: Buffer,
        turned_filter: Buffer,
        filter_gradient: Buffer,
        tiles: Tiles,
    },
}

impl SecondConvolution {
    /// For up to `images` images at a time.
    pub(crate) fn new(convolutions: Convolutions, images: usize) -> Self {
        let form = match convolutions {
            Convolutions::Direct => Form::Direct,
            Convolutions::Winograd => Form::Winograd {
                filter: winograd::filter_buffer(),
                turned_filter: winograd::filter_buffer(),
                filter_gradient: winograd::filter_buffer(),
                tiles: Tiles::new(images),
            },
        };
        SecondConvolution {
            turned: zeros(CONV2_WEIGHTS),
            form,
        }
    }

    /// Has the next calls of [`forward`](Self::forward) use these weights, `[5][5][64][64]`.
    #[inline(always)]
    pub(crate) fn begin_forward<S: Simd>(&mut self, simd: S, weights: &[f32]) {
        if let Form::Winograd { filter, .. } = &mut self.form {
            winograd::transform_filter(simd, weights, filter);
        }
    }

    /// Writes the convolution of padded images to `y`.
    #[inline(always)]
    pub(crate) fn forward<S: Simd>(
        &mut self,
        simd: S,
        padded: &[f32],
        weights: &[f32],
        y: &mut [f32],
    ) {
        match &mut self.form {
            Form::Direct => conv2::forward(simd, padded, weights, y),
            Form::Winograd { filter, tiles, .. } => {
                winograd::forward(simd, padded, filter, y, tiles)
            }
        }
    }

    /// Has the next calls of [`backward`](Self::backward) use these weights and begin a new gradient.
    #[inline(always)]
    pub(crate) fn begin_backward<S: Simd>(&mut self, simd: S, weights: &[f32], dw: &mut [f32]) {
        conv2::turn_around(weights, &mut self.turned);
        match &mut self.form {
            Form::Direct => dw.fill(0.0),
            Form::Winograd {
                turned_filter,
                filter_gradient,
                ..
            } => {
                winograd::transform_filter(simd, &self.turned, turned_filter);
                filter_gradient.fill(0.0);
            }
        }
    }

    /// Writes the gradient of padded images, given that of the result, padded too, to `dx`,
    /// `[12][12][64]` each, and adds what they give to that of the weights.
    #[inline(always)]
    pub(crate) fn backward<S: Simd>(
        &mut self,
        simd: S,
        padded: &[f32],
        padded_dy: &[f32],
        dx: &mut [f32],
        dw: &mut [f32],
    ) {
        match &mut self.form {
            Form::Direct => {
                conv2::forward(simd, padded_dy, &self.turned, dx);
                conv2::add_weights_gradient(simd, padded, padded_dy, dw);
            }
            Form::Winograd {
                turned_filter,
                filter_gradient,
                tiles,
                ..
            } => {
                winograd::forward(simd, padded_dy, turned_filter, dx, tiles);
                winograd::add_filter_gradient(simd, padded, padded_dy, filter_gradient, tiles);
            }
        }
    }

    /// Finishes the gradient of the weights.
    #[inline(always)]
    pub(crate) fn end_backward<S: Simd>(&mut self, simd: S, dw: &mut [f32]) {
        if let Form::Winograd {
            filter_gradient, ..
        } = &self.form
        {
            winograd::weights_gradient(simd, filter_gradient, dw);
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;
    use crate::buffer::tests::{in_f64, pseudo_random, relative_difference};
    use crate::instruction_set::InstructionSet;
    use crate::reference;
    use crate::shape::{CHANNELS, PADDED, PADDED_ORIGIN, PADDED_VALUES, POOLED, POOLED_VALUES};

    const IMAGES: usize = 3;

    /// The images with zeros around them.
    fn pad(x: &[f32]) -> Buffer {
        let mut padded = zeros(IMAGES * PADDED_VALUES);
        for (x, padded) in x
            .chunks(POOLED_VALUES)
            .zip(padded.chunks_mut(PADDED_VALUES))
        {
            let rows = padded[PADDED_ORIGIN..].chunks_mut(PADDED * CHANNELS);
            for (x, row) in x.chunks(POOLED * CHANNELS).zip(rows) {
                row[..x.len()].copy_from_slice(x);
            }
        }
        padded
    }

    struct Check {
        convolutions: Convolutions,
        /// Of the results, the gradients of the input and those of the weights.
        tolerance: f64,
    }

    impl WithSimd for Check {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let weights = pseudo_random(CONV2_WEIGHTS, 1);
            let (x, dy) = (
                pseudo_random(IMAGES * POOLED_VALUES, 2),
                pseudo_random(IMAGES * POOLED_VALUES, 3),
            );
            let (mut y, mut dx) = (zeros(x.len()), zeros(x.len()));
            // What is left of the step before does not matter.
            let mut dw = pseudo_random(CONV2_WEIGHTS, 4);
            let mut convolution = SecondConvolution::new(self.convolutions, IMAGES);
            for _ in 0..2 {
                convolution.begin_forward(simd, &weights);
                convolution.forward(simd, &pad(&x), &weights, &mut y);
                convolution.begin_backward(simd, &weights, &mut dw);
                convolution.backward(simd, &pad(&x), &pad(&dy), &mut dx, &mut dw);
                convolution.end_backward(simd, &mut dw);
            }

            let (mut expected, mut expected_dx, mut expected_dw) =
                (Vec::new(), Vec::new(), vec![0.0; CONV2_WEIGHTS]);
            let weights = in_f64(&weights);
            for (x, dy) in x.chunks(POOLED_VALUES).zip(dy.chunks(POOLED_VALUES)) {
                let (x, dy) = (in_f64(x), in_f64(dy));
                expected.extend(reference::convolution(&x, &weights, POOLED, CHANNELS));
                let (dx, dw) =
                    reference::convolution_gradients(&x, &weights, &dy, POOLED, CHANNELS);
                expected_dx.extend(dx);
                expected_dw
                    .iter_mut()
                    .zip(dw)
                    .for_each(|(sum, dw)| *sum += dw);
            }
            for (found, expected) in [(y, expected), (dx, expected_dx), (dw, expected_dw)] {
                let difference = relative_difference(&found, &expected);
                assert!(
                    difference < self.tolerance,
                    "{:?}: {difference:e}",
                    self.convolutions
                );
            }
        }
    }

    /// Sums of 1,600 terms in f32.
    #[test]
    fn the_direct_form_is_the_convolution() {
        for set in InstructionSet::all() {
            set.run(Check {
                convolutions: Convolutions::Direct,
                tolerance: 3e-6,
            });
        }
    }

    /// Its sums and differences lose about three bits more.
    #[test]
    fn winograds_form_is_the_convolution() {
        for set in InstructionSet::all() {
            set.run(Check {
                convolutions: Convolutions::Winograd,
                tolerance: 1e-5,
            });
        }
    }
}
