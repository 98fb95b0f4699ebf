//! The learning rate of each step.

use pserver_run::{DecayBy, GlobalStep, RunConfig};

/// Learning rate before the first decay, unless a flag says otherwise.
pub const INITIAL_LEARNING_RATE: f32 = 0.1;
/// Epochs after which the learning rate decays, unless a flag says otherwise.
pub const NUM_EPOCHS_PER_DECAY: f64 = 350.0;
/// The learning rate is multiplied by this at each decay.
pub const LEARNING_RATE_DECAY_FACTOR: f32 = 0.1;

/// A learning rate that falls in steps: TensorFlow's `exponential_decay(.., staircase=True)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRateSchedule {
    initial: f32,
    decay_steps: u64,
}

impl LearningRateSchedule {
    /// The schedule of a run.
    ///
    /// As in the tutorial, the steps between two decays are those that one tower of `batch_size`
    /// takes for `num_epochs_per_decay` epochs, however many towers there are. With
    /// [`DecayBy::Examples`] all towers count, so that a decay comes after the same examples.
    #[must_use]
    pub fn of(run: &RunConfig) -> Self {
        let examples_per_step = match run.decay_by {
            DecayBy::Steps => f64::from(run.batch_size),
            DecayBy::Examples => run.examples_per_update() as f64,
        };
        let steps_per_epoch = f64::from(run.data.num_train_examples()) / examples_per_step;
        let decay_steps = (steps_per_epoch * run.num_epochs_per_decay) as u64;
        LearningRateSchedule {
            initial: run.learning_rate,
            decay_steps: decay_steps.max(1),
        }
    }

    /// The learning rate with which the gradients taken at `global_step` are applied.
    #[must_use]
    pub fn learning_rate(&self, global_step: GlobalStep) -> f32 {
        let decays = global_step.0 / self.decay_steps;
        self.initial * libm::pow(f64::from(LEARNING_RATE_DECAY_FACTOR), decays as f64) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::run_config;

    fn schedule(change: impl FnOnce(&mut RunConfig)) -> LearningRateSchedule {
        let mut run = RunConfig {
            data: pserver_run::DataSet::Cifar10,
            batch_size: 128,
            num_towers: 4,
            learning_rate: INITIAL_LEARNING_RATE,
            num_epochs_per_decay: NUM_EPOCHS_PER_DECAY,
            decay_by: DecayBy::Steps,
            ..run_config()
        };
        change(&mut run);
        LearningRateSchedule::of(&run)
    }

    #[test]
    fn the_rate_falls_where_the_tutorials_does() {
        let schedule = schedule(|_| ());
        for (step, expected) in [
            (0, 0.1),
            (136_717, 0.1),
            (136_718, 0.01),
            (273_435, 0.01),
            (273_436, 0.001),
        ] {
            let rate = schedule.learning_rate(GlobalStep(step));
            assert!((rate / expected - 1.0).abs() < 1e-6, "step {step}: {rate}");
        }
        assert_eq!(schedule.learning_rate(GlobalStep(0)), 0.1);
    }

    #[test]
    fn by_examples_more_towers_decay_sooner() {
        assert_eq!(
            schedule(|run| run.decay_by = DecayBy::Examples).decay_steps,
            136_718 / 4
        );
    }

    #[test]
    fn a_decay_within_the_first_step_is_one_each_step() {
        assert_eq!(
            schedule(|run| run.num_epochs_per_decay = 1e-9).decay_steps,
            1
        );
    }
}
