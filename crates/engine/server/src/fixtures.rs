//! A small run for the tests of this crate.

use std::time::{Duration, Instant};

use pserver_core::Limits;
use pserver_run::{
    DataSet, DecayBy, GlobalStep, InputKind, Kernels, Mode, Numerics, RunConfig, StateDigest,
};

pub(crate) fn run_config() -> RunConfig {
    RunConfig {
        seed: 1,
        num_towers: 2,
        batch_size: 4,
        input: InputKind::Distorted,
        data: DataSet::Synthetic { num_examples: 100 },
        learning_rate: 0.5,
        num_epochs_per_decay: 1000.0,
        decay_by: DecayBy::Steps,
        moving_average_decay: 0.9999,
        threads: 1,
        kernels: Kernels::Auto,
        initial_digest: StateDigest(0),
        numerics: None,
        mode: Mode::Synchronous,
    }
}

pub(crate) fn numerics(threads: u32) -> Numerics {
    Numerics {
        device: "cpu".to_owned(),
        instruction_set: "avx2".to_owned(),
        kernels: Kernels::Torch,
        threads,
        libtorch: "2.11.0".to_owned(),
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
