//! What a worker does all day.

use std::time::Instant;

use anyhow::Context;
use cifar_data::Prefetcher;
use pserver_cli::exit::Failure;
use pserver_wire::gradient_buffer::Parts;
use pserver_wire::messages::{Goodbye, Verdict};
use pserver_worker::LinkError;
use pserver_worker::worker_link::{Computed, Pulled, WorkerLink};
use tracing::{debug, info, warn};

use crate::engine::Engine;
use crate::summarizer::Summarizer;

/// Computes tower steps, whose gradients come in `parts`, until the server says that the run is over.
///
/// # Errors
///
/// A [`Failure`] with the exit code that the worker ends with.
pub fn train(
    server: &mut WorkerLink,
    parts: &Parts,
    engine: &mut Engine,
    batches: &mut Prefetcher,
    summarizer: &Summarizer,
) -> Result<Goodbye, Failure> {
    loop {
        let work = match server.pull().map_err(or_exit)? {
            Pulled::Work(work) => work,
            Pulled::Over(goodbye) => return Ok(goodbye),
        };
        let batch = batches.take(work.tower_step)?;
        let started = Instant::now();
        let mut gradients = server.gradient_buffer(parts);
        let losses = engine
            .gradients(server.variables(), batch, &mut gradients)
            .with_context(|| format!("cannot compute {}", work.tower_step))?;
        let compute_time = started.elapsed();

        let computed = Computed {
            losses,
            examples_digest: batch.examples_digest.0,
            compute_time,
        };
        if let Some(step) = work.summary_step {
            // While this thread waits for the answer.
            summarizer.summarize(server.member(), step, server.variables(), batch);
        }
        let pushed = server.push(&work, computed, gradients);
        match pushed.map_err(or_exit)? {
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
