//! A small run for the tests of this crate.

use std::time::{Duration, Instant};

use pserver_run::{
    DataSet, DecayBy, ExamplesDigest, GlobalStep, InputKind, Kernels, Mode, Numerics, RunConfig,
    StateDigest, Tower, TowerStep,
};
use pserver_state::Values;
use pserver_wire::messages::{Losses, WorkerId};

use crate::aggregator::TowerGradient;
use crate::scrutiny::norm;

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

/// A gradient as a worker without haste would have pushed it.
pub(crate) fn tower_gradient(step: u64, tower: u32, numbers: &[f32]) -> TowerGradient {
    TowerGradient {
        of: TowerStep {
            global_step: GlobalStep(step),
            tower: Tower(tower),
        },
        values: Values::from(numbers),
        norm: norm(numbers),
        losses: Losses {
            cross_entropy: 1.0,
            total: 2.0,
            ..Losses::default()
        },
        examples: ExamplesDigest([0; 16]),
        worker: WorkerId(0),
        numerics: numerics(1),
        held: Duration::from_millis(10),
        compute_time: Duration::from_millis(8),
        arrived: some_time(),
        staleness: 0,
    }
}
