//! The second convolution by Winograd's minimal filtering, F(4x4, 5x5): the same result as
//! [`crate::conv2`], but for rounding, with 64 multiplications where the definition has 400.
//!
//! Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2016.
//!
//! # The idea, in one dimension
//!
//! Four results of a filter of five numbers over eight are `y = A^T ((G g) * (B^T d))`, where `*`
//! multiplies number by number: eight multiplications instead of twenty. It is how one multiplies two
//! polynomials by their values: `G` takes the values of the filter, as a polynomial, at the points
//! 0, 1, -1, 2, -2, 1/2, -1/2 and infinity (with the constants of the way back multiplied in), `A`
//! those of the results, and `B` is what then makes the equation hold.
//!
//! # In two
//!
//! Rows and columns, one after the other: a tile of 8x8 gives 4x4 results by
//! `Y = A^T [(G g G^T) * (B^T d B)] A`. A result of 12x12 takes nine tiles, four apart. The product at
//! each of the 64 places is a sum over channels, so over many tiles it is 64 products of matrices,
//! which is where the time goes:
//!
//! ```text
//! x -> B^T d B -> v[64][tile][in]                  y <- A^T m A <- m[64][tile][out]
//!                      |                                            ^
//!                      '----- m[p] = v[p] * u[p] -------------------'
//! w -> G g G^T -> u[64][in][out]
//! ```
//!
//! The gradient of the input is the same of `dy` with the filter turned around. That of the filter is
//! `G^T [sum over the tiles of (B^T d B) * (A dY A^T)] G`: the transposed of the same equation.

use pulp::Simd;

use crate::buffer::{Buffer, zeros};
use crate::product::{Product, Start};
use crate::shape::{CHANNELS, FILTER, PADDED, PADDED_ORIGIN, PADDED_VALUES, POOLED, POOLED_VALUES};

/// Width and height of what a tile reads.
const TILE: usize = 8;
/// Width and height of what it gives.
const RESULT: usize = 4;
/// Places of a tile, each with a product of matrices of its own.
const PLACES: usize = TILE * TILE;
/// Tiles along one side of an image.
const TILES_ACROSS: usize = POOLED / RESULT;
/// Tiles of an image.
const TILES: usize = TILES_ACROSS * TILES_ACROSS;
/// Numbers of one place of a transformed filter.
const MATRIX: usize = CHANNELS * CHANNELS;

/// Numbers of a transformed filter, `[64][in][out]`.
const FILTER_VALUES: usize = PLACES * MATRIX;

/// A filter's transform `G g G^T`.
pub(crate) fn filter_buffer() -> Buffer {
    zeros(FILTER_VALUES)
}

/// Memory for the transforms of some images.
#[derive(Debug)]
pub(crate) struct Tiles {
    /// `[64][tile][in]`
    inputs: Buffer,
    /// `[64][tile][out]`
    products: Buffer,
}

impl Tiles {
    /// For up to `images` images at a time.
    pub(crate) fn new(images: usize) -> Self {
        let len = images * TILES * PLACES * CHANNELS;
        Tiles {
            inputs: zeros(len),
            products: zeros(len),
        }
    }
}

/// Writes the transform of `weights`, `[5][5][in][out]`, to `filter`.
#[inline(always)]
pub(crate) fn transform_filter<S: Simd>(simd: S, weights: &[f32], filter: &mut [f32]) {
    let mut columns = [[simd.splat_f32s(0.0); FILTER]; TILE];
    for start in (0..MATRIX).step_by(S::F32_LANES) {
        for column in 0..FILTER {
            let taps = load_column(simd, &weights[column * MATRIX + start..], FILTER * MATRIX);
            let values = filter_points(simd, taps);
            for (row, value) in columns.iter_mut().zip(values) {
                row[column] = value;
            }
        }
        for (row, taps) in columns.iter().enumerate() {
            for (column, value) in filter_points(simd, *taps).into_iter().enumerate() {
                store::<S>(&mut filter[(row * TILE + column) * MATRIX + start..], value);
            }
        }
    }
}

/// Writes the convolution of padded images, `[16][16][64]` each, with a transformed filter to `y`,
/// `[12][12][64]` each, without biases.
#[inline(always)]
pub(crate) fn forward<S: Simd>(
    simd: S,
    padded: &[f32],
    filter: &[f32],
    y: &mut [f32],
    tiles: &mut Tiles,
) {
    let num_tiles = padded.len() / PADDED_VALUES * TILES;
    transform_inputs(simd, padded, num_tiles, &mut tiles.inputs);
    let len = num_tiles * CHANNELS;
    let places = tiles
        .inputs
        .chunks_exact(len)
        .zip(filter.chunks_exact(MATRIX));
    for ((inputs, filter), products) in places.zip(tiles.products.chunks_exact_mut(len)) {
        Product::of_rows(num_tiles, CHANNELS, CHANNELS, inputs, filter).write(
            simd,
            products,
            CHANNELS,
            Start::Zero,
        );
    }
    transform_products(simd, &tiles.products, num_tiles, y);
}

/// Adds what these images give to the gradient of a transformed filter, `[64][in][out]`. Both
/// `padded` and `padded_dy` are `[16][16][64]` each.
#[inline(always)]
pub(crate) fn add_filter_gradient<S: Simd>(
    simd: S,
    padded: &[f32],
    padded_dy: &[f32],
    filter_gradient: &mut [f32],
    tiles: &mut Tiles,
) {
    let num_tiles = padded.len() / PADDED_VALUES * TILES;
    transform_inputs(simd, padded, num_tiles, &mut tiles.inputs);
    transform_results_gradient(simd, padded_dy, num_tiles, &mut tiles.products);
    let len = num_tiles * CHANNELS;
    let places = tiles
        .inputs
        .chunks_exact(len)
        .zip(tiles.products.chunks_exact(len));
    for ((inputs, results), gradient) in places.zip(filter_gradient.chunks_exact_mut(MATRIX)) {
        Product::of_columns(CHANNELS, num_tiles, CHANNELS, inputs, results).write(
            simd,
            gradient,
            CHANNELS,
            Start::Present,
        );
    }
}

/// Writes the gradient of the weights, `[5][5][in][out]`, given that of the transformed filter.
#[inline(always)]
pub(crate) fn weights_gradient<S: Simd>(simd: S, filter_gradient: &[f32], dw: &mut [f32]) {
    let mut columns = [[simd.splat_f32s(0.0); TILE]; FILTER];
    for start in (0..MATRIX).step_by(S::F32_LANES) {
        for column in 0..TILE {
            let places = load_column(
                simd,
                &filter_gradient[column * MATRIX + start..],
                TILE * MATRIX,
            );
            let taps = filter_points_transposed(simd, places);
            for (row, tap) in columns.iter_mut().zip(taps) {
                row[column] = tap;
            }
        }
        for (row, places) in columns.iter().enumerate() {
            for (column, tap) in filter_points_transposed(simd, *places)
                .into_iter()
                .enumerate()
            {
                store::<S>(&mut dw[(row * FILTER + column) * MATRIX + start..], tap);
            }
        }
    }
}

/// `B^T d B` of every tile.
#[inline(always)]
fn transform_inputs<S: Simd>(simd: S, padded: &[f32], num_tiles: usize, inputs: &mut [f32]) {
    let mut columns = [[simd.splat_f32s(0.0); TILE]; TILE];
    for tile in 0..num_tiles {
        let origin = tile / TILES * PADDED_VALUES + tile_offset(tile % TILES);
        for start in (0..CHANNELS).step_by(S::F32_LANES) {
            for column in 0..TILE {
                let first = &padded[origin + column * CHANNELS + start..];
                let values = input_points(simd, load_column(simd, first, PADDED * CHANNELS));
                for (row, value) in columns.iter_mut().zip(values) {
                    row[column] = value;
                }
            }
            for (row, values) in columns.iter().enumerate() {
                for (column, value) in input_points(simd, *values).into_iter().enumerate() {
                    let place = row * TILE + column;
                    store::<S>(
                        &mut inputs[(place * num_tiles + tile) * CHANNELS + start..],
                        value,
                    );
                }
            }
        }
    }
}

/// `A^T m A` of every tile.
#[inline(always)]
fn transform_products<S: Simd>(simd: S, products: &[f32], num_tiles: usize, y: &mut [f32]) {
    let mut columns = [[simd.splat_f32s(0.0); TILE]; RESULT];
    for tile in 0..num_tiles {
        let (image, across) = (tile / TILES, tile % TILES);
        let origin = image * POOLED_VALUES
            + (across / TILES_ACROSS * POOLED + across % TILES_ACROSS) * RESULT * CHANNELS;
        for start in (0..CHANNELS).step_by(S::F32_LANES) {
            for column in 0..TILE {
                let first = &products[(column * num_tiles + tile) * CHANNELS + start..];
                let values = results(simd, load_column(simd, first, TILE * num_tiles * CHANNELS));
                for (row, value) in columns.iter_mut().zip(values) {
                    row[column] = value;
                }
            }
            for (row, values) in columns.iter().enumerate() {
                for (column, value) in results(simd, *values).into_iter().enumerate() {
                    store::<S>(
                        &mut y[origin + (row * POOLED + column) * CHANNELS + start..],
                        value,
                    );
                }
            }
        }
    }
}

/// `A dY A^T` of every tile.
#[inline(always)]
fn transform_results_gradient<S: Simd>(
    simd: S,
    padded_dy: &[f32],
    num_tiles: usize,
    gradients: &mut [f32],
) {
    let mut columns = [[simd.splat_f32s(0.0); RESULT]; TILE];
    for tile in 0..num_tiles {
        let origin = tile / TILES * PADDED_VALUES + PADDED_ORIGIN + tile_offset(tile % TILES);
        for start in (0..CHANNELS).step_by(S::F32_LANES) {
            for column in 0..RESULT {
                let first = &padded_dy[origin + column * CHANNELS + start..];
                let values = results_transposed(simd, load_column(simd, first, PADDED * CHANNELS));
                for (row, value) in columns.iter_mut().zip(values) {
                    row[column] = value;
                }
            }
            for (row, values) in columns.iter().enumerate() {
                for (column, value) in results_transposed(simd, *values).into_iter().enumerate() {
                    let place = row * TILE + column;
                    store::<S>(
                        &mut gradients[(place * num_tiles + tile) * CHANNELS + start..],
                        value,
                    );
                }
            }
        }
    }
}

/// Where a tile begins in a padded image.
#[inline(always)]
fn tile_offset(tile: usize) -> usize {
    (tile / TILES_ACROSS * PADDED + tile % TILES_ACROSS) * RESULT * CHANNELS
}

/// `B^T d`.
///
/// ```text
///   1     0  -21/4     0   21/4     0  -1  0
///   0     1      1 -17/4  -17/4     1   1  0
///   0    -1      1  17/4  -17/4    -1   1  0
///   0   1/2    1/4  -5/2   -5/4     2   1  0
///   0  -1/2    1/4   5/2   -5/4    -2   1  0
///   0     2      4  -5/2     -5   1/2   1  0
///   0    -2      4   5/2     -5  -1/2   1  0
///   0    -1      0  21/4      0 -21/4   0  1
/// ```
#[inline(always)]
fn input_points<S: Simd>(simd: S, d: [S::f32s; TILE]) -> [S::f32s; TILE] {
    // Of each pair of points p and -p: what they have in common, and what differs in sign.
    let even_1 = add_times(simd, simd.add_f32s(d[2], d[6]), d[4], -4.25);
    let odd_1 = add_times(simd, simd.add_f32s(d[1], d[5]), d[3], -4.25);
    let even_2 = add_times(simd, add_times(simd, d[6], d[2], 0.25), d[4], -1.25);
    let odd_2 = add_times(
        simd,
        add_times(simd, times(simd, d[1], 0.5), d[3], -2.5),
        d[5],
        2.0,
    );
    let even_half = add_times(simd, add_times(simd, d[6], d[2], 4.0), d[4], -5.0);
    let odd_half = add_times(
        simd,
        add_times(simd, times(simd, d[1], 2.0), d[3], -2.5),
        d[5],
        0.5,
    );
    let [one, minus_one] = sum_and_difference(simd, even_1, odd_1);
    let [two, minus_two] = sum_and_difference(simd, even_2, odd_2);
    let [half, minus_half] = sum_and_difference(simd, even_half, odd_half);
    let zero = add_times(
        simd,
        simd.sub_f32s(d[0], d[6]),
        simd.sub_f32s(d[4], d[2]),
        5.25,
    );
    let infinity = add_times(
        simd,
        simd.sub_f32s(d[7], d[1]),
        simd.sub_f32s(d[3], d[5]),
        5.25,
    );
    [
        zero, one, minus_one, two, minus_two, half, minus_half, infinity,
    ]
}

/// The constants of the way back, of the points 1, 2 and 1/2 and their negatives.
const SCALES: [f32; 3] = [-2.0 / 9.0, 1.0 / 90.0, 32.0 / 45.0];

/// `G g`: the filter's values at the points, scaled.
///
/// ```text
///   1                                     the value at 0
///   -2/9  * (1   p  p^2  p^3  p^4)        at p = 1, -1
///   1/90  * (1   p  p^2  p^3  p^4)        at p = 2, -2
///   32/45 * (1   p  p^2  p^3  p^4)        at p = 1/2, -1/2
///                            1            at infinity
/// ```
#[inline(always)]
fn filter_points<S: Simd>(simd: S, g: [S::f32s; FILTER]) -> [S::f32s; TILE] {
    let [one, minus_one] = filter_at(simd, g, 1.0, SCALES[0]);
    let [two, minus_two] = filter_at(simd, g, 2.0, SCALES[1]);
    let [half, minus_half] = filter_at(simd, g, 0.5, SCALES[2]);
    [g[0], one, minus_one, two, minus_two, half, minus_half, g[4]]
}

/// The filter's scaled values at a point and its negative.
#[inline(always)]
fn filter_at<S: Simd>(simd: S, g: [S::f32s; FILTER], point: f32, scale: f32) -> [S::f32s; 2] {
    let square = point * point;
    let even = add_times(
        simd,
        add_times(simd, g[0], g[2], square),
        g[4],
        square * square,
    );
    let odd = add_times(simd, g[1], g[3], square);
    sum_and_difference(
        simd,
        times(simd, even, scale),
        times(simd, odd, point * scale),
    )
}

/// `G^T u`.
#[inline(always)]
fn filter_points_transposed<S: Simd>(simd: S, u: [S::f32s; TILE]) -> [S::f32s; FILTER] {
    let [even_1, odd_1] = sum_and_difference(simd, u[1], u[2]);
    let [even_2, odd_2] = sum_and_difference(simd, u[3], u[4]);
    let [even_half, odd_half] = sum_and_difference(simd, u[5], u[6]);
    let even = [even_1, even_2, even_half];
    let odd = [odd_1, odd_2, odd_half];
    [
        simd.add_f32s(u[0], sum_of_powers(simd, even, 0)),
        sum_of_powers(simd, odd, 1),
        sum_of_powers(simd, even, 2),
        sum_of_powers(simd, odd, 3),
        simd.add_f32s(u[7], sum_of_powers(simd, even, 4)),
    ]
}

/// The sum of `values`, each with its scale and the power of its point: of 1, of 2 and of 1/2.
#[inline(always)]
fn sum_of_powers<S: Simd>(simd: S, values: [S::f32s; 3], power: i32) -> S::f32s {
    let two = (1 << power) as f32;
    let sum = times(simd, values[0], SCALES[0]);
    let sum = add_times(simd, sum, values[1], SCALES[1] * two);
    add_times(simd, sum, values[2], SCALES[2] / two)
}

/// `A^T m`.
///
/// ```text
///   1  1   1  1   1    1     1  0
///   0  1  -1  2  -2  1/2  -1/2  0
///   0  1   1  4   4  1/4   1/4  0
///   0  1  -1  8  -8  1/8  -1/8  1
/// ```
#[inline(always)]
fn results<S: Simd>(simd: S, m: [S::f32s; TILE]) -> [S::f32s; RESULT] {
    let [even_1, odd_1] = sum_and_difference(simd, m[1], m[2]);
    let [even_2, odd_2] = sum_and_difference(simd, m[3], m[4]);
    let [even_half, odd_half] = sum_and_difference(simd, m[5], m[6]);
    let third = add_times(simd, add_times(simd, odd_1, odd_2, 8.0), odd_half, 0.125);
    [
        simd.add_f32s(
            simd.add_f32s(m[0], even_1),
            simd.add_f32s(even_2, even_half),
        ),
        add_times(simd, add_times(simd, odd_1, odd_2, 2.0), odd_half, 0.5),
        add_times(simd, add_times(simd, even_1, even_2, 4.0), even_half, 0.25),
        simd.add_f32s(m[7], third),
    ]
}

/// `A y`.
#[inline(always)]
fn results_transposed<S: Simd>(simd: S, y: [S::f32s; RESULT]) -> [S::f32s; TILE] {
    let [one, minus_one] = result_at(simd, y, 1.0);
    let [two, minus_two] = result_at(simd, y, 2.0);
    let [half, minus_half] = result_at(simd, y, 0.5);
    [y[0], one, minus_one, two, minus_two, half, minus_half, y[3]]
}

/// The values of the results, as a polynomial, at a point and its negative.
#[inline(always)]
fn result_at<S: Simd>(simd: S, y: [S::f32s; RESULT], point: f32) -> [S::f32s; 2] {
    let square = point * point;
    let even = add_times(simd, y[0], y[2], square);
    let odd = add_times(simd, y[1], y[3], square);
    sum_and_difference(simd, even, times(simd, odd, point))
}

#[inline(always)]
fn sum_and_difference<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
    [simd.add_f32s(a, b), simd.sub_f32s(a, b)]
}

#[inline(always)]
fn times<S: Simd>(simd: S, a: S::f32s, factor: f32) -> S::f32s {
    simd.mul_f32s(a, simd.splat_f32s(factor))
}

/// `sum + a * factor`
#[inline(always)]
fn add_times<S: Simd>(simd: S, sum: S::f32s, a: S::f32s, factor: f32) -> S::f32s {
    simd.mul_add_e_f32s(a, simd.splat_f32s(factor), sum)
}

/// A vector from each of `N` rows, `stride` apart.
#[inline(always)]
fn load_column<S: Simd, const N: usize>(simd: S, values: &[f32], stride: usize) -> [S::f32s; N] {
    let mut column = [simd.splat_f32s(0.0); N];
    for (row, vector) in column.iter_mut().enumerate() {
        *vector = S::as_simd_f32s(&values[row * stride..]).0[0];
    }
    column
}

#[inline(always)]
fn store<S: Simd>(values: &mut [f32], vector: S::f32s) {
    S::as_mut_simd_f32s(values).0[0] = vector;
}
