//! What only the running server knows of a run.

use pserver_wire::messages::{Status, WorkerStatus};
use serde::Serialize;

/// What the run does at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Live {
    /// What it does, or waits for, in words.
    pub activity: String,
    /// The step at which it is complete.
    pub max_steps: u64,
    /// Its workers, by number.
    pub workers: Vec<LiveWorker>,
}

/// What a worker does at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LiveWorker {
    /// Its number.
    pub number: u32,
    /// The tower that it computes; `None` while it waits.
    pub tower: Option<u32>,
}

impl Live {
    /// What a server says of its run.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let worker = |worker: &WorkerStatus| LiveWorker {
            number: worker.worker.0,
            tower: worker.tower.map(|tower| tower.0),
        };
        Live {
            activity: status.activity.clone(),
            max_steps: status.max_steps.0,
            workers: status.workers.iter().map(worker).collect(),
        }
    }
}
