//! From what was typed to what the run is.

use anyhow::{anyhow, bail};
use pserver_cli::exit::{Exit, Failure, OrExit};
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
/// If what was typed about the mode makes no sense together.
pub fn new_run(args: &RunArgs, initial_digest: StateDigest) -> anyhow::Result<RunConfig> {
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
/// [`Exit::Permanent`] with the differences, [`Exit::Usage`] if what was typed about the mode makes no sense.
pub fn resumed_run(
    args: &RunArgs,
    before: RunConfig,
    initial_digest: Option<StateDigest>,
) -> Result<RunConfig, Failure> {
    let mut asked_for = with_args(args, before.clone()).or_exit(Exit::Usage)?;
    asked_for.initial_digest = initial_digest.unwrap_or(before.initial_digest);
    let differences = before.differences(&asked_for).join("; ");
    if differences.is_empty() {
        return Ok(before);
    }
    let error = anyhow!(
        "the train dir holds another run ({differences}); leave these settings out to go on with it, give \
         another --train-dir, or move it aside with --fresh"
    );
    Err(Failure::new(Exit::Permanent, error))
}

/// The mode that was asked for, where something was.
fn mode(args: &RunArgs, num_towers: u32, otherwise: Mode) -> anyhow::Result<Mode> {
    let is_asynchronous = match args.mode {
        Some(mode) => mode == UpdateMode::Async,
        None => matches!(otherwise, Mode::Asynchronous { .. }),
    };
    let refuse = |flag, mode, other| {
        bail!("{flag} says nothing in {mode} mode; leave it out, or give --mode {other}")
    };
    if is_asynchronous {
        if args.replicas_to_aggregate.is_some() {
            return refuse("--replicas-to-aggregate", "asynchronous", "sync");
        }
        let (max_staleness, scaled) = match otherwise {
            Mode::Asynchronous {
                max_staleness,
                scaled,
            } => (max_staleness, scaled),
            _ => (MAX_STALENESS, false),
        };
        return Ok(Mode::Asynchronous {
            max_staleness: args.max_staleness.unwrap_or(max_staleness),
            scaled: scaled || args.scale_by_staleness,
        });
    }
    if args.max_staleness.is_some() {
        return refuse("--max-staleness", "synchronous", "async");
    }
    if args.scale_by_staleness {
        return refuse("--scale-by-staleness", "synchronous", "async");
    }
    match (otherwise, args.replicas_to_aggregate) {
        (_, Some(replicas)) if replicas > num_towers => bail!(
            "--replicas-to-aggregate {replicas} is more than the {num_towers} towers of a step"
        ),
        (_, Some(replicas)) if replicas < num_towers => Ok(Mode::Quorum {
            replicas_to_aggregate: replicas,
        }),
        (quorum @ Mode::Quorum { .. }, None) => Ok(quorum),
        _ => Ok(Mode::Synchronous),
    }
}

fn with_args(args: &RunArgs, otherwise: RunConfig) -> anyhow::Result<RunConfig> {
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
        assert_eq!(resumed_run(&again, before.clone(), None).unwrap(), before);
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
        assert_eq!(resumed.unwrap(), before);
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
