//! A small run for the tests of this crate.

use std::time::{Duration, Instant};

use pserver_core::Limits;
use pserver_run::{DataSet, GlobalStep, RunConfig};

pub(crate) fn run_config() -> RunConfig {
    RunConfig {
        data: DataSet::Synthetic { num_examples: 100 },
        learning_rate: 0.5,
        num_epochs_per_decay: 1000.0,
        ..RunConfig::example()
    }
}

/// Some time to begin with.
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some time to begin with"
)]
pub(crate) fn some_time() -> Instant {
    Instant::now()
}

pub(crate) fn limits() -> Limits {
    Limits {
        max_steps: GlobalStep(1000),
        worker_lease: Duration::from_secs(10),
        mixed: false,
        min_workers: 1,
        stall_timeout: Duration::from_secs(60),
        audit_fraction: 0.0,
    }
}
