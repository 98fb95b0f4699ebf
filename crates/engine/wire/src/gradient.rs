//! The gradient of a tower step as it came, in memory of the server's own.

use multiversion::multiversion;
use pserver_run::Evidence;
use pserver_state::Values;

use crate::gradient_slot::{Generation, ServerSlot};

/// A gradient.
#[derive(Debug)]
pub struct Gradient {
    /// All variables end to end.
    pub values: Values,
    /// Their Euclidean norm.
    pub norm: f32,
}

impl Gradient {
    /// Takes the norm.
    #[must_use]
    pub fn new(values: Values) -> Self {
        let norm = norm(&values);
        Gradient { values, norm }
    }

    /// Copies one out of its worker's slot into `memory`, which is of its size, and takes the norm on the way; `None`
    /// if it is not there.
    #[must_use]
    pub fn out_of(slot: &ServerSlot, generation: Generation, mut memory: Values) -> Option<Self> {
        let mut norm = Norm::default();
        let is_whole = slot.read(generation, &mut memory, |piece| norm.add(piece));
        is_whole.then(|| Gradient {
            values: memory,
            norm: norm.get(),
        })
    }
}

impl Evidence for Gradient {
    fn norm(&self) -> f32 {
        self.norm
    }

    fn same_bits(&self, other: &Self) -> bool {
        self.values.as_bytes() == other.values.as_bytes()
    }
}

/// Euclidean norm; not finite if one of the numbers is not, or if it is beyond the largest number.
#[must_use]
pub fn norm(numbers: &[f32]) -> f32 {
    let mut norm = Norm::default();
    norm.add(numbers);
    norm.get()
}

/// A Euclidean norm that is taken piece by piece, with the same bits as at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Norm {
    /// Sums of squares that grow side by side, so that the compiler may use vectors.
    sums: [f32; Norm::LANES],
}

impl Norm {
    const LANES: usize = 32;

    /// Takes in more numbers: a multiple of 32 of them, unless they are the last.
    pub fn add(&mut self, numbers: &[f32]) {
        self.sums = add_squares(self.sums, numbers);
    }

    /// The norm of all that was taken in.
    #[must_use]
    pub fn get(&self) -> f32 {
        let sum: f64 = self.sums.into_iter().map(f64::from).sum();
        sum.sqrt() as f32
    }
}

/// Adds each number's square to one of the sums, in turns. The sums are a copy, which stays in registers.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn add_squares(mut sums: [f32; Norm::LANES], numbers: &[f32]) -> [f32; Norm::LANES] {
    let (chunks, rest) = numbers.as_chunks::<{ Norm::LANES }>();
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum += number * number;
        }
    }
    for (sum, number) in sums.iter_mut().zip(rest) {
        *sum += number * number;
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_norm_is_that_of_double_precision(numbers in prop::collection::vec(-1e3_f32..1e3, 0..200)) {
            let exact = numbers.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>().sqrt();
            prop_assert!((f64::from(norm(&numbers)) - exact).abs() <= exact * 1e-6);
        }

        #[test]
        fn a_norm_taken_piece_by_piece_has_the_same_bits(
            numbers in prop::collection::vec(-1e3_f32..1e3, 0..300), chunks in 1_usize..5,
        ) {
            let mut pieces = Norm::default();
            numbers.chunks(chunks * 32).for_each(|piece| pieces.add(piece));
            prop_assert_eq!(pieces.get().to_bits(), norm(&numbers).to_bits());
        }

        #[test]
        fn one_number_that_is_not_finite_shows_in_the_norm(
            at in 0_usize..100, wrong in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        ) {
            let mut numbers = [1.0; 100];
            numbers[at] = wrong;
            prop_assert!(!norm(&numbers).is_finite());
        }
    }
}
