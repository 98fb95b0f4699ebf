//! What the log says of what happens to a run.

use std::collections::BTreeMap;

use pserver_core::{Fact, Notice};
use pserver_run::record::Record;
use tracing::{debug, error, info, warn};

/// Writes the lines. Facts name workers by number; a line says their names too.
#[derive(Debug, Default)]
pub(crate) struct LogLines {
    names: BTreeMap<u32, String>,
}

impl LogLines {
    /// Says what happened, if people want to hear of it.
    pub(crate) fn write(&mut self, fact: &Fact) {
        match fact {
            Fact::Kept(record) => self.write_record(record),
            Fact::Told(notice) => write_notice(notice),
        }
    }

    fn write_record(&mut self, record: &Record) {
        match record {
            Record::Joined {
                worker,
                name,
                numerics,
            } => {
                info!(worker, name, numerics, "worker joins");
                self.names.insert(*worker, name.clone());
            }
            Record::Left { worker } => {
                let name = self.take_name(*worker);
                info!(worker, name, "worker leaves");
            }
            Record::Lost { worker } => {
                let name = self.take_name(*worker);
                warn!(
                    worker,
                    name, "worker sent no heartbeat for its lease and is given up"
                );
            }
            Record::Overdue {
                of: tower_step,
                slow: worker,
                also_given_to: other,
            } => {
                info!(%tower_step, worker, other, "tower step is overdue, an idle worker computes it too");
            }
            Record::Dropped {
                of: tower_step,
                worker,
                reason,
            } => debug!(%tower_step, worker, ?reason, "gradient does not count"),
            Record::InDoubt {
                of: tower_step,
                worker,
                reason,
            } => {
                let name = self.name(*worker);
                warn!(%tower_step, worker, name, reason, "gradient is in doubt, the tower step is computed once more");
            }
            Record::Audited {
                of: tower_step,
                workers: [worker, other],
                equal: true,
            } => debug!(%tower_step, worker, other, "two workers agree"),
            Record::Audited {
                of: tower_step,
                workers: [worker, other],
                equal: false,
            } => {
                let (name, other_name) = (self.name(*worker), self.name(*other));
                warn!(%tower_step, worker, name, other, other_name, "two workers came to different gradients of the same tower step: one of them is faulty");
            }
            Record::Quarantined { worker, reason } => {
                let name = self.take_name(*worker);
                error!(
                    worker,
                    name, reason, "worker computed something wrong and takes no further part"
                );
            }
            Record::Suspended { pause_micros } => warn!(
                pause_secs = pause_micros / 1_000_000,
                "server itself was suspended, leases are extended"
            ),
            Record::StoodStill { waits_for } => warn!(waits_for, "run stands still"),
            // They have lines of their own, where they are done.
            Record::Start(_)
            | Record::Rewind(_)
            | Record::Commit(_)
            | Record::Checkpoint { .. }
            | Record::End { .. } => {}
        }
    }

    fn name(&self, worker: u32) -> &str {
        self.names.get(&worker).map_or("", String::as_str)
    }

    /// The name of a worker of which nothing more will be heard.
    fn take_name(&mut self, worker: u32) -> String {
        self.names.remove(&worker).unwrap_or_default()
    }
}

fn write_notice(notice: &Notice) {
    match notice {
        Notice::GoesOn { after } => info!(after_secs = after.as_secs(), "run goes on"),
        Notice::Stalled { waits_for } => error!(
            waits_for,
            "run has stood still for --stall-timeout-secs, and ends for now"
        ),
        Notice::Diverged {
            tower_step,
            worker,
            loss,
        } => {
            let reason = reason_of_divergence(*loss);
            error!(%tower_step, name = worker, "Model diverged with loss = {reason}");
        }
    }
}

/// The loss with which the model diverged, which may itself be a good number.
fn reason_of_divergence(loss: f32) -> String {
    match loss {
        // As Python prints it, because the tutorial's users look for it so.
        loss if loss.is_nan() => "NaN".to_owned(),
        loss if loss.is_infinite() => loss.to_string(),
        loss => format!("{loss}, but gradients or variables that are not finite or absurdly large"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_diverged_with_a_finite_loss_is_not_said_to_have_none() {
        assert_eq!(reason_of_divergence(f32::NAN), "NaN");
        assert_eq!(reason_of_divergence(f32::NEG_INFINITY), "-inf");
        let finite = reason_of_divergence(2.5);
        assert!(finite.starts_with("2.5, but gradients"), "{finite}");
    }
}
