//! What a worker does all day.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use cifar_cli::exit::Failure;
use cifar_data::Prefetcher;
use cifar_params::{Layout, StateDigest};
use cifar_wire::messages::{Goodbye, Verdict};
use tracing::{debug, info, warn};

use crate::gradients::compute_gradients;
use crate::model::{Model, Variables};
use crate::server_link::{Computed, LinkError, Pulled, ServerLink};

/// Computes tower steps until the server says that the run is over.
///
/// # Errors
///
/// A [`Failure`] with the exit code that the worker ends with.
pub fn train(
    server: &mut ServerLink,
    model: &Model,
    layout: &Layout,
    batches: &mut Prefetcher,
) -> Result<Goodbye, Failure> {
    let mut held: Option<(StateDigest, Variables)> = None;
    loop {
        let work = match server.pull().map_err(or_exit)? {
            Pulled::Work(work) => work,
            Pulled::Over(goodbye) => return Ok(goodbye),
        };
        let variables = match held.take() {
            Some((digest, variables)) if digest == work.state_digest => variables,
            _ => Variables::new(layout, server.variables(), model.device())
                .context("cannot hold the variables")?
                .trainable(),
        };
        let (_, variables) = held.insert((work.state_digest, variables));

        let batch = batches.take(work.tower_step)?;
        let started = Instant::now();
        let (losses, gradients) = compute_gradients(model, layout, variables, &batch)
            .with_context(|| format!("cannot compute {}", work.tower_step))?;
        let compute_time = started.elapsed();

        let computed = Computed {
            losses,
            examples_digest: batch.examples_digest.0,
            compute_time,
        };
        let gradients = Arc::new(gradients);
        match server.push(&work, computed, gradients).map_err(or_exit)? {
            Verdict::Accepted => {
                debug!(tower_step = %work.tower_step, loss = losses.total, "pushed")
            }
            Verdict::Stale { staleness } => {
                info!(tower_step = %work.tower_step, staleness, "was too late")
            }
            Verdict::Ahead { global_step } => {
                info!(
                    global_step = global_step.0,
                    "the server went back to a checkpoint"
                )
            }
            Verdict::InDoubt => {
                warn!(tower_step = %work.tower_step, loss = losses.total, "the server has doubts about this gradient, and has it computed once more");
            }
            // The next pull says the same, and what to do about it.
            Verdict::Goodbye(_) | Verdict::Unregistered => {}
        }
    }
}

/// Gives a failure of the link its exit code.
pub(crate) fn or_exit(error: LinkError) -> Failure {
    let exit = error.exit();
    Failure::new(exit, error)
}
