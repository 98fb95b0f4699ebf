//! The run that is simulated: a model of a few numbers, and gradients made up for it.

use pserver_run::{
    DataSet, ExamplesDigest, Initializer, InputKind, Kernels, Layout, Numerics, SampleSequence,
    TowerStep, VariableSpec,
};
use pserver_server::args::RunArgs;
use pserver_wire::messages::Losses;
use twox_hash::XxHash3_64;

use crate::dice::{Dice, Purpose};
use crate::plan::Plan;

/// Numbers of the model.
pub(crate) const NUM_VALUES: usize = 16;

/// Learning rate before the first decay.
pub(crate) const LEARNING_RATE: f32 = 0.5;

/// Upper limit of the moving averages' decay: low, so that a short run reaches it.
pub(crate) const MOVING_AVERAGE_DECAY: f32 = 0.6;

/// Steps from one decay of the learning rate to the next.
pub(crate) const DECAY_STEPS: u64 = 8;

const BATCH_SIZE: u32 = 4;
const NUM_EXAMPLES: u32 = 100;

/// What is trained on: nobody draws it.
pub(crate) const DATA_SET: DataSet = DataSet::Synthetic {
    num_examples: NUM_EXAMPLES,
};

pub(crate) fn layout() -> Layout {
    let spec = |name: &str, shape: &[usize], initializer| VariableSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
        initializer,
    };
    let layout = Layout::new(vec![
        spec(
            "weights",
            &[3, 4],
            Initializer::TruncatedNormal { stddev: 1.0 },
        ),
        spec("biases", &[4], Initializer::Constant(0.1)),
    ]);
    assert_eq!(layout.num_values(), NUM_VALUES);
    layout
}

pub(crate) fn run_args(plan: &Plan) -> RunArgs {
    RunArgs {
        seed: Some(plan.seed),
        towers: Some(plan.num_towers),
        batch_size: Some(BATCH_SIZE),
        data: Some(DATA_SET),
        learning_rate: Some(LEARNING_RATE),
        // Half a step more than that many, because the schedule rounds down.
        num_epochs_per_decay: Some(
            (DECAY_STEPS as f64 + 0.5) * f64::from(BATCH_SIZE) / f64::from(NUM_EXAMPLES),
        ),
        moving_average_decay: Some(MOVING_AVERAGE_DECAY),
        ..RunArgs::default()
    }
}

/// Digest of the examples that a worker without fault decodes.
pub(crate) fn examples(plan: &Plan, tower_step: TowerStep) -> ExamplesDigest {
    let mut sequence = SampleSequence::new(
        plan.seed,
        plan.num_towers,
        BATCH_SIZE,
        NUM_EXAMPLES,
        InputKind::Distorted,
    );
    ExamplesDigest::of(sequence.samples(tower_step))
}

pub(crate) fn numerics() -> Numerics {
    Numerics {
        device: "cpu".to_owned(),
        instruction_set: "none".to_owned(),
        kernels: Kernels::Torch,
        threads: 1,
        libtorch: "none".to_owned(),
    }
}

/// The gradient of a tower step: a pure function of the variables' bytes, the seed and the key, as a
/// real one is.
pub(crate) fn gradient(variables: &[u8], seed: u64, tower_step: TowerStep) -> [f32; NUM_VALUES] {
    let TowerStep { global_step, tower } = tower_step;
    let position = global_step.0 << 32 | u64::from(tower.0);
    let digest = XxHash3_64::oneshot(variables);
    let mut dice = Dice::new(seed, Purpose::Gradient, position, digest);
    std::array::from_fn(|_| dice.signed_unit())
}

pub(crate) fn losses(gradient: &[f32; NUM_VALUES]) -> Losses {
    Losses {
        cross_entropy: gradient[0].abs(),
        total: gradient[0].abs() + gradient[1].abs(),
        ..Losses::default()
    }
}
