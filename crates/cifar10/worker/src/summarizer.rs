//! What a worker tells of a tower step for people to look at: how the outputs of its layers are
//! distributed, and some of its images.
//!
//! It is made on a thread of its own, of copies and of a part of the batch, and sent from there: the
//! worker goes on meanwhile. Nothing of the run depends on it, so that what cannot be made, sent or
//! waited for is left out.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use bytes::Bytes;
use cifar_data::Batch;
use cifar_data::distort::IMAGE_VALUES;
use pserver_cli::priority::give_way;
use pserver_events::{Histogram, image::rgb_of_floats};
use pserver_run::{GlobalStep, Layout};
use pserver_state::Values;
use pserver_wire::messages::{Activations, MAX_SUMMARY_IMAGES, Member, TowerSummary};
use pserver_worker::worker_link::SummarySender;
use tch::{Device, TchError, Tensor};
use tracing::{debug, warn};

use crate::model::{IMAGE_SIZE, Model, Variables};

/// Images whose activations are summarised: 750,000 outputs, in a quarter of the time of a step.
const NUM_EXAMPLES: usize = 16;

/// What a summary is made of.
struct Job {
    member: Member,
    summary_step: GlobalStep,
    variables: Values,
    /// `[B, 24, 24, 3]`, as in the batch.
    images: Vec<f32>,
}

/// Makes and sends summaries on a thread of its own.
#[derive(Debug)]
pub struct Summarizer {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl Summarizer {
    /// Starts the thread, which sends what it makes with `sender`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(layout: Layout, sender: SummarySender) -> anyhow::Result<Self> {
        let (jobs, received) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("summaries".to_owned())
            .spawn(move || make_all(&layout, &sender, &received))
            .context("cannot start the thread that makes summaries")?;
        Ok(Summarizer { jobs, thread })
    }

    /// Has a batch summarised at `variables`. If the thread has not done the one before, this one is
    /// left out.
    pub fn summarize(
        &self,
        member: Member,
        summary_step: GlobalStep,
        variables: &[f32],
        batch: &Batch,
    ) {
        let num_examples = batch.len().min(NUM_EXAMPLES);
        let job = Job {
            member,
            summary_step,
            variables: variables.into(),
            images: batch.images[..num_examples * IMAGE_VALUES].to_vec(),
        };
        if self.jobs.try_send(job).is_err() {
            debug!(global_step = summary_step.0, "summary is left out");
        }
    }

    /// Ends the thread. It has at most two summaries to make, and each is sent within a deadline.
    pub fn finish(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

fn make_all(layout: &Layout, sender: &SummarySender, jobs: &Receiver<Job>) {
    give_way();
    let mut model = None;
    for job in jobs {
        match make(&mut model, layout, &job) {
            Ok(summary) => sender.send(job.member, summary),
            Err(error) => {
                warn!(%error, "cannot summarise a tower step, and makes no more summaries");
                return;
            }
        }
    }
}

fn make(model: &mut Option<Model>, layout: &Layout, job: &Job) -> Result<TowerSummary, TchError> {
    let model = match model {
        Some(model) => model,
        none => none.insert(Model::new(Device::Cpu)?),
    };
    let variables = Variables::new(layout, &job.variables, Device::Cpu)?;
    let images = Tensor::f_from_slice(&job.images)?.f_reshape([-1, IMAGE_SIZE, IMAGE_SIZE, 3])?;
    let [conv1, conv2, local3, local4, softmax_linear] =
        model.activations(&variables, &images)?.map(activations_of);
    let images = job.images.chunks_exact(IMAGE_VALUES);
    let images = images.take(MAX_SUMMARY_IMAGES).map(rgb_of_floats);
    Ok(TowerSummary {
        summary_step: job.summary_step,
        activations: [conv1?, conv2?, local3?, local4?, softmax_linear?],
        images: images.map(Bytes::from).collect(),
    })
}

fn activations_of(outputs: Tensor) -> Result<Activations, TchError> {
    let numbers = Vec::<f32>::try_from(outputs.f_reshape([-1])?)?;
    let zeros = numbers.iter().filter(|number| **number == 0.0).count();
    Ok(Activations {
        histogram: Histogram::of(&numbers),
        sparsity: (zeros as f64 / numbers.len() as f64) as f32,
    })
}

#[cfg(test)]
mod tests {
    use pserver_state::initial::initial_variables;
    use pserver_wire::messages::{SECRET_BYTES, Secret, WorkerId};

    use super::*;

    fn job(num_examples: usize) -> Job {
        let number = |index: usize| ((index * 7919) % 1000) as f32 / 250.0 - 2.0;
        Job {
            member: Member {
                secret: Secret([1; SECRET_BYTES]),
                worker: WorkerId(0),
            },
            summary_step: GlobalStep(100),
            variables: initial_variables(&cifar_model::layout(), 1),
            images: (0..num_examples * IMAGE_VALUES).map(number).collect(),
        }
    }

    #[test]
    fn a_summary_is_of_every_output_of_every_layer_and_of_the_first_images() {
        for num_examples in [2, 8] {
            let job = job(num_examples);
            let summary = make(&mut None, &cifar_model::layout(), &job).unwrap();
            let outputs = [24 * 24 * 64, 12 * 12 * 64, 384, 192, 10];
            for (activations, outputs) in summary.activations.iter().zip(outputs) {
                let histogram = &activations.histogram;
                assert_eq!(histogram.num(), (num_examples * outputs) as f64);
            }
            let [conv1, .., logits] = &summary.activations;
            assert!(conv1.histogram.moments.min == 0.0, "after the ReLU");
            assert!((0.3..0.7).contains(&conv1.sparsity), "{}", conv1.sparsity);
            assert!(logits.histogram.moments.min < 0.0 && logits.sparsity == 0.0);
            assert_eq!(summary.images.len(), num_examples.min(3));
            assert_eq!(
                summary.images[1],
                rgb_of_floats(&job.images[IMAGE_VALUES..][..IMAGE_VALUES])
            );
        }
    }

    /// Two ways through the same network.
    #[test]
    fn the_last_activations_are_the_logits() {
        let (layout, job) = (cifar_model::layout(), job(4));
        let model = Model::new(Device::Cpu).unwrap();
        let variables = Variables::new(&layout, &job.variables, Device::Cpu).unwrap();
        let images = Tensor::from_slice(&job.images).view([-1, IMAGE_SIZE, IMAGE_SIZE, 3]);
        let [.., logits] = model.activations(&variables, &images).unwrap();
        let expected = model.inference(&variables, &images).unwrap();
        assert!(logits.allclose(&expected, 1e-6, 1e-6, false));
    }
}
