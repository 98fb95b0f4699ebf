//! A small run for the tests of this crate.

use cifar_params::{DecayBy, Kernels, Numerics, RunConfig, StateDigest};
use cifar_sequence::{DataSet, InputKind};

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
