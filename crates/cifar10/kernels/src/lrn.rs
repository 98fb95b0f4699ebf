//! Local response normalisation across channels, of some pixels of 64 channels.
//!
//! ```text
//! s[c]  = 1 + alpha * (sum of x[k]^2 over the channels k at most 4 away from c)
//! y[c]  = x[c] * s[c]^-3/4
//! dx[c] = dy[c] * s[c]^-3/4 - 3/2 alpha x[c] * (sum over the same k of dy[k] * x[k] * s[k]^-7/4)
//! ```
//!
//! This is `tf.nn.lrn(x, 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75)` of the tutorial. The sums over
//! channels are made in memory, from a copy with zeros on both sides: nine loads that begin one number
//! apart, which every instruction set has.

use pulp::Simd;

use crate::shape::CHANNELS;

/// Pixels that are worked on at a time: a row of an image between the two pools.
pub(crate) const ROW: usize = crate::shape::POOLED;

/// Channels on either side that count.
const RADIUS: usize = 4;
/// `alpha` of the tutorial.
const ALPHA: f32 = 0.001 / 9.0;

/// Zeros before and after the channels: a vector of the widest kind.
const MARGIN: usize = 16;
const WIDTH: usize = MARGIN + CHANNELS + MARGIN;

/// A row of pixels with zeros around the channels of each.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Padded([[f32; WIDTH]; ROW]);

impl Padded {
    pub(crate) fn new() -> Self {
        Padded([[0.0; WIDTH]; ROW])
    }

    #[inline(always)]
    fn channels<S: Simd>(&mut self, pixel: usize) -> &mut [S::f32s] {
        S::as_mut_simd_f32s(&mut self.0[pixel][MARGIN..MARGIN + CHANNELS]).0
    }

    /// The sum over the channels at most [`RADIUS`] away, of one vector of a pixel.
    #[inline(always)]
    fn window_sum<S: Simd>(&self, simd: S, pixel: usize, vector: usize) -> S::f32s {
        let channels = &self.0[pixel][MARGIN - RADIUS + vector * S::F32_LANES..];
        let mut sum = S::as_simd_f32s(channels).0[0];
        for distance in 1..=2 * RADIUS {
            sum = simd.add_f32s(sum, S::as_simd_f32s(&channels[distance..]).0[0]);
        }
        sum
    }
}

/// Writes the normalised `x` to `y`: [`ROW`] pixels of 64 channels each.
#[inline(always)]
pub(crate) fn forward<S: Simd>(simd: S, x: &[f32], y: &mut [f32], squares: &mut Padded) {
    square::<S>(simd, x, squares);
    for (pixel, (x, y)) in pixels(x).zip(y.chunks_exact_mut(CHANNELS)).enumerate() {
        let vectors = S::as_simd_f32s(x).0.iter().zip(S::as_mut_simd_f32s(y).0);
        for (vector, (x, y)) in vectors.enumerate() {
            let root = scale(simd, squares.window_sum(simd, pixel, vector));
            *y = simd.mul_f32s(*x, cube(simd, root));
        }
    }
}

/// Writes the gradient of `x` to `dx`, given that of `y`.
#[inline(always)]
pub(crate) fn backward<S: Simd>(
    simd: S,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    squares: &mut Padded,
    products: &mut Padded,
) {
    square::<S>(simd, x, squares);
    for (pixel, ((x, dy), dx)) in pixels(x)
        .zip(pixels(dy))
        .zip(dx.chunks_exact_mut(CHANNELS))
        .enumerate()
    {
        let inputs = S::as_simd_f32s(x).0.iter().zip(S::as_simd_f32s(dy).0);
        let outputs = S::as_mut_simd_f32s(dx)
            .0
            .iter_mut()
            .zip(products.channels::<S>(pixel));
        for (vector, ((x, dy), (dx, product))) in inputs.zip(outputs).enumerate() {
            let root = scale(simd, squares.window_sum(simd, pixel, vector));
            let cube = cube(simd, root);
            let fourth = square_of(simd, square_of(simd, root));
            *dx = simd.mul_f32s(*dy, cube);
            *product = simd.mul_f32s(simd.mul_f32s(*dx, *x), fourth);
        }
    }
    let factor = simd.splat_f32s(-1.5 * ALPHA);
    for (pixel, (x, dx)) in pixels(x).zip(dx.chunks_exact_mut(CHANNELS)).enumerate() {
        let vectors = S::as_simd_f32s(x).0.iter().zip(S::as_mut_simd_f32s(dx).0);
        for (vector, (x, dx)) in vectors.enumerate() {
            let sum = products.window_sum(simd, pixel, vector);
            *dx = simd.mul_add_e_f32s(simd.mul_f32s(*x, factor), sum, *dx);
        }
    }
}

#[inline(always)]
fn square<S: Simd>(simd: S, x: &[f32], squares: &mut Padded) {
    for (pixel, x) in pixels(x).enumerate() {
        for (square, x) in squares
            .channels::<S>(pixel)
            .iter_mut()
            .zip(S::as_simd_f32s(x).0)
        {
            *square = square_of(simd, *x);
        }
    }
}

/// `s^-1/4` for the sum of squares in a window.
#[inline(always)]
fn scale<S: Simd>(simd: S, sum_of_squares: S::f32s) -> S::f32s {
    let s = simd.mul_add_e_f32s(sum_of_squares, simd.splat_f32s(ALPHA), simd.splat_f32s(1.0));
    inverse_fourth_root(simd, s)
}

/// `s^-1/4` for `s` of at least 1, to the last bits of f32; no number for an infinite `s`.
///
/// Halving a float's bits twice divides its exponent by four: that, taken from a constant, is a first
/// guess, 3% off at most. Newton's step for `1 / y^4 = s`, `y + y (1 - s y^4) / 4`, about squares the
/// error each time.
#[inline(always)]
fn inverse_fourth_root<S: Simd>(simd: S, s: S::f32s) -> S::f32s {
    const FIRST_GUESS: u32 = 0x4f58_cae5;
    const STEPS: usize = 3;
    let quarter = simd.wrapping_dyn_shr_u32s(simd.transmute_u32s_f32s(s), simd.splat_u32s(2));
    let guess = simd.sub_u32s(simd.splat_u32s(FIRST_GUESS), quarter);
    let mut y = simd.transmute_f32s_u32s(guess);
    let minus_quarter_s = simd.mul_f32s(s, simd.splat_f32s(-0.25));
    for _ in 0..STEPS {
        let fourth = square_of(simd, square_of(simd, y));
        let factor = simd.mul_add_e_f32s(minus_quarter_s, fourth, simd.splat_f32s(1.25));
        y = simd.mul_f32s(y, factor);
    }
    y
}

#[inline(always)]
fn square_of<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.mul_f32s(x, x)
}

#[inline(always)]
fn cube<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.mul_f32s(square_of(simd, x), x)
}

#[inline(always)]
fn pixels(values: &[f32]) -> impl Iterator<Item = &[f32]> {
    values.chunks_exact(CHANNELS)
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
            let len = ROW * CHANNELS;
            let mut x = pseudo_random(len, 1);
            // Windows whose sums are small, and windows whose sums make the scale 300.
            x.iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x *= (i % 700) as f32);
            let dy = pseudo_random(len, 2);
            let (mut y, mut dx) = (zeros(len), zeros(len));
            let (mut squares, mut products) = (Padded::new(), Padded::new());
            forward(simd, &x, &mut y, &mut squares);
            backward(simd, &x, &dy, &mut dx, &mut squares, &mut products);
            let (x, dy) = (in_f64(&x), in_f64(&dy));
            assert!(relative_difference(&y, &reference::lrn(&x)) < 1e-6);
            assert!(relative_difference(&dx, &reference::lrn_gradient(&x, &dy)) < 1e-6);
        }
    }

    #[test]
    fn both_ways_are_the_formula() {
        InstructionSet::all()
            .into_iter()
            .for_each(|set| set.run(Check));
    }

    struct Roots;

    impl WithSimd for Roots {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for exponent in 0..3000 {
                let s = 1.01_f32.powi(exponent);
                let root = inverse_fourth_root(simd, simd.splat_f32s(s));
                let root = simd.reduce_max_f32s(root);
                let expected = f64::from(s).powf(-0.25);
                assert!(
                    (f64::from(root) / expected - 1.0).abs() < 3e-7,
                    "of {s}: {root}"
                );
            }
        }
    }

    #[test]
    fn the_fourth_root_is_right_to_the_last_bits() {
        InstructionSet::all()
            .into_iter()
            .for_each(|set| set.run(Roots));
    }
}
