//! Matrices turned around.

/// Writes the transpose of `from`, of `rows` rows of `columns`, to `to`.
#[inline(always)]
pub(crate) fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    // A square of this size, read and written, stays in the first-level cache.
    const SQUARE: usize = 16;
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for column in left..(left + SQUARE).min(columns) {
                let to = &mut to[column * rows..][..rows];
                for row in top..(top + SQUARE).min(rows) {
                    to[row] = from[row * columns + column];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::tests::pseudo_random;

    #[test]
    fn rows_become_columns() {
        for (rows, columns) in [(3, 40), (16, 16), (33, 17)] {
            let from = pseudo_random(rows * columns, 1);
            let mut to = vec![0.0; from.len()];
            transpose(&from, rows, columns, &mut to);
            for (index, number) in from.iter().enumerate() {
                assert_eq!(to[index % columns * rows + index / columns], *number);
            }
        }
    }
}
