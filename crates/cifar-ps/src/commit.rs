//! One commit: from a state and the gradients of all towers to the next state.
//!
//! mean in tower order -> gradient descent -> moving averages, a piece at a time, so that what one
//! stage writes the next finds in the cache.

use cifar_params::{TrainingState, Values};

use crate::{aggregator, averages, optimizer};

/// Elements per piece: 16 KiB of each buffer, so that the handful in use fit in the first-level
/// cache together.
const PIECE: usize = 4096;

/// The variables became infinite or no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

/// Writes into `next` the state that follows `state`.
///
/// `gradients` are those of the towers, in tower order: the mean then has the same bits in whatever
/// order they arrived.
///
/// # Errors
///
/// [`NotFinite`] if a variable is not finite; `next` must then not be used.
///
/// # Panics
///
/// If the buffers differ in length, or there is no gradient.
pub fn commit(
    state: &TrainingState,
    gradients: &[&Values],
    learning_rate: f32,
    moving_average_decay: f32,
    next: &mut TrainingState,
) -> Result<(), NotFinite> {
    next.global_step = state.global_step.next();
    let decay = averages::decay(moving_average_decay, next.global_step);
    let mut mean = [0.0; PIECE];
    let mut finite = true;
    for start in (0..state.variables.len()).step_by(PIECE) {
        let piece = start..state.variables.len().min(start + PIECE);
        let mean = &mut mean[..piece.len()];
        aggregator::mean(
            gradients.iter().map(|gradients| &gradients[piece.clone()]),
            mean,
        );
        let variables = &mut next.variables[piece.clone()];
        optimizer::apply_gradients(
            &state.variables[piece.clone()],
            mean,
            learning_rate,
            variables,
        );
        averages::update(
            &state.averages[piece.clone()],
            variables,
            decay,
            &mut next.averages[piece.clone()],
        );
        finite &= all_finite(variables);
    }
    if finite { Ok(()) } else { Err(NotFinite) }
}

/// Whether there is no infinity and no NaN among the numbers.
#[must_use]
pub fn all_finite(numbers: &[f32]) -> bool {
    // Without an early end, so that it vectorises.
    numbers
        .iter()
        .fold(true, |finite, number| finite & number.is_finite())
}

#[cfg(test)]
mod tests {
    use cifar_sequence::GlobalStep;

    use super::*;

    fn values(numbers: &[f32]) -> Values {
        Values::from(numbers)
    }

    #[test]
    fn a_commit_is_mean_then_descent_then_averages() {
        let state = TrainingState::initial(values(&[1.0, 2.0]));
        let mut next = state.clone();
        commit(
            &state,
            &[&values(&[1.0, 0.0]), &values(&[3.0, 4.0])],
            0.5,
            0.9999,
            &mut next,
        )
        .unwrap();
        assert_eq!(next.global_step, GlobalStep(1));
        assert_eq!(next.variables, values(&[0.0, 1.0]));
        // The first decay is 2/11: the averages take 9/11 of the way from 1 to 0 and from 2 to 1.
        assert!(
            (next.averages[0] - 2.0 / 11.0).abs() < 1e-6
                && (next.averages[1] - 13.0 / 11.0).abs() < 1e-6
        );
    }

    #[test]
    fn pieces_meet_without_a_gap() {
        let numbers: Vec<f32> = (0..2 * PIECE + 7).map(|i| i as f32).collect();
        let state = TrainingState::initial(values(&numbers));
        let mut next = state.clone();
        commit(&state, &[&values(&numbers)], 1.0, 0.9999, &mut next).unwrap();
        assert!(next.variables.iter().all(|variable| *variable == 0.0));
    }

    #[test]
    fn a_variable_that_overflows_is_told() {
        let state = TrainingState::initial(values(&[f32::MAX]));
        let mut next = state.clone();
        assert_eq!(
            commit(&state, &[&values(&[f32::MIN])], 1.0, 0.9999, &mut next),
            Err(NotFinite)
        );
    }

    #[test]
    fn only_finite_numbers_are_finite() {
        assert!(all_finite(&[0.0, f32::MAX, f32::MIN_POSITIVE, -1.0]));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = [1.0; 100];
            numbers[57] = wrong;
            assert!(!all_finite(&numbers));
        }
    }
}
