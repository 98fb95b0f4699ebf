//! With what a server goes on, or begins: the run and its files, as they were left.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, anyhow};
use cifar_cli::exit::{Exit, Failure, OrExit};
use cifar_ledger::{LedgerFile, Line, opening_lines};
use cifar_params::{Checkpoint, Layout, RunConfig, StateFile, Stored, TrainingState, checkpoint};
use cifar_sequence::GlobalStep;
use tracing::{info, warn};

use crate::args::RunArgs;
use crate::config::{self, ResumeError};
use crate::note::Note;
use crate::recorder::Calendar;
use crate::serials::AppliedSerials;
use crate::train_dir::{TrainDir, TrainDirError};
use crate::training::initial_state;

/// With what the run goes on, or begins.
#[derive(Debug)]
pub struct Start {
    /// The state.
    pub state: TrainingState,
    /// The run that it belongs to.
    pub run: RunConfig,
    /// The ledger's line of the commit that led to the state, where that is known.
    pub last_commit: Option<Line>,
    /// The tower steps that made the state; matters in asynchronous mode only.
    pub applied: AppliedSerials,
    /// The step of the newest checkpoint that is whole, if there is one.
    pub saved_step: Option<GlobalStep>,
}

/// Finds the newest state of the run in the train dir, or begins a new run there.
///
/// # Errors
///
/// A [`Failure`] with its exit code, if `args` contradict the run that is there, nothing of it is
/// whole, or the disk cannot be written.
pub fn resume_or_begin(
    args: &RunArgs,
    train_dir: &TrainDir,
    layout: &Layout,
) -> Result<Start, Failure> {
    let (kept, saved) = (train_dir.kept_state(layout), train_dir.newest(layout));
    let saved_step = saved
        .iter()
        .flatten()
        .map(|checkpoint| checkpoint.state.global_step)
        .next();
    // A checkpoint can be newer only if the state file is an old copy, put back by hand.
    let kept = kept.filter(|(state, _)| saved_step.is_none_or(|saved| saved <= state.global_step));
    let (newest, note) = match (kept, saved) {
        (Some((state, note)), _) => {
            let run = Some(note.run.clone().into_owned());
            (Checkpoint { state, run }, Some(note))
        }
        (None, Ok(Some(saved))) => (saved, None),
        (None, Ok(None)) => return begin(args, train_dir, layout),
        (None, Err(error)) => return Err(Failure::new(exit_of(&error), error)),
    };
    let before = newest.run.ok_or_else(|| {
        anyhow!(
            "the newest checkpoint in the train dir was made by another program; to begin with it, \
             give it as --init-from and another --train-dir"
        )
    });
    // The file that the run began with may be gone by now.
    let init_from = args
        .init_from
        .as_deref()
        .and_then(|path| match load_initial(path, layout) {
            Ok(state) => Some(state.digest()),
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "cannot compare --init-from with the run in the train dir"
                );
                None
            }
        });
    let run = config::resumed_run(args, before.or_exit(Exit::Permanent)?, init_from);
    let run = run.map_err(|error| {
        let exit = match error {
            ResumeError::AnotherRun { .. } => Exit::Permanent,
            ResumeError::Mode(_) => Exit::Usage,
        };
        Failure::new(exit, error)
    })?;
    info!(
        global_step = newest.state.global_step.0,
        "goes on with the run in the train dir"
    );
    let (last_commit, applied) = note.map_or((None, None), |note| (note.commit, note.applied));
    Ok(Start {
        last_commit: last_commit.map(Cow::into_owned),
        applied: applied.map_or_else(
            || AppliedSerials::first(newest.state.global_step.0),
            Cow::into_owned,
        ),
        state: newest.state,
        run,
        saved_step,
    })
}

fn begin(args: &RunArgs, train_dir: &TrainDir, layout: &Layout) -> Result<Start, Failure> {
    let state = match &args.init_from {
        Some(path) => load_initial(path, layout).or_exit(Exit::Permanent)?,
        None => initial_state(layout, config::seed_of_new_run(args)),
    };
    let run = config::new_run(args, state.digest()).or_exit(Exit::Usage)?;
    // From here on the train dir knows which run it holds, even if no step is ever done.
    train_dir.save(layout, &state, &run).or_exit(Exit::Disk)?;
    info!(global_step = state.global_step.0, "begins a new run");
    let saved_step = Some(state.global_step);
    Ok(Start {
        last_commit: None,
        applied: AppliedSerials::first(state.global_step.0),
        state,
        run,
        saved_step,
    })
}

/// The state in a checkpoint that a run is to begin with.
///
/// # Errors
///
/// What is wrong with the checkpoint.
pub fn load_initial(path: &Path, layout: &Layout) -> anyhow::Result<TrainingState> {
    let checkpoint = checkpoint::load(path, layout).context("--init-from")?;
    Ok(checkpoint.state)
}

/// The state file and the ledger, both as far as the run is, and the calendar, which goes on where that of
/// the ledger ends, should it be ahead.
///
/// # Errors
///
/// [`Exit::Disk`] if one of them cannot be written.
pub fn open_files(
    train_dir: &TrainDir,
    layout: &Layout,
    start: &Start,
    calendar: Calendar,
) -> Result<(StateFile, LedgerFile, Calendar), Failure> {
    let digest = start.state.digest();
    let (mut ledger, head) = train_dir.ledger().or_exit(Exit::Disk)?;
    let calendar = calendar.not_before(ledger.last_micros());
    let started = cifar_ledger::record::Start {
        format_version: cifar_ledger::record::FORMAT_VERSION,
        version: cifar_cli::VERSION.to_owned(),
        run: start.run.clone(),
        global_step: start.state.global_step,
        digest,
    };
    let at_micros = calendar.micros(calendar.moment);
    for line in opening_lines(at_micros, head, started, start.last_commit.clone()) {
        ledger.append(&line).or_exit(Exit::Disk)?;
    }
    let note = Note {
        run: Cow::Borrowed(&start.run),
        commit: None,
        applied: Some(Cow::Borrowed(&start.applied)),
    };
    let stored = Stored {
        state: start.state.clone(),
        digest,
        note: note.to_bytes(),
    };
    let state_file = train_dir
        .state_file(layout, start.run.num_towers, &stored)
        .or_exit(Exit::Disk)?;
    Ok((state_file, ledger, calendar))
}

/// How a train dir that cannot be used ends the program.
#[must_use]
pub fn exit_of(error: &TrainDirError) -> Exit {
    match error {
        TrainDirError::Io { .. } | TrainDirError::InTheWay { .. } => Exit::Disk,
        TrainDirError::InUse { .. } => Exit::TryAgain,
        TrainDirError::NothingGood { .. } => Exit::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cifar_ledger::Record;

    use super::*;
    use crate::training::fixtures::some_time;

    #[test]
    fn the_calendar_of_a_run_goes_on_though_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::cifar10();
        let train_dir = TrainDir::open(folder.path(), 2, false).unwrap();
        let start = resume_or_begin(&RunArgs::default(), &train_dir, &layout).unwrap();
        let at = |secs| Calendar {
            moment: some_time(),
            since_1970: Duration::from_secs(secs),
        };
        let open = |secs| open_files(&train_dir, &layout, &start, at(secs)).unwrap();
        let (_, mut ledger, _) = open(100);
        let left = Line {
            at_micros: 150_000_000,
            record: Record::Left { worker: 0 },
        };
        ledger.append(&left).unwrap();
        let (_, ledger, calendar) = open(50);
        assert_eq!(calendar.since_1970, Duration::from_secs(150));
        drop(ledger);
        let (reopened, _) = train_dir.ledger().unwrap();
        assert_eq!(reopened.last_micros(), 150_000_000);
        assert_eq!(open(200).2.since_1970, Duration::from_secs(200));
    }
}
