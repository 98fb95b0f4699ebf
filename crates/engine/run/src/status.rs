//! How a run stands, for people.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::RunConfig;
use crate::member::WorkerId;
use crate::printable;
use crate::step::{GlobalStep, Tower};

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: WorkerId,
    /// The name it gave.
    #[serde(deserialize_with = "printable::deserialize")]
    pub name: String,
    /// The tower it computes now; `None` while it waits.
    pub tower: Option<Tower>,
    /// Tower steps of this worker that counted.
    pub tower_steps: u64,
    /// Compute time of its last tower step.
    #[serde(
        rename = "compute_micros",
        serialize_with = "to_micros",
        deserialize_with = "from_micros"
    )]
    pub compute_time: Duration,
}

fn to_micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    micros.serialize(serializer)
}

fn from_micros<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_micros)
}
