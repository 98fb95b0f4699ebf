//! Max-pooling 3x3 of stride 2, SAME, of one image: `[size][size][64]` to `[size/2][size/2][64]`.
//!
//! On an even size TensorFlow's SAME pads below and to the right only, so output `(i, j)` looks at
//! the rows `2i..2i+3` and columns `2j..2j+3` that are in the image. The gradient goes to the first
//! of the largest, row by row, as in TensorFlow.

use pulp::Simd;

use crate::shape::{CHANNELS, POOLED_VALUES};

/// Width and height of a window.
const WINDOW: usize = 3;

/// Which element of the window was the largest: `3 * row + column`.
pub(crate) type Winner = u8;

/// Writes the largest of each window to `y`, and which it was to `winners`.
///
/// What is no number wins, so that it is not lost on its way to the loss.
#[inline(always)]
pub(crate) fn forward<S: Simd>(
    simd: S,
    size: usize,
    x: &[f32],
    y: &mut [f32],
    winners: &mut [Winner],
) {
    let pooled = size / 2;
    let mut positions = [0_u32; CHANNELS];
    for (pixel, (y, winners)) in pixels_mut(y)
        .zip(winners.chunks_exact_mut(CHANNELS))
        .enumerate()
    {
        let (top, left) = (pixel / pooled * 2, pixel % pooled * 2);
        let (height, width) = ((size - top).min(WINDOW), (size - left).min(WINDOW));
        let window = &x[(top * size + left) * CHANNELS..];
        let vectors = S::as_mut_simd_f32s(y)
            .0
            .iter_mut()
            .zip(S::as_mut_simd_u32s(&mut positions).0);
        for (vector, (y, position)) in vectors.enumerate() {
            let mut largest = S::as_simd_f32s(window).0[vector];
            let mut winner = simd.splat_u32s(0);
            for row in 0..height {
                for column in 0..width {
                    let candidate = &window[(row * size + column) * CHANNELS..];
                    let candidate = S::as_simd_f32s(candidate).0[vector];
                    let is_number = simd.equal_f32s(candidate, candidate);
                    let wins = simd.or_m32s(
                        simd.greater_than_f32s(candidate, largest),
                        simd.not_m32s(is_number),
                    );
                    largest = simd.select_f32s(wins, candidate, largest);
                    let here = simd.splat_u32s((row * WINDOW + column) as u32);
                    winner = simd.select_u32s(wins, here, winner);
                }
            }
            (*y, *position) = (largest, winner);
        }
        for (winner, position) in winners.iter_mut().zip(&positions) {
            *winner = *position as Winner;
        }
    }
}

/// Writes to `dx` the gradient of what was pooled: for each element the sum of the gradients of the
/// windows that it won, row by row.
///
/// `positions` is scratch for as many numbers as `winners` has.
#[inline(always)]
pub(crate) fn backward<S: Simd>(
    simd: S,
    size: usize,
    dy: &[f32],
    winners: &[Winner],
    positions: &mut [u32; POOLED_VALUES],
    dx: &mut [f32],
) {
    let pooled = size / 2;
    let positions = &mut positions[..winners.len()];
    for (position, winner) in positions.iter_mut().zip(winners) {
        *position = u32::from(*winner);
    }
    for (pixel, dx) in pixels_mut(dx).enumerate() {
        let (row, column) = (pixel / size, pixel % size);
        let (rows, columns) = (windows_over(row, pooled), windows_over(column, pooled));
        for (vector, dx) in S::as_mut_simd_f32s(dx).0.iter_mut().enumerate() {
            let mut sum = simd.splat_f32s(0.0);
            for i in rows.clone() {
                for j in columns.clone() {
                    let start = (i * pooled + j) * CHANNELS;
                    let dy = S::as_simd_f32s(&dy[start..][..CHANNELS]).0[vector];
                    let winner = S::as_simd_u32s(&positions[start..][..CHANNELS]).0[vector];
                    let here = simd.splat_u32s(((row - 2 * i) * WINDOW + column - 2 * j) as u32);
                    let is_winner = simd.equal_u32s(winner, here);
                    sum = simd.select_f32s(is_winner, simd.add_f32s(sum, dy), sum);
                }
            }
            *dx = sum;
        }
    }
}

/// The windows, along one axis, that `position` lies in.
#[inline(always)]
fn windows_over(position: usize, pooled: usize) -> std::ops::Range<usize> {
    let first = (position / 2).saturating_sub((position + 1) % 2);
    first..(position / 2 + 1).min(pooled)
}

#[inline(always)]
fn pixels_mut(values: &mut [f32]) -> impl Iterator<Item = &mut [f32]> {
    values.chunks_exact_mut(CHANNELS)
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
            for size in [24, 12] {
                let mut x = pseudo_random(size * size * CHANNELS, 1);
                // Steps of a quarter: many windows have several that are the largest.
                x.iter_mut().for_each(|x| *x = (*x * 4.0).round());
                let pooled = size * size / 4 * CHANNELS;
                let (mut y, mut winners) = (zeros(pooled), vec![99; pooled]);
                forward(simd, size, &x, &mut y, &mut winners);
                let (expected, expected_winners) = reference::max_pool(&in_f64(&x), size);
                assert_eq!(in_f64(&y), expected);

                let dy = pseudo_random(pooled, 2);
                let mut dx = zeros(x.len());
                backward(simd, size, &dy, &winners, &mut [0; POOLED_VALUES], &mut dx);
                let expected = reference::max_pool_gradient(&in_f64(&dy), &expected_winners, size);
                assert!(relative_difference(&dx, &expected) < 1e-6);
            }
        }
    }

    #[test]
    fn the_first_of_the_largest_wins_and_takes_the_gradient() {
        InstructionSet::all()
            .into_iter()
            .for_each(|set| set.run(Check));
    }
}
