//! The same run without a network: one loop in plain arithmetic, from which all states are known
//! beforehand.

use pserver_run::{GlobalStep, StateDigest, Tower, TowerStep};
use pserver_state::{TrainingState, Values};

use crate::model::{
    DECAY_STEPS, LEARNING_RATE, MOVING_AVERAGE_DECAY, NUM_VALUES, gradient, layout,
};

/// What is to be known of a state.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) digest: StateDigest,
    /// The variables as they go over the wire.
    pub(crate) variables: Vec<u8>,
}

/// The states of the run, by global step.
#[derive(Debug)]
pub(crate) struct Reference {
    states: Vec<Known>,
}

impl Reference {
    /// Computes a run of `num_steps` steps.
    pub(crate) fn new(seed: u64, num_towers: u32, num_steps: u64) -> Self {
        let initial = pserver_state::initial::initial_variables(&layout(), seed);
        let mut variables: [f32; NUM_VALUES] = initial[..].try_into().expect("the sizes agree");
        let mut averages = variables;
        let mut states = vec![known(0, &variables, &averages)];
        for step in 0..num_steps {
            let bytes = &states[step as usize].variables;
            let mean = mean_gradient(bytes, seed, step, num_towers);
            let rate = learning_rate(step);
            let updates = (step + 1) as f32;
            let decay = MOVING_AVERAGE_DECAY.min((1.0 + updates) / (10.0 + updates));
            for i in 0..NUM_VALUES {
                variables[i] -= rate * mean[i];
                averages[i] -= (averages[i] - variables[i]) * (1.0 - decay);
            }
            states.push(known(step + 1, &variables, &averages));
        }
        Reference { states }
    }

    /// The state at `step`, if the run has it.
    pub(crate) fn at(&self, step: GlobalStep) -> Option<&Known> {
        self.states.get(usize::try_from(step.0).ok()?)
    }

    /// The last step of the run.
    pub(crate) fn last_step(&self) -> GlobalStep {
        GlobalStep(self.states.len() as u64 - 1)
    }
}

/// The sum over the towers in their order, then one division.
fn mean_gradient(variables: &[u8], seed: u64, step: u64, num_towers: u32) -> [f32; NUM_VALUES] {
    let of_tower = |tower| {
        let tower_step = TowerStep {
            global_step: GlobalStep(step),
            tower: Tower(tower),
        };
        gradient(variables, seed, tower_step)
    };
    let mut sum = of_tower(0);
    for tower in 1..num_towers {
        for (sum, number) in sum.iter_mut().zip(of_tower(tower)) {
            *sum += number;
        }
    }
    sum.map(|sum| sum / num_towers as f32)
}

/// A tenth after every [`DECAY_STEPS`] steps, rounded as TensorFlow does: the power in f64 of a
/// tenth in f32.
fn learning_rate(step: u64) -> f32 {
    let decays = step / DECAY_STEPS;
    LEARNING_RATE * libm::pow(f64::from(0.1_f32), decays as f64) as f32
}

fn known(step: u64, variables: &[f32], averages: &[f32]) -> Known {
    let state = TrainingState {
        global_step: GlobalStep(step),
        variables: Values::from(variables),
        averages: Values::from(averages),
    };
    Known {
        digest: state.digest(),
        variables: state.variables.as_bytes().to_vec(),
    }
}
