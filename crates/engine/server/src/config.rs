//! From what was typed to what the run is.

use pserver_run::{DataSet, InputKind, Mode, RunConfig, StateDigest};

use crate::args::{RunArgs, UpdateMode};
use pserver_core::averages::MOVING_AVERAGE_DECAY;
use pserver_core::schedule::{INITIAL_LEARNING_RATE, NUM_EPOCHS_PER_DECAY};

/// Examples per tower and step of the tutorial.
pub const BATCH_SIZE: u32 = 128;

/// Updates that may overtake a gradient in asynchronous mode.
pub const MAX_STALENESS: u32 = 16;

/// The configuration of a new run that begins with a state of `initial_digest`.
///
/// # Errors
///
/// [`BadMode`] if what was typed about the mode makes no sense together.
pub fn new_run(args: &RunArgs, initial_digest: StateDigest) -> Result<RunConfig, BadMode> {
    let defaults = RunConfig {
        seed: seed_of_new_run(args),
        num_towers: args.default_towers.unwrap_or(1),
        batch_size: BATCH_SIZE,
        input: InputKind::Distorted,
        data: args.default_data.unwrap_or(DataSet::Cifar10),
        learning_rate: INITIAL_LEARNING_RATE,
        num_epochs_per_decay: NUM_EPOCHS_PER_DECAY,
        decay_by: pserver_run::DecayBy::Steps,
        moving_average_decay: MOVING_AVERAGE_DECAY,
        threads: 1,
        kernels: pserver_run::Kernels::Auto,
        initial_digest,
        numerics: None,
        mode: Mode::Synchronous,
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
/// [`ResumeError`] with the differences, or if what was typed about the mode makes no sense.
pub fn resumed_run(
    args: &RunArgs,
    before: RunConfig,
    initial_digest: Option<StateDigest>,
) -> Result<RunConfig, ResumeError> {
    let mut asked_for = with_args(args, before.clone())?;
    asked_for.initial_digest = initial_digest.unwrap_or(before.initial_digest);
    let differences = before.differences(&asked_for);
    if differences.is_empty() {
        Ok(before)
    } else {
        Err(ResumeError::AnotherRun { differences })
    }
}

/// A run that cannot go on as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The train dir holds a run with other settings than were asked for.
    #[error(
        "the train dir holds another run ({}); leave these settings out to go on with it, give \
         another --train-dir, or move it aside with --fresh",
        differences.join("; ")
    )]
    AnotherRun {
        /// Each as `flag: before -> now`.
        differences: Vec<String>,
    },
    /// What was typed about the mode makes no sense together.
    #[error(transparent)]
    Mode(#[from] BadMode),
}

/// Flags about the mode that make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMode {
    /// A flag of the other mode.
    #[error("{flag} says nothing in {mode} mode; leave it out, or give --mode {other}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// The mode.
        mode: &'static str,
        /// The mode in which it does.
        other: &'static str,
    },
    /// More gradients than there are towers.
    #[error("--replicas-to-aggregate {replicas} is more than the {num_towers} towers of a step")]
    TooManyReplicas {
        /// What was asked for.
        replicas: u32,
        /// What there are.
        num_towers: u32,
    },
}

/// The mode that was asked for, where something was.
fn mode(args: &RunArgs, num_towers: u32, otherwise: Mode) -> Result<Mode, BadMode> {
    let is_asynchronous = match args.mode {
        Some(mode) => mode == UpdateMode::Async,
        None => matches!(otherwise, Mode::Asynchronous { .. }),
    };
    let refused = |flag, mode, other| Err(BadMode::Flag { flag, mode, other });
    if !is_asynchronous && args.max_staleness.is_some() {
        return refused("--max-staleness", "synchronous", "async");
    }
    if !is_asynchronous && args.scale_by_staleness {
        return refused("--scale-by-staleness", "synchronous", "async");
    }
    if is_asynchronous && args.replicas_to_aggregate.is_some() {
        return refused("--replicas-to-aggregate", "asynchronous", "sync");
    }
    match (otherwise, args.replicas_to_aggregate) {
        (
            Mode::Asynchronous {
                max_staleness,
                scaled,
            },
            _,
        ) if is_asynchronous => Ok(Mode::Asynchronous {
            max_staleness: args.max_staleness.unwrap_or(max_staleness),
            scaled: scaled || args.scale_by_staleness,
        }),
        _ if is_asynchronous => Ok(Mode::Asynchronous {
            max_staleness: args.max_staleness.unwrap_or(MAX_STALENESS),
            scaled: args.scale_by_staleness,
        }),
        (_, Some(replicas)) if replicas > num_towers => Err(BadMode::TooManyReplicas {
            replicas,
            num_towers,
        }),
        (_, Some(replicas)) if replicas < num_towers => Ok(Mode::Quorum {
            replicas_to_aggregate: replicas,
        }),
        (quorum @ Mode::Quorum { .. }, None) => Ok(quorum),
        _ => Ok(Mode::Synchronous),
    }
}

fn with_args(args: &RunArgs, otherwise: RunConfig) -> Result<RunConfig, BadMode> {
    let num_towers = args.towers.unwrap_or(otherwise.num_towers);
    Ok(RunConfig {
        seed: args.seed.unwrap_or(otherwise.seed),
        num_towers,
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
        mode: mode(args, num_towers, otherwise.mode)?,
    })
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
        )
        .unwrap();
        let again = RunArgs {
            default_towers: Some(2),
            ..RunArgs::default()
        };
        assert_eq!(resumed_run(&again, before.clone(), None), Ok(before));
    }

    #[test]
    fn another_setting_is_refused_with_both_values() {
        let before = new_run(&RunArgs::default(), StateDigest(1)).unwrap();
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

    /// The mode of a new run of four towers with these flags, in its text form or why not.
    fn mode_of(args: RunArgs) -> String {
        let args = RunArgs {
            towers: Some(4),
            ..args
        };
        match new_run(&args, StateDigest(1)) {
            Ok(run) => run.mode.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_mode_follows_from_the_flags_or_they_are_refused() {
        let quorum = |replicas| RunArgs {
            replicas_to_aggregate: Some(replicas),
            ..RunArgs::default()
        };
        let asynchronous = RunArgs {
            mode: Some(UpdateMode::Async),
            ..RunArgs::default()
        };
        assert_eq!(mode_of(RunArgs::default()), "sync");
        assert_eq!(mode_of(quorum(3)), "quorum:3");
        assert_eq!(mode_of(quorum(4)), "sync");
        assert_eq!(mode_of(asynchronous.clone()), "async:16");
        let scaled = RunArgs {
            max_staleness: Some(2),
            scale_by_staleness: true,
            ..asynchronous.clone()
        };
        assert_eq!(mode_of(scaled.clone()), "async:2:scaled");
        assert!(mode_of(quorum(5)).contains("more than the 4 towers"));
        let neither = RunArgs {
            mode: None,
            ..scaled
        };
        assert!(mode_of(neither).starts_with("--max-staleness says nothing in synchronous mode"));
        let both = RunArgs {
            mode: Some(UpdateMode::Async),
            ..quorum(2)
        };
        assert!(mode_of(both).starts_with("--replicas-to-aggregate says nothing"));
    }

    #[test]
    fn a_run_goes_on_in_its_mode() {
        let args = RunArgs {
            mode: Some(UpdateMode::Async),
            max_staleness: Some(3),
            ..RunArgs::default()
        };
        let before = new_run(&args, StateDigest(1)).unwrap();
        let resumed = resumed_run(&RunArgs::default(), before.clone(), None);
        assert_eq!(resumed, Ok(before.clone()));
        let synchronous = RunArgs {
            mode: Some(UpdateMode::Sync),
            ..RunArgs::default()
        };
        let error = resumed_run(&synchronous, before, None).unwrap_err();
        assert!(
            error.to_string().contains("--mode: async:3 -> sync"),
            "{error}"
        );
    }
}
