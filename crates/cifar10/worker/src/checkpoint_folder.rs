//! A folder of checkpoints that is looked into again and again, while a server writes to it or somebody moves
//! its run aside.
//!
//! A file that cannot be loaded is passed over and named in the log once. Another run is told by its
//! configuration, or by its ledger where that is in the folder: its steps begin anew.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pserver_ledger::ledger_file::{LEDGER_FILE, number_of};
use pserver_run::{GlobalStep, Layout, RunConfig, ScoredVariables};
use pserver_state::checkpoint::{self, CheckpointError, Scorable};
use tracing::warn;

/// The folder, and what was seen of it.
#[derive(Debug)]
pub struct CheckpointFolder {
    dir: PathBuf,
    layout: Layout,
    variables: ScoredVariables,
    /// Files that could not be loaded, each of which was named.
    named: BTreeSet<(PathBuf, Stamp)>,
    /// The newest checkpoint at the last look.
    seen: Option<(PathBuf, Stamp, Option<u64>)>,
    run: Option<SeenRun>,
}

/// A checkpoint that was not there at the last look.
#[derive(Debug)]
pub struct Found {
    /// What is to be scored.
    pub scorable: Scorable,
    /// Whether it is the first that was found of another run than that of the checkpoint before.
    pub begins_anew: bool,
}

/// Tells one content of a file from the next: device, number, time of change and size.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

/// The run of the checkpoint that was found last.
#[derive(Debug)]
struct SeenRun {
    config: Option<RunConfig>,
    ledger: Option<u64>,
    /// The highest step that was found.
    step: GlobalStep,
}

impl SeenRun {
    fn is_another(&self, config: Option<&RunConfig>, ledger: Option<u64>) -> bool {
        let has_other_config = match (&self.config, config) {
            (Some(before), Some(now)) => !before.differences(now).is_empty(),
            (before, now) => before.is_some() != now.is_some(),
        };
        // A server that begins writes its first checkpoint before its ledger.
        let has_other_ledger = self
            .ledger
            .zip(ledger)
            .is_some_and(|(before, now)| before != now);
        has_other_config || has_other_ledger
    }
}

impl CheckpointFolder {
    /// The folder `dir`, which need not be there yet, whose checkpoints are scored by `variables`.
    #[must_use]
    pub fn new(dir: &Path, layout: &Layout, variables: ScoredVariables) -> Self {
        CheckpointFolder {
            dir: dir.to_owned(),
            layout: layout.clone(),
            variables,
            named: BTreeSet::new(),
            seen: None,
            run: None,
        }
    }

    /// The newest checkpoint, if it is of a higher step than those that were found before, or of another
    /// run.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if there are checkpoints, but none can be loaded and none ever was.
    pub fn look(&mut self) -> Result<Option<Found>, CheckpointError> {
        let ledger = number_of_ledger(&self.dir);
        let load = |path: &Path| {
            let now = (path.to_owned(), stamp_of(path), ledger);
            if self.seen.as_ref() == Some(&now) {
                return Ok(None);
            }
            let scorable = checkpoint::load_scorable(path, &self.layout, self.variables)?;
            Ok(Some((scorable, now)))
        };
        let mut first_error = None;
        let passed_over = |path: &Path, error| {
            if self.named.insert((path.to_owned(), stamp_of(path))) {
                warn!(%error, "passes over a checkpoint");
            }
            first_error.get_or_insert(error);
        };
        match (
            checkpoint::newest(&self.dir, load, passed_over)?,
            first_error,
        ) {
            (Some(Some((scorable, now))), _) => {
                self.seen = Some(now);
                Ok(self.judge(scorable, ledger))
            }
            (None, Some(error)) if self.run.is_none() => Err(error),
            _ => Ok(None),
        }
    }

    fn judge(&mut self, scorable: Scorable, ledger: Option<u64>) -> Option<Found> {
        let config = scorable.run.as_ref();
        let is_another = |run: &SeenRun| run.is_another(config, ledger);
        let begins_anew = self.run.as_ref().is_some_and(is_another);
        if begins_anew {
            self.run = None;
        }
        if let Some(run) = &mut self.run {
            run.ledger = ledger.or(run.ledger);
            if scorable.global_step <= run.step {
                return None;
            }
        }
        self.run = Some(SeenRun {
            config: config.cloned(),
            ledger: ledger.or(self.run.as_ref().and_then(|run| run.ledger)),
            step: scorable.global_step,
        });
        Some(Found {
            scorable,
            begins_anew,
        })
    }
}

fn number_of_ledger(dir: &Path) -> Option<u64> {
    let file = File::open(dir.join(LEDGER_FILE)).ok()?;
    let has_begun = file.metadata().ok()?.len() > 0;
    has_begun.then(|| number_of(&file).ok())?
}

fn stamp_of(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    let (secs, nanos) = (found.mtime(), found.mtime_nsec());
    Some((found.dev(), found.ino(), secs, nanos, found.len()))
}

/// The checkpoint that is named, or the newest one in a folder that can be loaded.
///
/// # Errors
///
/// If there are checkpoints, but none can be loaded.
pub(crate) fn newest(
    path: &Path,
    layout: &Layout,
    variables: ScoredVariables,
) -> Result<Option<Scorable>, CheckpointError> {
    if is_checkpoint(path) {
        return checkpoint::load_scorable(path, layout, variables).map(Some);
    }
    let found = CheckpointFolder::new(path, layout, variables).look()?;
    Ok(found.map(|found| found.scorable))
}

/// Whether this is a checkpoint, or is meant to be one, and not a folder of them.
pub(crate) fn is_checkpoint(path: &Path) -> bool {
    let is_called_one = path
        .extension()
        .is_some_and(|ending| ending == "safetensors");
    path.is_file() || (is_called_one && !path.is_dir())
}
