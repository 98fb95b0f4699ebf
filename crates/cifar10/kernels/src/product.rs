//! The one loop in which the time of a step goes: a product of small matrices, added up in registers.
//!
//! Every convolution, every Winograd product and every fully connected layer, forward and backward,
//! is a call of this with other strides.
//!
//! ```text
//!                      columns                  c[i][j] = sum over k of a[i][k] * b[k][j]
//!                   +-----------+
//!                 k |     b     |               a tile of c, up to six rows of two or four vectors,
//!          k        +-----------+               stays in registers while k runs. For each k one row
//!      +-------+    +-----------+               of b is loaded once and serves all rows of the tile;
//! rows |   a   |    |     c     |               each number of a is spread over a vector and serves
//!      +-------+    +-----------+               all of its columns.
//! ```
//!
//! With AVX-512 that is 24 multiply-adds for each four loads of `b`: the processor's two
//! multipliers are never idle, and the slices' bounds are checked in their shadow.

use pulp::{Simd, WithSimd};

/// Rows of `c` that are added up at a time.
const TILE_ROWS: usize = 6;

/// The left factor: `a[i][k]` is `values[piece * piece_stride + i * row_stride + k * k_stride]`.
///
/// The sum runs over pieces of equal length: the rows of a window of an image, say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) k_stride: usize,
    pub(crate) piece_stride: usize,
}

/// The right factor: `b[k][j]` is `values[piece * piece_stride + k * k_stride + j]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) k_stride: usize,
    pub(crate) piece_stride: usize,
}

/// A product of `rows` x `columns`, each element the sum of `pieces` times `piece_len` terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) rows: usize,
    /// A multiple of 16.
    pub(crate) columns: usize,
    pub(crate) pieces: usize,
    pub(crate) piece_len: usize,
    pub(crate) a: Left<'a>,
    pub(crate) b: Right<'a>,
}

/// What a product is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing: what `c` held is overwritten.
    Zero,
    /// What `c` holds.
    Present,
}

impl<'a> Product<'a> {
    /// `a * b` of plain matrices: `a` of `rows` rows of `len` numbers, `b` of `len` rows of `columns`,
    /// both without gaps.
    pub(crate) fn of_rows(
        rows: usize,
        len: usize,
        columns: usize,
        a: &'a [f32],
        b: &'a [f32],
    ) -> Self {
        let a = Left {
            values: a,
            row_stride: len,
            k_stride: 1,
            piece_stride: 0,
        };
        Product::of(rows, len, columns, a, b)
    }

    /// `a^T * b`: `a` of `len` rows of `rows` numbers, `b` of `len` rows of `columns`, both without
    /// gaps.
    pub(crate) fn of_columns(
        rows: usize,
        len: usize,
        columns: usize,
        a: &'a [f32],
        b: &'a [f32],
    ) -> Self {
        let a = Left {
            values: a,
            row_stride: 1,
            k_stride: rows,
            piece_stride: 0,
        };
        Product::of(rows, len, columns, a, b)
    }

    fn of(rows: usize, len: usize, columns: usize, a: Left<'a>, b: &'a [f32]) -> Self {
        let b = Right {
            values: b,
            k_stride: columns,
            piece_stride: 0,
        };
        Product {
            rows,
            columns,
            pieces: 1,
            piece_len: len,
            a,
            b,
        }
    }

    /// Writes the product to `c`, whose rows are `c_stride` apart.
    ///
    /// # Panics
    ///
    /// If a slice is too short, or the columns are no multiple of 16.
    #[inline(always)]
    pub(crate) fn write<S: Simd>(self, simd: S, c: &mut [f32], c_stride: usize, start: Start) {
        assert!(
            self.columns.is_multiple_of(16),
            "columns come in whole vectors"
        );
        // A function of its own for each instruction set, not a copy for each caller.
        simd.vectorize(Write {
            product: self,
            c,
            c_stride,
            start,
        });
    }

    /// Some vectors of each row, from `column` on; how many numbers those are.
    #[inline(always)]
    fn write_columns<S: Simd, const VECTORS: usize>(
        self,
        simd: S,
        column: usize,
        c: &mut [f32],
        c_stride: usize,
        start: Start,
    ) -> usize {
        let mut row = 0;
        while row < self.rows {
            let rows = (self.rows - row).min(TILE_ROWS);
            let c = &mut c[row * c_stride + column..];
            let tile = Tile {
                product: self,
                row,
                column,
            };
            match rows {
                6 => tile.write::<S, 6, VECTORS>(simd, c, c_stride, start),
                5 => tile.write::<S, 5, VECTORS>(simd, c, c_stride, start),
                4 => tile.write::<S, 4, VECTORS>(simd, c, c_stride, start),
                3 => tile.write::<S, 3, VECTORS>(simd, c, c_stride, start),
                2 => tile.write::<S, 2, VECTORS>(simd, c, c_stride, start),
                _ => tile.write::<S, 1, VECTORS>(simd, c, c_stride, start),
            }
            row += rows;
        }
        VECTORS * S::F32_LANES
    }
}

/// A product on its way to memory.
struct Write<'a, 'c> {
    product: Product<'a>,
    c: &'c mut [f32],
    c_stride: usize,
    start: Start,
}

impl WithSimd for Write<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Write {
            product,
            c,
            c_stride,
            start,
        } = self;
        let (mut column, lanes) = (0, S::F32_LANES);
        while column < product.columns {
            let left = product.columns - column;
            let width = if S::REGISTER_COUNT >= 32 && left >= 4 * lanes {
                // 24 sums, 4 vectors of b and one of a: what 32 registers hold.
                product.write_columns::<S, 4>(simd, column, c, c_stride, start)
            } else if left >= 2 * lanes {
                // 12 sums, 2 vectors of b and one of a: what 16 registers hold.
                product.write_columns::<S, 2>(simd, column, c, c_stride, start)
            } else {
                product.write_columns::<S, 1>(simd, column, c, c_stride, start)
            };
            column += width;
        }
    }
}

/// The part of a product that is added up in registers.
#[derive(Clone, Copy)]
struct Tile<'a> {
    product: Product<'a>,
    row: usize,
    column: usize,
}

impl Tile<'_> {
    #[inline(always)]
    fn write<S: Simd, const ROWS: usize, const VECTORS: usize>(
        self,
        simd: S,
        c: &mut [f32],
        c_stride: usize,
        start: Start,
    ) {
        let Product {
            a,
            b,
            pieces,
            piece_len,
            ..
        } = self.product;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        if start == Start::Present {
            for (i, sums) in sums.iter_mut().enumerate() {
                sums.copy_from_slice(&S::as_simd_f32s(&c[i * c_stride..]).0[..VECTORS]);
            }
        }
        for piece in 0..pieces {
            let a_values = &a.values[piece * a.piece_stride + self.row * a.row_stride..];
            let b_values = &b.values[piece * b.piece_stride + self.column..];
            for k in 0..piece_len {
                let a_column = &a_values[k * a.k_stride..];
                let b_row = &b_values[k * b.k_stride..][..VECTORS * S::F32_LANES];
                let (b_row, _) = S::as_simd_f32s(b_row);
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = simd.splat_f32s(a_column[i * a.row_stride]);
                    for (sum, vector) in sums.iter_mut().zip(b_row) {
                        *sum = simd.mul_add_e_f32s(factor, *vector, *sum);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            S::as_mut_simd_f32s(&mut c[i * c_stride..]).0[..VECTORS].copy_from_slice(sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buffer::tests::pseudo_random;
    use crate::instruction_set::InstructionSet;

    /// A sum of 58 numbers below 1 is below 64, and each addition is off by 2^-19 at most: 1.1e-4.
    const TOLERANCE: f64 = 2e-4;

    /// The sum as it is defined, in f64.
    fn element(product: &Product<'_>, i: usize, j: usize) -> f64 {
        let Product {
            a,
            b,
            pieces,
            piece_len,
            ..
        } = *product;
        let terms = (0..pieces).flat_map(|piece| (0..piece_len).map(move |k| (piece, k)));
        let term = |(piece, k)| {
            let a = a.values[piece * a.piece_stride + i * a.row_stride + k * a.k_stride];
            let b = b.values[piece * b.piece_stride + k * b.k_stride + j];
            f64::from(a) * f64::from(b)
        };
        terms.map(term).sum()
    }

    proptest! {
        #[test]
        fn a_product_is_the_sum_of_products(
            rows in 1_usize..20, pieces in 1_usize..4, piece_len in 1_usize..20, vectors in 1_usize..10,
            is_transposed: bool, starts_at_zero: bool,
        ) {
            let columns = 16 * vectors;
            let (row_stride, k_stride) = if is_transposed { (1, rows + 2) } else { (piece_len + 3, 1) };
            let values = pseudo_random(pieces * 1000, 1);
            let a = Left { values: &values, row_stride, k_stride, piece_stride: 1000 };
            let values = pseudo_random(pieces * piece_len * columns + 7, 2);
            let b = Right { values: &values, k_stride: columns, piece_stride: piece_len * columns + 1 };
            let product = Product { rows, columns, pieces, piece_len, a, b };
            let start = if starts_at_zero { Start::Zero } else { Start::Present };
            let c_stride = columns + 5;
            let before = pseudo_random(rows * c_stride, 3);
            for set in InstructionSet::all() {
                let mut c = before.clone();
                set.run(Write { product, c: &mut c, c_stride, start });
                for (index, found) in c.iter().enumerate() {
                    let (i, j) = (index / c_stride, index % c_stride);
                    let base = f64::from(before[index]);
                    let expected = match start {
                        _ if j >= columns => base,
                        Start::Zero => element(&product, i, j),
                        Start::Present => base + element(&product, i, j),
                    };
                    let difference = (f64::from(*found) - expected).abs();
                    prop_assert!(difference < TOLERANCE, "{set:?} [{i}][{j}]: {found}, not {expected}");
                }
            }
        }
    }
}
