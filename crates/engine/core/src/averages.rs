//! Exponential moving averages of the variables: TensorFlow's shadow variables.

use pserver_run::GlobalStep;

/// Upper limit of the decay, unless a flag says otherwise.
pub const MOVING_AVERAGE_DECAY: f32 = 0.9999;

/// The decay with which the averages take in the variables of `global_step`, which the update just
/// reached: `min(limit, (1 + n) / (10 + n))`.
///
/// Early on the averages follow closely, so that they are of use before ten thousand steps.
/// Source: `tf.train.ExponentialMovingAverage` with `num_updates`.
#[must_use]
pub fn decay(limit: f32, global_step: GlobalStep) -> f32 {
    let n = global_step.0 as f32;
    limit.min((1.0 + n) / (10.0 + n))
}

/// `average - (average - variable) * (1 - decay)`, in TensorFlow's order of operations.
#[must_use]
#[inline(always)]
pub fn update(average: f32, variable: f32, decay: f32) -> f32 {
    average - (average - variable) * (1.0 - decay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decay_grows_to_its_limit() {
        assert_eq!(decay(MOVING_AVERAGE_DECAY, GlobalStep(1)), 2.0 / 11.0);
        assert_eq!(decay(MOVING_AVERAGE_DECAY, GlobalStep(90)), 0.91);
        assert_eq!(decay(MOVING_AVERAGE_DECAY, GlobalStep(1_000_000)), 0.9999);
    }
}
