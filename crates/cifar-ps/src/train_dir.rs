//! The train dir: where a run keeps its checkpoints, used by one server at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use cifar_ledger::ledger_file::LEDGER_FILE;
use cifar_ledger::{Head, LedgerError, LedgerFile};
use cifar_params::checkpoint::{self, CheckpointError};
use cifar_params::{
    Checkpoint, Layout, RunConfig, StateFile, StateFileError, Stored, TrainingState,
};
use tracing::warn;

use crate::note::{Note, max_note_bytes};

const LOCK_FILE: &str = ".lock";
const STATE_FILE: &str = "state";
const PREVIOUS_PREFIX: &str = "previous-";

/// A train dir, locked for this process.
#[derive(Debug)]
pub struct TrainDir {
    path: PathBuf,
    keep_checkpoints: usize,
    /// Held as long as the server runs; the kernel lets it go when the process ends, however it ends.
    _lock: File,
}

/// A train dir that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrainDirError {
    /// A folder or file cannot be made, moved or removed.
    #[error("cannot use the train dir {path}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two servers would overwrite each other's checkpoints.
    #[error("another server is using the train dir {path}; give this one another --train-dir")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Every checkpoint is damaged.
    #[error(
        "the train dir {path} holds no checkpoint that can be read, the newest because {newest}; \
         start anew with --fresh, which moves the old run aside"
    )]
    NothingGood {
        /// The folder.
        path: PathBuf,
        /// What is wrong with the newest.
        newest: CheckpointError,
    },
}

impl TrainDir {
    /// Opens `path`, which is made if it is not there, and locks it.
    ///
    /// With `fresh`, an old run is moved to `previous-1` there, or the next free number.
    ///
    /// # Errors
    ///
    /// [`TrainDirError::InUse`] if another server has it, `Io` if it cannot be written.
    pub fn open(path: &Path, keep_checkpoints: usize, fresh: bool) -> Result<Self, TrainDirError> {
        let io_error = |source| TrainDirError::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(io_error)?;
        let lock = File::create(path.join(LOCK_FILE)).map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainDirError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        remove_unfinished(path).map_err(io_error)?;
        if fresh {
            move_aside(path).map_err(io_error)?;
        }
        Ok(TrainDir {
            path: path.to_owned(),
            keep_checkpoints,
            _lock: lock,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest checkpoint that is whole, if the dir holds a run. Damaged ones are named in the
    /// log and passed over.
    ///
    /// # Errors
    ///
    /// [`TrainDirError::NothingGood`] if there are checkpoints but none is whole.
    pub fn newest(&self, layout: &Layout) -> Result<Option<Checkpoint>, TrainDirError> {
        let nothing_good = |newest| TrainDirError::NothingGood {
            path: self.path.clone(),
            newest,
        };
        let mut first_error = None;
        for (_, path) in checkpoint::list(&self.path).map_err(nothing_good)? {
            match checkpoint::load(&path, layout) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    warn!(%error, "passes over a checkpoint");
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(None), |error| Err(nothing_good(error)))
    }

    /// The newest state that the state file holds whole, with what was kept with it. A file
    /// that holds none is named in the log and passed over: the checkpoints are there for that.
    #[must_use]
    pub fn kept_state(&self, layout: &Layout) -> Option<(TrainingState, Note<'static>)> {
        let path = self.path.join(STATE_FILE);
        match StateFile::read(&path, layout) {
            Ok(None) => None,
            Ok(Some(stored)) => match serde_json::from_slice(&stored.note) {
                Ok(note) => Some((stored.state, note)),
                Err(error) => {
                    warn!(path = %path.display(), %error, "passes over a state of another release");
                    None
                }
            },
            Err(error) => {
                warn!(%error, "passes over the state file");
                None
            }
        }
    }

    /// The state file, holding `stored`, for the commits of `num_towers` towers to come.
    ///
    /// # Errors
    ///
    /// [`StateFileError::Write`] if the disk is full or cannot be written.
    pub fn state_file(
        &self,
        layout: &Layout,
        num_towers: u32,
        stored: &Stored,
    ) -> Result<StateFile, StateFileError> {
        let path = self.path.join(STATE_FILE);
        StateFile::create(&path, layout, max_note_bytes(num_towers), stored)
    }

    /// The ledger, and the state that it ends with.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if it cannot be read or written.
    pub fn ledger(&self) -> Result<(LedgerFile, Option<Head>), LedgerError> {
        LedgerFile::open(&self.path.join(LEDGER_FILE))
    }

    /// Writes a checkpoint and removes the oldest beyond the number that is kept.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Write`] if the disk is full or cannot be written; the checkpoints that
    /// were there remain.
    pub fn save(
        &self,
        layout: &Layout,
        state: &TrainingState,
        run: &RunConfig,
    ) -> Result<PathBuf, CheckpointError> {
        let path = checkpoint::save(&self.path, layout, state, run)?;
        for (_, old) in checkpoint::list(&self.path)?
            .drain(..)
            .skip(self.keep_checkpoints)
        {
            if let Err(error) = fs::remove_file(&old) {
                warn!(path = %old.display(), %error, "cannot remove an old checkpoint");
            }
        }
        Ok(path)
    }
}

/// A server that was killed while it wrote leaves a temporary file behind.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(checkpoint::TEMPORARY_PREFIX)
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn move_aside(dir: &Path) -> io::Result<()> {
    let stays = |name: &str| name == LOCK_FILE || name.starts_with(PREVIOUS_PREFIX);
    let mut old_run = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !stays(&name.to_string_lossy()) {
            old_run.push(name);
        }
    }
    if old_run.is_empty() {
        return Ok(());
    }
    let aside = (1..)
        .map(|number| dir.join(format!("{PREVIOUS_PREFIX}{number}")))
        .find(|path| !path.exists())
        .expect("there are more numbers than folders");
    fs::create_dir(&aside)?;
    old_run
        .iter()
        .try_for_each(|name| fs::rename(dir.join(name), aside.join(name)))
}

#[cfg(test)]
mod tests {
    use cifar_sequence::GlobalStep;

    use super::*;
    use crate::training::{fixtures::run_config, initial_state};

    fn open(path: &Path) -> TrainDir {
        TrainDir::open(path, 2, false).unwrap()
    }

    fn save(dir: &TrainDir, step: u64) -> PathBuf {
        let layout = Layout::cifar10();
        let state = TrainingState {
            global_step: GlobalStep(step),
            ..initial_state(&layout, 1)
        };
        dir.save(&layout, &state, &run_config()).unwrap()
    }

    fn newest_step(dir: &TrainDir) -> u64 {
        dir.newest(&Layout::cifar10())
            .unwrap()
            .unwrap()
            .state
            .global_step
            .0
    }

    #[test]
    fn only_the_last_checkpoints_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(&folder.path().join("made/on/demand"));
        let paths = [0, 5, 10].map(|step| save(&dir, step));
        assert_eq!(paths.map(|path| path.exists()), [false, true, true]);
        assert_eq!(newest_step(&dir), 10);
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        save(&dir, 5);
        let newest = save(&dir, 10);
        let mut bytes = fs::read(&newest).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&newest, bytes).unwrap();
        assert_eq!(newest_step(&dir), 5);
    }

    #[test]
    fn nothing_but_damaged_checkpoints_is_an_error_and_not_a_new_run() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        fs::write(save(&dir, 5), "cut").unwrap();
        let error = dir.newest(&Layout::cifar10()).unwrap_err().to_string();
        assert!(
            error.contains("model.ckpt-5.safetensors") && error.contains("--fresh"),
            "{error}"
        );
    }

    #[test]
    fn a_second_server_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = open(folder.path());
        let error = TrainDir::open(folder.path(), 2, false).unwrap_err();
        assert!(matches!(error, TrainDirError::InUse { .. }));
    }

    #[test]
    fn fresh_moves_the_old_run_aside() {
        let folder = tempfile::tempdir().unwrap();
        for previous in ["previous-1", "previous-2"] {
            save(&open(folder.path()), 3);
            let dir = TrainDir::open(folder.path(), 2, true).unwrap();
            assert!(dir.newest(&Layout::cifar10()).unwrap().is_none());
            assert!(
                folder
                    .path()
                    .join(previous)
                    .join("model.ckpt-3.safetensors")
                    .exists()
            );
        }
    }

    #[test]
    fn what_a_killed_server_left_unfinished_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let unfinished = folder
            .path()
            .join(format!("{}abc", checkpoint::TEMPORARY_PREFIX));
        fs::write(&unfinished, "half").unwrap();
        open(folder.path());
        assert!(!unfinished.exists());
    }
}
