//! Initial values: a function of the layout and the seed alone.
//!
//! The server makes them, so a run does not depend on which worker comes first; and they are
//! computed with pure Rust arithmetic, so they have the same bits on every platform.

use std::f64::consts::TAU;

use pserver_run::layout::{Initializer, Layout};
use pserver_run::stream::{Purpose, Stream};

use crate::state::TrainingState;
use crate::values::Values;

/// The state before the first step of a run that begins with `seed`.
#[must_use]
pub fn initial_state(layout: &Layout, seed: u64) -> TrainingState {
    TrainingState::initial(initial_variables(layout, seed))
}

/// The variables before the first step.
#[must_use]
pub fn initial_variables(layout: &Layout, seed: u64) -> Values {
    let mut variables = Values::zeros(layout.num_values());
    for (index, (spec, range)) in layout.iter().enumerate() {
        let variable = &mut variables[range];
        match spec.initializer {
            Initializer::Constant(value) => variable.fill(value),
            Initializer::TruncatedNormal { stddev } => {
                let stream = Stream::new(seed, Purpose::Initializer, index as u64, 0);
                for (value, normal) in variable.iter_mut().zip(truncated_normals(stream)) {
                    *value = (stddev * normal) as f32;
                }
            }
        }
    }
    variables
}

/// Standard normal numbers without those beyond two standard deviations.
fn truncated_normals(mut stream: Stream) -> impl Iterator<Item = f64> {
    std::iter::repeat_with(move || normal_pair(&mut stream))
        .flatten()
        .filter(|normal| normal.abs() <= 2.0)
}

/// Two independent standard normal numbers, by Box and Muller (1958).
fn normal_pair(stream: &mut Stream) -> [f64; 2] {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - stream.unit_f64()));
    let angle = TAU * stream.unit_f64();
    [radius * libm::cos(angle), radius * libm::sin(angle)]
}

#[cfg(test)]
mod tests {
    use pserver_run::VariableSpec;

    use super::*;

    #[test]
    fn weights_have_their_spread_and_no_tails() {
        let variable = |name: &str, initializer| VariableSpec {
            name: name.to_owned(),
            shape: vec![100, 100],
            initializer,
        };
        let layout = Layout::new(vec![
            variable("wide", Initializer::TruncatedNormal { stddev: 1.0 }),
            variable("biases", Initializer::Constant(0.1)),
            variable("narrow", Initializer::TruncatedNormal { stddev: 0.005 }),
        ]);
        let variables = initial_variables(&layout, 1);
        for (spec, range) in layout.iter() {
            let variable = &variables[range];
            match spec.initializer {
                Initializer::Constant(value) => assert!(variable.iter().all(|v| *v == value)),
                Initializer::TruncatedNormal { stddev } => {
                    assert!(
                        variable
                            .iter()
                            .all(|v| f64::from(v.abs()) <= 2.0 * stddev * (1.0 + 1e-6))
                    );
                    let mean_square = variable.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
                        / variable.len() as f64;
                    // Cutting at two standard deviations leaves 0.8796 of one.
                    let ratio = mean_square.sqrt() / stddev;
                    assert!((ratio - 0.8796).abs() < 0.03, "{}: {ratio}", spec.name);
                }
            }
        }
    }

    #[test]
    fn another_seed_gives_other_weights() {
        let layout = Layout::example();
        assert_eq!(initial_variables(&layout, 1), initial_variables(&layout, 1));
        assert_ne!(initial_variables(&layout, 1), initial_variables(&layout, 2));
    }
}
