//! What a worker does all day.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use cifar_cli::exit::Failure;
use cifar_data::Prefetcher;
use cifar_params::{Layout, Values};
use cifar_wire::messages::{Goodbye, Verdict};
use tracing::{debug, info, warn};

use crate::engine::{Engine, NUM_TRUNK_VALUES};
use crate::server_link::{Computed, LinkError, Pulled, ServerLink};
use crate::summarizer::Summarizer;

/// Computes tower steps until the server says that the run is over.
///
/// # Errors
///
/// A [`Failure`] with the exit code that the worker ends with.
pub fn train(
    server: &mut ServerLink,
    engine: &mut Engine,
    layout: &Layout,
    batches: &mut Prefetcher,
    summarizer: &Summarizer,
) -> Result<Goodbye, Failure> {
    // The link lets go of them when a push is answered, and then they are overwritten.
    let mut gradients = Arc::new(Values::zeros(layout.num_values()));
    loop {
        let work = match server.pull().map_err(or_exit)? {
            Pulled::Work(work) => work,
            Pulled::Over(goodbye) => return Ok(goodbye),
        };
        let batch = batches.take(work.tower_step)?;
        let started = Instant::now();
        let (trunk, head) = Arc::make_mut(&mut gradients).split_at_mut(NUM_TRUNK_VALUES);
        let losses = engine
            .head_gradients(server.variables(), batch, head)
            .with_context(|| format!("cannot compute {}", work.tower_step))?;
        server.begin_push(head);
        engine.trunk_gradients(server.variables(), batch, trunk);
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
        let pushed = server.push(&work, computed, Arc::clone(&gradients));
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
