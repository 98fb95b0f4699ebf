//! What a worker does all day.

use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use cifar_cli::exit::{Exit, Failure, OrExit};
use cifar_data::Prefetcher;
use cifar_params::{Layout, StateDigest, Values};
use cifar_wire::messages::{Goodbye, Push, Verdict};
use tracing::{debug, info, warn};

use crate::engine::{Engine, NUM_TRUNK_VALUES};
use crate::server_link::{LinkError, Pulled, ServerLink};

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
) -> Result<Goodbye, Failure> {
    let mut held: Option<(StateDigest, Values)> = None;
    loop {
        let work = match server
            .pull(held.as_ref().map(|(digest, _)| *digest))
            .map_err(or_exit)?
        {
            Pulled::Work(work) => work,
            Pulled::Over(goodbye) => return Ok(goodbye),
        };
        if let Some(bytes) = &work.variables {
            held = Some((work.state_digest, received_variables(layout, bytes)?));
        }
        let variables = match &held {
            Some((digest, variables)) if *digest == work.state_digest => variables,
            _ => {
                return Err(anyhow::anyhow!("the server sent a step without its variables").into());
            }
        };

        let batch = batches.take(work.tower_step)?;
        let started = Instant::now();
        let mut gradients = Values::zeros(layout.num_values());
        let (trunk, head) = gradients.split_at_mut(NUM_TRUNK_VALUES);
        let losses = engine
            .head_gradients(variables, &batch, head)
            .with_context(|| format!("cannot compute {}", work.tower_step))?;
        engine.trunk_gradients(variables, &batch, trunk);
        let compute_time = started.elapsed();

        let push = Push {
            member: server.member(),
            tower_step: work.tower_step,
            state_digest: work.state_digest,
            losses,
            examples_digest: batch.examples_digest.0,
            compute_time,
            attempt: work.attempt,
            gradients: Bytes::from_owner(GradientBytes(gradients)),
        };
        match server.push(push).map_err(or_exit)? {
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

fn received_variables(layout: &Layout, bytes: &[u8]) -> Result<Values, Failure> {
    Values::from_le_bytes(bytes, layout.num_values())
        .context("the server sent variables of another size")
        .or_exit(Exit::Permanent)
}

/// Lends gradients to the wire without a copy.
struct GradientBytes(Values);

impl AsRef<[u8]> for GradientBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Gives a failure of the link its exit code.
pub(crate) fn or_exit(error: LinkError) -> Failure {
    let exit = error.exit();
    Failure::new(exit, error)
}
