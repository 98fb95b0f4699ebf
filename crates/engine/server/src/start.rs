//! With what a server goes on, or begins: the run and its files, as they were left.
//!
//! A checkpoint at step 0 pins the configuration of a run before its first step, instead of a file of its own that
//! could contradict the checkpoints.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, anyhow};
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_ledger::{Line, opening_lines};
use pserver_run::{GlobalStep, Layout, RunConfig};
use pserver_state::{Checkpoint, StateFileError, Stored, TrainingState, checkpoint};
use tracing::{info, warn};

use crate::args::RunArgs;
use crate::calendar::Calendar;
use crate::commit_path::Files;
use crate::config;
use crate::note::Note;
use crate::train_dir::{Kept, TrainDir, TrainDirError};
use pserver_core::AppliedSerials;
use pserver_state::initial::initial_state;

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
    let failure = |error: TrainDirError| Failure::new(exit_of(&error), error);
    let ledger = train_dir.witness().map_err(|error| failure(error.into()))?;
    // Nothing is replaced that cannot be used, but for a state that went down with its machine: that is what
    // checkpoints are for.
    let (kept, is_damaged) = match train_dir.kept_state(layout, ledger.as_ref()) {
        Ok(kept) => (kept, false),
        Err(TrainDirError::State(error @ StateFileError::Damaged { .. })) => {
            warn!(%error, "passes over the state file");
            (None, true)
        }
        Err(error) => return Err(failure(error)),
    };
    let saved = train_dir.newest(layout, ledger.as_ref());
    if let (Some(kept), Ok(Some(saved))) = (&kept, &saved) {
        train_dir.compare(kept, saved).map_err(failure)?;
    }
    let saved_step = saved
        .iter()
        .flatten()
        .map(|checkpoint| checkpoint.state.global_step)
        .next();
    // A checkpoint can be newer only if the state file is an old copy, put back by hand.
    let kept = kept.filter(|kept| saved_step.is_none_or(|saved| saved <= kept.state.global_step));
    let (newest, note) = match (kept, saved) {
        (Some(Kept { state, note, .. }), _) => {
            let run = Some(note.run.clone().into_owned());
            (Checkpoint { state, run }, Some(note))
        }
        (None, Ok(Some(saved))) => (saved, None),
        (None, Ok(None)) if is_damaged || ledger.is_some() => {
            return Err(failure(train_dir.nothing_left(is_damaged)));
        }
        (None, Ok(None)) => return begin(args, train_dir, layout),
        (None, Err(error)) => return Err(failure(error)),
    };
    let run = run_to_resume(args, newest.run, layout)?;
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
    let saved = train_dir.save(layout, &state, &run);
    saved.map_err(|error| Failure::new(exit_of(&error), error))?;
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
) -> Result<(Files, Calendar), Failure> {
    let digest = start.state.digest();
    let (mut ledger, head) = train_dir.ledger().or_exit(Exit::Disk)?;
    let calendar = calendar.not_before(ledger.last_micros());
    let started = pserver_ledger::record::Start {
        format_version: pserver_ledger::record::FORMAT_VERSION,
        version: pserver_cli::VERSION.to_owned(),
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
    Ok((Files { state_file, ledger }, calendar))
}

/// The settings to go on with, which are those from before where no flag says otherwise.
fn run_to_resume(
    args: &RunArgs,
    before: Option<RunConfig>,
    layout: &Layout,
) -> Result<RunConfig, Failure> {
    let before = before.ok_or_else(|| {
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
    config::resumed_run(args, before.or_exit(Exit::Permanent)?, init_from)
}

/// How a train dir that cannot be used ends the program.
#[must_use]
pub fn exit_of(error: &TrainDirError) -> Exit {
    match error {
        TrainDirError::Io { .. }
        | TrainDirError::InTheWay { .. }
        | TrainDirError::Checkpoint(_)
        | TrainDirError::Ledger(_)
        | TrainDirError::State(_) => Exit::Disk,
        TrainDirError::InUse { .. } => Exit::TryAgain,
        TrainDirError::NothingGood { .. }
        | TrainDirError::NothingLeft { .. }
        | TrainDirError::OfAnotherRelease { .. }
        | TrainDirError::Stranger { .. } => Exit::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use pserver_ledger::Record;
    use tempfile::TempDir;

    use super::*;
    use crate::fixtures::calendar;

    fn args(seed: u64) -> RunArgs {
        RunArgs {
            seed: Some(seed),
            ..RunArgs::default()
        }
    }

    /// Has a server start, and end at once.
    fn serve(folder: &Path, args: &RunArgs) -> Result<GlobalStep, Failure> {
        let layout = Layout::example();
        let train_dir = TrainDir::open(folder, 2, false).unwrap();
        let start = resume_or_begin(args, &train_dir, &layout)?;
        open_files(&train_dir, &layout, &start, calendar(100))?;
        Ok(start.state.global_step)
    }

    /// The train dir of a run that has begun.
    fn run(seed: u64) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        serve(folder.path(), &args(seed)).unwrap();
        folder
    }

    /// Moves the run of a folder on, as commits do, by one step that the ledger does not know.
    fn state_goes_on(folder: &Path) {
        let layout = Layout::example();
        let train_dir = TrainDir::open(folder, 2, false).unwrap();
        let kept = train_dir.kept_state(&layout, None).unwrap().unwrap();
        let state = TrainingState {
            global_step: kept.state.global_step.next(),
            ..kept.state
        };
        let stored = Stored {
            digest: state.digest(),
            state,
            note: kept.note.to_bytes(),
        };
        train_dir.state_file(&layout, 1, &stored).unwrap();
    }

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }

    /// A server refuses the run, says so with these words, and changes nothing.
    #[track_caller]
    fn assert_refused(folder: &Path, words: &[&str]) {
        let before = files(folder);
        let refused = serve(folder, &RunArgs::default()).unwrap_err();
        let text = refused.to_string();
        for words in words {
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(refused.exit(), Exit::Permanent, "{text}");
        assert!(files(folder) == before, "nothing is changed");
    }

    #[test]
    fn a_run_of_which_nothing_is_left_to_go_on_from_is_not_begun_anew() {
        let folder = run(1);
        let path = |name| folder.path().join(name);
        fs::remove_file(path("model.ckpt-0.safetensors")).unwrap();
        fs::write(path("state"), "torn").unwrap();
        assert_refused(
            folder.path(),
            &["holds a damaged state, and no checkpoint", "--fresh"],
        );
        fs::remove_file(path("state")).unwrap();
        assert_refused(
            folder.path(),
            &["holds a ledger and no state, and no checkpoint", "--fresh"],
        );
        fs::write(path("ledger"), "notes\n").unwrap();
        assert_refused(
            folder.path(),
            &["holds a ledger and no state, and no checkpoint", "--fresh"],
        );
        fs::remove_file(path("ledger")).unwrap();
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(0));
    }

    #[test]
    fn a_state_of_another_release_is_not_replaced_though_there_is_a_checkpoint() {
        let folder = run(1);
        let path = folder.path().join("state");
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] += 1;
        fs::write(&path, bytes).unwrap();
        assert_refused(
            folder.path(),
            &["state is a state of another release", "--fresh"],
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(0));
    }

    #[test]
    fn a_damaged_state_sends_the_run_back_to_its_checkpoint() {
        let folder = run(1);
        state_goes_on(folder.path());
        fs::write(folder.path().join("state"), "torn").unwrap();
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(0));
    }

    #[test]
    fn a_state_of_another_run_is_refused_whatever_its_step() {
        let (folder, other) = (run(1), run(2));
        let copy = |name: &str| {
            fs::copy(other.path().join(name), folder.path().join(name)).unwrap();
        };
        copy("state");
        let words = [
            "state does not belong to the run of",
            "ledger (--seed: 1 -> 2",
        ];
        assert_refused(folder.path(), &words);
        state_goes_on(other.path());
        copy("state");
        assert_refused(folder.path(), &words);
        fs::remove_file(folder.path().join("ledger")).unwrap();
        assert_refused(
            folder.path(),
            &[
                "state does not belong to the run of",
                "model.ckpt-0.safetensors (--seed",
            ],
        );
    }

    /// Two runs of the same settings take different ways where gradients are applied as they come.
    #[test]
    fn a_state_that_is_not_the_ledgers_is_refused() {
        let folder = run(1);
        let layout = Layout::example();
        let train_dir = TrainDir::open(folder.path(), 2, false).unwrap();
        let Kept {
            mut state, note, ..
        } = train_dir.kept_state(&layout, None).unwrap().unwrap();
        state.variables[0] += 1.0;
        let stored = Stored {
            digest: state.digest(),
            state,
            note: note.to_bytes(),
        };
        train_dir.state_file(&layout, 1, &stored).unwrap();
        drop(train_dir);
        assert_refused(folder.path(), &["(its state at step 0 is"]);
    }

    #[test]
    fn a_checkpoint_of_another_run_is_passed_over() {
        let (folder, other) = (run(1), run(2));
        let layout = Layout::example();
        let name = |step| checkpoint::name_of(GlobalStep(step));
        let of_other = TrainDir::open(other.path(), 2, false).unwrap();
        let saved = of_other.newest(&layout, None).unwrap().unwrap();
        let state = TrainingState {
            global_step: GlobalStep(70),
            ..saved.state
        };
        of_other.save(&layout, &state, &saved.run.unwrap()).unwrap();
        fs::copy(other.path().join(name(70)), folder.path().join(name(70))).unwrap();
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(0));
        for lost in ["state", &name(0)] {
            fs::remove_file(folder.path().join(lost)).unwrap();
        }
        assert_refused(folder.path(), &["does not belong to the run of", "--fresh"]);
    }

    #[test]
    fn a_ledger_that_was_deleted_or_lost_its_end_is_gone_on_with() {
        let folder = run(1);
        state_goes_on(folder.path());
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(1));
        state_goes_on(folder.path());
        state_goes_on(folder.path());
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(3));
        let ledger = folder.path().join("ledger");
        let text = fs::read(&ledger).unwrap();
        fs::write(&ledger, &text[..text.len() / 3]).unwrap();
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(3));
        fs::remove_file(&ledger).unwrap();
        assert_eq!(serve(folder.path(), &args(1)).unwrap(), GlobalStep(3));
    }

    #[test]
    fn the_calendar_of_a_run_goes_on_though_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::example();
        let train_dir = TrainDir::open(folder.path(), 2, false).unwrap();
        let start = resume_or_begin(&RunArgs::default(), &train_dir, &layout).unwrap();
        let open = |secs| open_files(&train_dir, &layout, &start, calendar(secs)).unwrap();
        let (mut files, _) = open(100);
        let left = Line {
            at_micros: 150_000_000,
            record: Record::Left { worker: 0 },
        };
        files.ledger.append(&left).unwrap();
        drop(files);
        let (files, calendar) = open(50);
        assert_eq!(calendar.since_1970, Duration::from_secs(150));
        drop(files);
        let (reopened, _) = train_dir.ledger().unwrap();
        assert_eq!(reopened.last_micros(), 150_000_000);
        assert_eq!(open(200).1.since_1970, Duration::from_secs(200));
    }
}
