//! One commit: from a state and the gradients of all towers to the next state.
//!
//! mean in tower order -> gradient descent -> moving averages, number by number: each is read from
//! memory once and written once.
//!
//! It is compiled three times, for the instructions that every processor of the target has, for AVX2 and
//! for AVX-512; which of them runs is decided by what the processor has. The bits are the same: Rust
//! keeps the order of operations and never fuses a product with a sum.
//!
//! It is bound by memory, as fast as a copy of as many bytes (docs/runs/2026-11-25-apply). The digest of the state
//! remains a pass of its own: it is bound by its arithmetic, and taking it piece by piece in the same pass was no
//! faster.

use std::ops::Range;

use multiversion::multiversion;

use crate::{averages, mean, optimizer};

/// Numbers of which the mean of many towers is taken at once: 64 KiB, which a processor's second cache holds.
const PIECE: usize = 16 * 1024;

/// A variable or a moving average became infinite or no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

/// Writes into `after` what follows `before`.
///
/// `gradients` are those of the towers, in tower order: the mean then has the same bits in whatever
/// order they arrived.
///
/// # Errors
///
/// [`NotFinite`] if a variable or a moving average is not finite; `after` must then not be used.
///
/// # Panics
///
/// If the buffers differ in length, or there is no gradient.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn commit(
    before: &Before<'_>,
    gradients: &[&[f32]],
    after: &mut After<'_>,
) -> Result<(), NotFinite> {
    commit_numbers(before, gradients, after)
}

/// [`commit`], compiled for the instruction set of the function that it is called in, as everything
/// that is always inlined.
#[inline(always)]
fn commit_numbers(
    before: &Before<'_>,
    gradients: &[&[f32]],
    after: &mut After<'_>,
) -> Result<(), NotFinite> {
    let all = 0..before.variables.len();
    // Each number of towers is code of its own, in which a number stays in a register from the first
    // gradient to the last average.
    let finite = match *gradients {
        [a] => commit_range(before, [a], after, all),
        [a, b] => commit_range(before, [a, b], after, all),
        [a, b, c] => commit_range(before, [a, b, c], after, all),
        [a, b, c, d] => commit_range(before, [a, b, c, d], after, all),
        _ => commit_mean(before, gradients, after),
    };
    if finite { Ok(()) } else { Err(NotFinite) }
}

/// What a commit reads besides gradients.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The variables, end to end.
    pub variables: &'a [f32],
    /// Their moving averages.
    pub averages: &'a [f32],
    /// The learning rate.
    pub learning_rate: f32,
    /// The [decay](averages::decay) of the averages.
    pub decay: f32,
}

/// What a commit writes.
#[derive(Debug)]
pub struct After<'a> {
    /// The variables, end to end.
    pub variables: &'a mut [f32],
    /// Their moving averages.
    pub averages: &'a mut [f32],
}

/// Computes all numbers out of the mean of the gradients, which is taken piece by piece; whether they are finite.
#[inline(always)]
fn commit_mean(before: &Before<'_>, gradients: &[&[f32]], after: &mut After<'_>) -> bool {
    let len = before.variables.len();
    let mut mean = vec![0.0; PIECE.min(len)];
    let mut finite = true;
    for start in (0..len).step_by(PIECE) {
        let piece = start..len.min(start + PIECE);
        let mean = &mut mean[..piece.len()];
        mean::mean(gradients, piece.clone(), mean);
        finite &= commit_range(before, [mean], after, piece);
    }
    finite
}

/// Computes the numbers in `range`, of which `gradients` are the towers'; whether they are finite.
#[inline(always)]
fn commit_range<const N: usize>(
    before: &Before<'_>,
    gradients: [&[f32]; N],
    after: &mut After<'_>,
    range: Range<usize>,
) -> bool {
    let variables = &before.variables[range.clone()];
    let averages = &before.averages[range.clone()];
    let next_variables = &mut after.variables[range.clone()];
    let next_averages = &mut after.averages[range];
    let len = variables.len();
    // Known here, it need not be asked again for each number.
    assert!(gradients.iter().all(|gradients| gradients.len() == len));
    // Without an early end, so that it vectorises.
    let mut finite = true;
    for index in 0..len {
        let gradient = mean::mean_of(gradients.map(|gradients| gradients[index]));
        let variable = optimizer::apply_gradient(variables[index], gradient, before.learning_rate);
        let average = averages::update(averages[index], variable, before.decay);
        next_variables[index] = variable;
        next_averages[index] = average;
        finite &= variable.is_finite() & average.is_finite();
    }
    finite
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pserver_run::GlobalStep;

    use super::*;

    /// A commit, as it was compiled for some processors.
    type Form = fn(&Before<'_>, &[&[f32]], &mut After<'_>) -> Result<(), NotFinite>;

    /// Variables and averages after one commit at the beginning of a run, by one of its forms.
    fn after(
        form: Form,
        [variables, averages]: [&[f32]; 2],
        gradients: &[&[f32]],
        learning_rate: f32,
    ) -> Result<[Vec<f32>; 2], [Vec<f32>; 2]> {
        let before = Before {
            variables,
            averages,
            learning_rate,
            decay: averages::decay(0.9999, GlobalStep(1)),
        };
        let mut next = [variables, averages].map(<[f32]>::to_vec);
        let [variables, averages] = &mut next;
        let mut after = After {
            variables,
            averages,
        };
        match form(&before, gradients, &mut after) {
            Ok(()) => Ok(next),
            Err(NotFinite) => Err(next),
        }
    }

    #[test]
    fn a_commit_is_mean_then_descent_then_averages() {
        let before = [1.0, 2.0];
        let gradients: [&[f32]; 2] = [&[1.0, 0.0], &[3.0, 4.0]];
        let [variables, averages] = after(commit, [&before; 2], &gradients, 0.5).unwrap();
        assert_eq!(variables, [0.0, 1.0]);
        // The first decay is 2/11: the averages take 9/11 of the way from 1 to 0 and from 2 to 1.
        assert!(
            (averages[0] - 2.0 / 11.0).abs() < 1e-6 && (averages[1] - 13.0 / 11.0).abs() < 1e-6
        );
    }

    #[test]
    fn pieces_meet_without_a_gap() {
        let numbers: Vec<f32> = (0..2 * PIECE + 7).map(|i| i as f32).collect();
        for num_towers in [1, 5] {
            let gradients = vec![&numbers[..]; num_towers];
            let [variables, _] = after(commit, [&numbers; 2], &gradients, 1.0).unwrap();
            assert!(variables.iter().all(|variable| *variable == 0.0));
        }
    }

    #[test]
    fn a_variable_that_overflows_is_told() {
        assert!(after(commit, [&[f32::MAX]; 2], &[&[f32::MIN]], 1.0).is_err());
    }

    /// The formula of one number; `gradients` are those of the towers.
    fn one_number(variable: f32, average: f32, gradients: &[f32], rate: f32) -> [f32; 2] {
        let sum = gradients[1..].iter().fold(gradients[0], |sum, g| sum + g);
        let variable = variable - rate * (sum / gradients.len() as f32);
        let share = 1.0 - averages::decay(0.9999, GlobalStep(1));
        [variable, average - (average - variable) * share]
    }

    fn same_bits(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    /// Mostly moderate; now and then any of the bit patterns, infinities and NaN among them.
    fn any_number() -> impl Strategy<Value = f32> {
        prop_oneof![500 => -1e3_f32..1e3, 1 => prop::num::f32::ANY]
    }

    proptest! {
        #[test]
        fn every_form_has_the_bits_of_the_formula(
            rows in (3_usize..15).prop_flat_map(|num_rows| {
                let row = prop::collection::vec(any_number(), num_rows);
                prop::collection::vec(row, 0..200)
            }),
            rate in 0.0_f32..1.0,
        ) {
            let column = |index: usize| rows.iter().map(|row| row[index]).collect::<Vec<f32>>();
            let before = [column(0), column(1)];
            let num_towers = rows.first().map_or(1, |row| row.len() - 2);
            let columns: Vec<Vec<f32>> = (0..num_towers).map(|tower| column(2 + tower)).collect();
            let gradients: Vec<&[f32]> = columns.iter().map(|column| &column[..]).collect();
            let expected: Vec<[f32; 2]> = rows
                .iter()
                .map(|row| one_number(row[0], row[1], &row[2..], rate))
                .collect();
            let is_finite = expected.iter().flatten().all(|number| number.is_finite());
            for form in [commit, commit_numbers] {
                let outcome = after(form, [&before[0], &before[1]], &gradients, rate);
                prop_assert_eq!(outcome.is_ok(), is_finite);
                let (Ok(next) | Err(next)) = outcome;
                let found = next[0].iter().zip(&next[1]);
                for ((variable, average), expected) in found.zip(&expected) {
                    prop_assert!(same_bits(*variable, expected[0]));
                    prop_assert!(same_bits(*average, expected[1]));
                }
            }
        }
    }
}
