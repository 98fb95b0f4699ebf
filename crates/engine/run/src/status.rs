//! How a run stands, for people.

use std::time::Duration;

use crate::config::RunConfig;
use crate::member::WorkerId;
use crate::step::{GlobalStep, Tower};

/// How a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The run's configuration.
    pub run: RunConfig,
    /// Updates applied so far.
    pub global_step: GlobalStep,
    /// The step at which the run is complete.
    pub max_steps: GlobalStep,
    /// Mean total loss of the last step; `None` before the first.
    pub loss: Option<f32>,
    /// Of all towers together, over the last steps; 0 before the first.
    pub examples_per_sec: f64,
    /// What the run does, or waits for, in words.
    pub activity: String,
    /// The workers that hold a lease, by number.
    pub workers: Vec<WorkerStatus>,
}

/// How one worker stands.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: WorkerId,
    /// The name it gave.
    pub name: String,
    /// The tower it computes now; `None` while it waits.
    pub tower: Option<Tower>,
    /// Tower steps of this worker that counted.
    pub tower_steps: u64,
    /// Compute time of its last tower step.
    pub compute_time: Duration,
}
