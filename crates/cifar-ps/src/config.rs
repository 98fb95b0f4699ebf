//! From what was typed to what the run is.

use cifar_params::{RunConfig, StateDigest};
use cifar_sequence::{DataSet, InputKind};

use crate::args::RunArgs;
use crate::averages::MOVING_AVERAGE_DECAY;
use crate::schedule::{INITIAL_LEARNING_RATE, NUM_EPOCHS_PER_DECAY};

/// Examples per tower and step of the tutorial.
pub const BATCH_SIZE: u32 = 128;

/// The configuration of a new run that begins with a state of `initial_digest`.
#[must_use]
pub fn new_run(args: &RunArgs, initial_digest: StateDigest) -> RunConfig {
    let defaults = RunConfig {
        seed: seed_of_new_run(args),
        num_towers: args.default_towers.unwrap_or(1),
        batch_size: BATCH_SIZE,
        input: InputKind::Distorted,
        data: args.default_data.unwrap_or(DataSet::Cifar10),
        learning_rate: INITIAL_LEARNING_RATE,
        num_epochs_per_decay: NUM_EPOCHS_PER_DECAY,
        decay_by: cifar_params::DecayBy::Steps,
        moving_average_decay: MOVING_AVERAGE_DECAY,
        threads: 1,
        kernels: cifar_params::Kernels::Auto,
        initial_digest,
        numerics: None,
    };
    with_args(args, defaults)
}

/// The seed of a new run.
#[must_use]
pub fn seed_of_new_run(args: &RunArgs) -> u64 {
    args.seed.unwrap_or(1)
}

/// The configuration with which a run goes on: its own, if what was typed does not contradict it.
///
/// `initial_digest` is that of `--init-from`, where it was given.
///
/// # Errors
///
/// [`AnotherRun`] with the differences.
pub fn resumed_run(
    args: &RunArgs,
    before: RunConfig,
    initial_digest: Option<StateDigest>,
) -> Result<RunConfig, AnotherRun> {
    let mut asked_for = with_args(args, before.clone());
    asked_for.initial_digest = initial_digest.unwrap_or(before.initial_digest);
    let differences = before.differences(&asked_for);
    if differences.is_empty() {
        Ok(before)
    } else {
        Err(AnotherRun { differences })
    }
}

/// The train dir holds a run with other settings than were asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the train dir holds another run ({}); leave these settings out to go on with it, give another \
     --train-dir, or move it aside with --fresh",
    differences.join("; ")
)]
pub struct AnotherRun {
    differences: Vec<String>,
}

fn with_args(args: &RunArgs, otherwise: RunConfig) -> RunConfig {
    RunConfig {
        seed: args.seed.unwrap_or(otherwise.seed),
        num_towers: args.towers.unwrap_or(otherwise.num_towers),
        batch_size: args.batch_size.unwrap_or(otherwise.batch_size),
        input: args.input.unwrap_or(otherwise.input),
        data: args.data.unwrap_or(otherwise.data),
        learning_rate: args.learning_rate.unwrap_or(otherwise.learning_rate),
        num_epochs_per_decay: args
            .num_epochs_per_decay
            .unwrap_or(otherwise.num_epochs_per_decay),
        decay_by: args.decay_by.unwrap_or(otherwise.decay_by),
        moving_average_decay: args
            .moving_average_decay
            .unwrap_or(otherwise.moving_average_decay),
        threads: args.threads.unwrap_or(otherwise.threads),
        kernels: args.kernels.unwrap_or(otherwise.kernels),
        initial_digest: otherwise.initial_digest,
        numerics: otherwise.numerics,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_were_not_given_keep_the_runs_values() {
        let before = new_run(
            &RunArgs {
                towers: Some(4),
                seed: Some(9),
                ..RunArgs::default()
            },
            StateDigest(1),
        );
        let again = RunArgs {
            default_towers: Some(2),
            ..RunArgs::default()
        };
        assert_eq!(resumed_run(&again, before.clone(), None), Ok(before));
    }

    #[test]
    fn another_setting_is_refused_with_both_values() {
        let before = new_run(&RunArgs::default(), StateDigest(1));
        let args = RunArgs {
            towers: Some(4),
            ..RunArgs::default()
        };
        let error = resumed_run(&args, before.clone(), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--towers: 1 -> 4") && error.contains("--fresh"),
            "{error}"
        );
        assert!(resumed_run(&RunArgs::default(), before, Some(StateDigest(2))).is_err());
    }
}
