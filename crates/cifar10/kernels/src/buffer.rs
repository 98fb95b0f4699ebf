//! Memory of the kernels: taken once, beginning on a cache line.

use aligned_vec::{ABox, AVec, ConstAlign};

/// Numbers that begin on 64 bytes, so that no vector of a row lies across two cache lines.
pub(crate) type Buffer = ABox<[f32], ConstAlign<64>>;

/// `len` zeros.
pub(crate) fn zeros(len: usize) -> Buffer {
    let mut numbers = AVec::new(64);
    numbers.resize(len, 0.0);
    numbers.into_boxed_slice()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Numbers in -1..1 that look random and are the same each time.
    pub(crate) fn pseudo_random(len: usize, seed: u32) -> Buffer {
        let mut numbers = zeros(len);
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        for number in &mut *numbers {
            // xorshift, Marsaglia 2003.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *number = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        }
        numbers
    }

    pub(crate) fn in_f64(numbers: &[f32]) -> Vec<f64> {
        numbers.iter().map(|number| f64::from(*number)).collect()
    }

    /// The greatest difference, as a part of the greatest expected number.
    pub(crate) fn relative_difference(found: &[f32], expected: &[f64]) -> f64 {
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(1e-30, |max: f64, x| max.max(x.abs()));
        let differences = found.iter().zip(expected);
        let differences = differences.map(|(found, expected)| (f64::from(*found) - expected).abs());
        differences.fold(0.0, |max: f64, difference| {
            // A NaN is as different as can be.
            if difference.is_nan() {
                f64::INFINITY
            } else {
                max.max(difference)
            }
        }) / scale
    }

    #[test]
    fn a_buffer_begins_on_a_cache_line() {
        assert_eq!(zeros(3).as_ptr() as usize % 64, 0);
        assert_eq!(*zeros(3), [0.0; 3]);
    }
}
