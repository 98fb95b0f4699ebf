//! A worker that computes nothing: real requests, a gradient that was made up once.

use std::time::Duration;

use bytes::Bytes;
use pserver_run::{ExamplesDigest, Kernels, Layout, Numerics, RunConfig, SampleSequence};
use pserver_state::Values;
use pserver_wire::messages::{Gradients, Losses, Member, Push, Work};
use pserver_worker::worker_link::Computed;

/// What such a worker says that it computes with.
#[must_use]
pub fn numerics() -> Numerics {
    Numerics {
        device: "none".to_owned(),
        instruction_set: "none".to_owned(),
        kernels: Kernels::Torch,
        threads: 1,
        libtorch: "none".to_owned(),
    }
}

/// A made-up gradient, small enough that variables stay finite however often it is applied.
#[must_use]
pub fn gradient(layout: &Layout, seed: u32) -> Values {
    const SIZE: f32 = 1e-6;
    let mut values = Values::zeros(layout.num_values());
    let mut state = seed;
    for value in values.iter_mut() {
        // A linear congruential generator, the one of Numerical Recipes: anything but constant will do.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = SIZE * (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32;
    }
    values
}

/// Answers work without doing it.
#[derive(Clone, Debug)]
pub struct Answers {
    sequence: SampleSequence,
    gradients: Bytes,
}

impl Answers {
    /// For work of `run`, always with these gradients.
    #[must_use]
    pub fn new(run: &RunConfig, gradients: &Values) -> Self {
        let sequence = run.sequence();
        Answers {
            sequence,
            gradients: Bytes::copy_from_slice(gradients.as_bytes()),
        }
    }

    /// What a worker that had done `work` would tell besides the gradients.
    pub fn computed(&mut self, work: &Work) -> Computed {
        let examples = ExamplesDigest::of(self.sequence.samples(work.tower_step));
        let loss = 4.0;
        Computed {
            losses: Losses {
                cross_entropy: loss,
                total: loss,
                ..Losses::default()
            },
            examples_digest: examples.0,
            compute_time: Duration::ZERO,
        }
    }

    /// What a worker that had done `work` would push over the wire.
    pub fn to(&mut self, member: Member, work: &Work) -> (Push, Gradients) {
        let Computed {
            losses,
            examples_digest,
            compute_time,
        } = self.computed(work);
        let push = Push {
            member,
            tower_step: work.tower_step,
            state_digest: work.state_digest,
            losses,
            examples_digest,
            compute_time,
            attempt: work.attempt,
        };
        (push, Gradients::Sent(vec![self.gradients.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_gradient_is_finite_and_its_seed_tells() {
        let layout = cifar_model::layout();
        let values = gradient(&layout, 1);
        assert!(values.iter().all(|value| value.is_finite()));
        assert!(values.iter().any(|value| *value != 0.0));
        assert_ne!(values, gradient(&layout, 2));
    }
}
