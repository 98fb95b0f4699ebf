//! What is kept of every hundredth step for people to look at: when, and under which of the tutorial's
//! tags.
//!
//! Pure: decisions, and from numbers to TensorBoard's values. `summary_writer.rs` writes them.

use std::sync::Arc;
use std::time::Instant;

use pserver_core::mean::mean;
use pserver_events::{Histogram, Image, Summary};
use pserver_run::{GlobalStep, Layout, TowerStep};
use pserver_state::Values;
use pserver_wire::messages::{Losses, SUMMARY_IMAGE_SIZE, TowerSummary};

use crate::snapshot::Snapshot;

/// The layers whose activations are kept, by the tutorial's scopes.
const LAYERS: [&str; 5] = ["conv1", "conv2", "local3", "local4", "softmax_linear"];

/// Which summaries are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Steps between two summaries; 0 for none.
    every: u64,
    /// The step whose worker's part was asked for last, and whether that has not come.
    asked_for: Option<GlobalStep>,
    is_awaited: bool,
}

impl Wanted {
    /// A summary of every step that is a multiple of `every`; of none if that is 0.
    #[must_use]
    pub fn every(every: u64) -> Self {
        Wanted {
            every,
            asked_for: None,
            is_awaited: false,
        }
    }

    /// Whether the update of this step, counted before it, is to be summarised.
    #[must_use]
    pub fn includes(&self, global_step: GlobalStep) -> bool {
        self.every > 0 && global_step.0.is_multiple_of(self.every)
    }

    /// Asks the worker of a tower step for its part, if it is the one whose part is wanted: that of
    /// tower 0, and in asynchronous mode, where `serial` is the tower step's number among all, of every
    /// so many tower steps. `global_step` is that of the variables.
    pub fn ask(
        &mut self,
        of: TowerStep,
        serial: Option<u64>,
        global_step: GlobalStep,
    ) -> Option<GlobalStep> {
        let is_wanted = match serial {
            Some(serial) => self.includes(GlobalStep(serial)),
            None => of.tower.0 == 0 && self.includes(of.global_step),
        };
        if !is_wanted {
            return None;
        }
        if self.asked_for != Some(global_step) {
            self.asked_for = Some(global_step);
            self.is_awaited = true;
        }
        self.is_awaited.then_some(global_step)
    }

    /// Whether a worker's part of this step is still waited for; the next one of it is not.
    pub fn take(&mut self, summary_step: GlobalStep) -> bool {
        self.asked_for == Some(summary_step) && std::mem::take(&mut self.is_awaited)
    }
}

/// A part of a summary, for people to look at.
#[derive(Debug)]
pub enum Part {
    /// What the server knows of a step.
    Update(Box<UpdateSummary>),
    /// What the worker of a tower step knows, and when it came.
    Tower(Instant, Box<TowerSummary>),
}

/// An update that is to be summarised.
#[derive(Debug)]
pub struct UpdateSummary {
    /// When it was committed.
    pub at: Instant,
    /// The state that it was applied to.
    pub before: Arc<Snapshot>,
    /// The gradients that were applied, in tower order.
    pub gradients: Vec<Values>,
    /// The learning rate.
    pub learning_rate: f32,
    /// Mean of the losses over the gradients.
    pub losses: Losses,
    /// Their averages over the steps.
    pub loss_averages: Losses,
}

impl UpdateSummary {
    /// The step, counted before the update, as the tutorial counts.
    #[must_use]
    pub fn global_step(&self) -> GlobalStep {
        self.before.state.global_step
    }

    /// The values to be written.
    ///
    /// Source of the tags: tensorflow/models, `tutorials/image/cifar10/cifar10.py`, `train` and
    /// `_add_loss_summaries`.
    ///
    /// # Panics
    ///
    /// If there is no gradient, or one is not of the layout.
    #[must_use]
    pub fn into_values(self, layout: &Layout) -> Summary {
        let mut summary = Summary::default();
        summary.scalar("learning_rate", self.learning_rate);
        add_losses(&mut summary, &self.losses, "__raw_");
        add_losses(&mut summary, &self.loss_averages, "");
        for (spec, range) in layout.iter() {
            let variable = &self.before.state.variables[range];
            summary.histogram(&spec.name, &Histogram::of(variable));
        }
        // Its memory is what the next update but one would like to have.
        drop(self.before);
        let gradients: Vec<&[f32]> = self.gradients.iter().map(|of| &of[..]).collect();
        for (spec, range) in layout.iter() {
            let mut numbers = vec![0.0; range.len()];
            mean(&gradients, range, &mut numbers);
            let tag = format!("{}/gradients", spec.name);
            summary.histogram(&tag, &Histogram::of(&numbers));
        }
        summary
    }
}

fn add_losses(summary: &mut Summary, losses: &Losses, suffix: &str) {
    for (name, loss) in [
        ("local3/weight_loss", losses.local3_weight_loss),
        ("local4/weight_loss", losses.local4_weight_loss),
        ("cross_entropy", losses.cross_entropy),
        ("total_loss", losses.total),
    ] {
        summary.scalar(&format!("{name}{suffix}"), loss);
    }
}

/// The images of a worker's part.
#[must_use]
pub fn images(summary: &TowerSummary) -> Vec<Image> {
    let image = |pixels| Image::of_rgb(SUMMARY_IMAGE_SIZE, SUMMARY_IMAGE_SIZE, pixels);
    summary.images.iter().map(|it| image(it)).collect()
}

/// The values of a worker's part, and its images.
///
/// Source of the tags: tensorflow/models, `tutorials/image/cifar10/cifar10.py`, `_activation_summary`,
/// and `cifar10_input.py`, `_generate_image_and_label_batch`.
#[must_use]
pub fn tower_values(summary: &TowerSummary, images: &[Image]) -> Summary {
    let mut values = Summary::default();
    for (layer, activations) in LAYERS.iter().zip(&summary.activations) {
        let tag = |what| format!("{layer}/{layer}/{what}");
        values.histogram(&tag("activations"), &activations.histogram);
        values.scalar(&tag("sparsity"), activations.sparsity);
    }
    for (number, image) in images.iter().enumerate() {
        values.image(&format!("images/image/{number}"), image);
    }
    values
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pserver_run::Tower;
    use pserver_state::TrainingState;
    use pserver_wire::messages::SUMMARY_IMAGE_BYTES;

    use super::*;
    use crate::fixtures::{losses, some_time, tower_summary};
    use pserver_state::initial::initial_state;

    fn of(step: u64, tower: u32) -> TowerStep {
        TowerStep {
            global_step: GlobalStep(step),
            tower: Tower(tower),
        }
    }

    #[test]
    fn the_worker_of_tower_0_is_asked_at_every_so_many_steps_and_answers_once() {
        let mut wanted = Wanted::every(100);
        let ask =
            |wanted: &mut Wanted, step, tower| wanted.ask(of(step, tower), None, GlobalStep(step));
        assert_eq!(ask(&mut wanted, 0, 0), Some(GlobalStep(0)));
        assert_eq!(ask(&mut wanted, 0, 1), None);
        assert_eq!(ask(&mut wanted, 50, 0), None);
        assert!(!wanted.take(GlobalStep(100)), "never asked for");
        assert_eq!(
            ask(&mut wanted, 0, 0),
            Some(GlobalStep(0)),
            "another worker"
        );
        assert!(wanted.take(GlobalStep(0)));
        assert!(!wanted.take(GlobalStep(0)), "that other worker's");
        assert_eq!(ask(&mut wanted, 0, 0), None, "it has come");
        assert_eq!(ask(&mut wanted, 100, 0), Some(GlobalStep(100)));
        assert_eq!(ask(&mut wanted, 200, 0), Some(GlobalStep(200)));
        assert!(!wanted.take(GlobalStep(100)), "too late");
    }

    #[test]
    fn asynchronous_tower_steps_are_counted_and_their_summaries_named_by_the_variables_step() {
        let mut wanted = Wanted::every(10);
        let mut ask = |serial| wanted.ask(of(serial / 2, 1), Some(serial), GlobalStep(77));
        assert_eq!(ask(20), Some(GlobalStep(77)));
        assert_eq!(ask(21), None);
    }

    /// The mean is that of the commit: any other gradients would show in the histograms.
    #[test]
    fn an_update_has_the_tutorials_scalars_and_a_histogram_of_each_variable_and_gradient() {
        let layout = Layout::example();
        let state: TrainingState = initial_state(&layout, 1);
        let ones = Values::from(vec![1.0; layout.num_values()].as_slice());
        let threes = Values::from(vec![3.0; layout.num_values()].as_slice());
        let update = UpdateSummary {
            at: some_time(),
            before: Arc::new(Snapshot::new(state.clone())),
            gradients: vec![ones, threes],
            learning_rate: 0.125,
            losses: losses(1.0),
            loss_averages: losses(0.1),
        };
        let summary = update.into_values(&layout);
        let mut expected = Summary::default();
        for (tag, number) in [
            ("learning_rate", 0.125),
            ("local3/weight_loss__raw_", 2.0),
            ("local4/weight_loss__raw_", 3.0),
            ("cross_entropy__raw_", 1.0),
            ("total_loss__raw_", 6.0),
            ("local3/weight_loss", 0.2),
            ("local4/weight_loss", 0.3),
            ("cross_entropy", 0.1),
            ("total_loss", 0.6),
        ] {
            expected.scalar(tag, number);
        }
        for (spec, range) in layout.iter() {
            let variable = Histogram::of(&state.variables[range]);
            expected.histogram(&spec.name, &variable);
        }
        for (spec, range) in layout.iter() {
            let twos = Histogram::of(&vec![2.0; range.len()]);
            expected.histogram(&format!("{}/gradients", spec.name), &twos);
        }
        assert_eq!(summary, expected);
    }

    #[test]
    fn a_workers_part_has_the_tutorials_tags() {
        let image = Bytes::from_static(&[7; SUMMARY_IMAGE_BYTES]);
        let summary = tower_summary(100, vec![image; 2]);
        let values = tower_values(&summary, &images(&summary));
        let tags: Vec<&str> = values.tags().collect();
        assert_eq!(
            tags[..3],
            [
                "conv1/conv1/activations",
                "conv1/conv1/sparsity",
                "conv2/conv2/activations",
            ]
        );
        assert_eq!(
            tags[9..],
            [
                "softmax_linear/softmax_linear/sparsity",
                "images/image/0",
                "images/image/1",
            ]
        );
    }
}
