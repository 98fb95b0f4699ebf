//! What is done to each number, or each pixel of 64 channels, by itself.

use pulp::Simd;

use crate::shape::CHANNELS;

/// Adds a bias to each channel of each pixel.
#[inline(always)]
pub(crate) fn add_biases<S: Simd>(simd: S, x: &mut [f32], biases: &[f32]) {
    let biases = S::as_simd_f32s(&biases[..CHANNELS]).0;
    for pixel in x.chunks_exact_mut(CHANNELS) {
        for (x, bias) in S::as_mut_simd_f32s(pixel).0.iter_mut().zip(biases) {
            *x = simd.add_f32s(*x, *bias);
        }
    }
}

/// The larger of each number and zero. What is no number stays so.
#[inline(always)]
pub(crate) fn relu<S: Simd>(simd: S, x: &mut [f32]) {
    let zero = simd.splat_f32s(0.0);
    for x in S::as_mut_simd_f32s(x).0 {
        let is_negative = simd.less_than_or_equal_f32s(*x, zero);
        *x = simd.select_f32s(is_negative, zero, *x);
    }
}

/// Sets the gradient to zero wherever the result `y` of [`relu`] is.
#[inline(always)]
pub(crate) fn relu_backward<S: Simd>(simd: S, y: &[f32], gradient: &mut [f32]) {
    let zero = simd.splat_f32s(0.0);
    for (y, gradient) in S::as_simd_f32s(y)
        .0
        .iter()
        .zip(S::as_mut_simd_f32s(gradient).0)
    {
        let is_zero = simd.less_than_or_equal_f32s(*y, zero);
        *gradient = simd.select_f32s(is_zero, zero, *gradient);
    }
}

/// Adds the rows of `x`, each as long as `sums`, to `sums`.
///
/// They are added up by themselves first, so that a sum over many calls loses less to rounding.
#[inline(always)]
pub(crate) fn add_rows<S: Simd>(simd: S, x: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    for (vector, sum) in S::as_mut_simd_f32s(sums).0.iter_mut().enumerate() {
        let mut own = simd.splat_f32s(0.0);
        for row in x.chunks_exact(width) {
            own = simd.add_f32s(own, S::as_simd_f32s(row).0[vector]);
        }
        *sum = simd.add_f32s(*sum, own);
    }
}
