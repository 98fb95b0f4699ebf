//! What only the running server knows of a run.

use pserver_wire::messages::{Status, WorkerStatus};
use serde::Serialize;

/// What the run does at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Live {
    /// What it does, or waits for, in words.
    pub(crate) activity: String,
    /// The step at which it is complete.
    pub(crate) max_steps: u64,
    /// Its workers, by number.
    pub(crate) workers: Vec<LiveWorker>,
}

/// What a worker does at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LiveWorker {
    /// Its number.
    pub(crate) number: u32,
    /// The tower that it computes; `None` while it waits.
    pub(crate) tower: Option<u32>,
}

impl Live {
    /// What a server says of its run.
    pub(crate) fn of(status: &Status) -> Self {
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
