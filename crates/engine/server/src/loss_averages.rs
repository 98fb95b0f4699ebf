//! The tutorial's averages of the losses, which smooth their curves for people to look at.

use pserver_run::GlobalStep;
use pserver_wire::messages::Losses;

/// Share that an average keeps at each step.
const DECAY: f32 = 0.9;

/// The average of each loss over the steps so far, the last ones counting most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LossAverages {
    /// `None` before the first losses of a run that goes on.
    averages: Option<Losses>,
}

impl LossAverages {
    /// The averages of a run at `global_step`.
    ///
    /// At the beginning they are zero, as TensorFlow's averages of what is no variable. A run that goes
    /// on begins with the first losses that it sees.
    pub(crate) fn new(global_step: GlobalStep) -> Self {
        let averages = (global_step.0 == 0).then(Losses::default);
        LossAverages { averages }
    }

    /// Takes in the losses of a step; the averages after it.
    ///
    /// Source: `_add_loss_summaries` in tensorflow/models, `tutorials/image/cifar10/cifar10.py`.
    pub(crate) fn take_in(&mut self, losses: Losses) -> Losses {
        let before = self.averages.unwrap_or(losses);
        let average = |of: fn(Losses) -> f32| {
            let (average, loss) = (of(before), of(losses));
            let next = average - (average - loss) * (1.0 - DECAY);
            // One that is not finite would spoil it for good.
            if next.is_finite() { next } else { average }
        };
        let averages = Losses {
            cross_entropy: average(|of| of.cross_entropy),
            local3_weight_loss: average(|of| of.local3_weight_loss),
            local4_weight_loss: average(|of| of.local4_weight_loss),
            total: average(|of| of.total),
        };
        self.averages = Some(averages);
        averages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::losses;

    fn check(averages: Losses, loss: f32) {
        let (found, expected) = (averages, losses(loss));
        for (found, expected) in [
            (found.cross_entropy, expected.cross_entropy),
            (found.local3_weight_loss, expected.local3_weight_loss),
            (found.local4_weight_loss, expected.local4_weight_loss),
            (found.total, expected.total),
        ] {
            assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        }
    }

    #[test]
    fn the_averages_of_a_new_run_rise_from_zero() {
        let mut averages = LossAverages::new(GlobalStep(0));
        check(averages.take_in(losses(1.0)), 0.1);
        check(averages.take_in(losses(1.0)), 0.19);
    }

    #[test]
    fn those_of_a_run_that_goes_on_begin_where_it_is() {
        let mut averages = LossAverages::new(GlobalStep(500));
        check(averages.take_in(losses(1.0)), 1.0);
        check(averages.take_in(losses(2.0)), 1.1);
    }

    #[test]
    fn a_loss_that_is_not_finite_is_passed_over() {
        let mut averages = LossAverages::new(GlobalStep(500));
        averages.take_in(losses(1.0));
        check(averages.take_in(losses(f32::NAN)), 1.0);
        check(averages.take_in(losses(f32::INFINITY)), 1.0);
    }
}
