//! What training changes: the variables, their moving averages and the global step.

use pserver_run::{GlobalStep, StateDigest};
use twox_hash::XxHash3_128;

use crate::values::Values;

/// The state of a run between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingState {
    /// Updates applied so far.
    pub global_step: GlobalStep,
    /// The trainable variables.
    pub variables: Values,
    /// Their exponential moving averages (TensorFlow's shadow variables); evaluation reads these.
    pub averages: Values,
}

impl TrainingState {
    /// The state before the first step: the averages start equal to the variables.
    #[must_use]
    pub fn initial(variables: Values) -> Self {
        let averages = variables.clone();
        TrainingState {
            global_step: GlobalStep(0),
            variables,
            averages,
        }
    }

    /// A digest of every bit of the state. Runs with equal digests are at the same state.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        let mut hash = XxHash3_128::new();
        hash.write(&self.global_step.0.to_le_bytes());
        hash.write(self.variables.as_bytes());
        hash.write(self.averages.as_bytes());
        StateDigest(hash.finish_128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_sees_every_part_of_the_state() {
        let state = TrainingState::initial(Values::from([1.0, 2.0].as_slice()));
        let mut stepped = state.clone();
        stepped.global_step = GlobalStep(1);
        let mut moved = state.clone();
        moved.variables[1] = 2.0_f32.next_up();
        let mut averaged = state.clone();
        averaged.averages[0] = 1.0_f32.next_down();
        let digests = [&state, &stepped, &moved, &averaged].map(TrainingState::digest);
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest));
        }
        assert_eq!(digests[0].to_string().parse(), Ok(digests[0]));
    }

    #[test]
    fn the_digest_of_a_state_never_changes() {
        let numbers: Vec<f32> = (0..1000_u16).map(f32::from).collect();
        let state = TrainingState::initial(Values::from(numbers.as_slice()));
        assert_eq!(state.digest(), GOLDEN);
    }

    /// Of the crate `xxhash-rust`: XXH3-128 is specified, and another hand wrote it the same.
    const GOLDEN: StateDigest = StateDigest(0x71e4_cc85_efb0_8c56_e00f_8420_2e49_88e9);
}
