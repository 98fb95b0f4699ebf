//! The train dir: where a run keeps its checkpoints, used by one server at a time.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cifar_events::event_file;
use cifar_ledger::eval_dir::EVAL_DIR;
use cifar_ledger::ledger_file::LEDGER_FILE;
use cifar_ledger::{Head, LedgerError, LedgerFile};
use cifar_params::checkpoint::{self, CheckpointError};
use cifar_params::{
    Checkpoint, Layout, RunConfig, StateFile, StateFileError, Stored, TrainingState,
};
use tracing::warn;

use crate::note::{Note, max_note_bytes};
use crate::server_file::SERVER_FILE;
use crate::summary_writer::IMAGES_FOLDER;

const LOCK_FILE: &str = ".lock";
const STATE_FILE: &str = "state";
/// What [`StateFile::create`] calls a file that it has not finished.
const UNFINISHED_STATE_FILE: &str = "state.unfinished";
const PREVIOUS_PREFIX: &str = "previous-";

/// Whether a name in a train dir is the run's own. Everything else there is somebody else's and is left
/// alone.
fn is_of_run(name: &OsStr) -> bool {
    let names = [
        STATE_FILE,
        UNFINISHED_STATE_FILE,
        LEDGER_FILE,
        EVAL_DIR,
        IMAGES_FOLDER,
        SERVER_FILE,
    ];
    let prefixes = [event_file::NAME_PREFIX, checkpoint::TEMPORARY_PREFIX];
    let text = name.to_string_lossy();
    names.iter().any(|own| text == *own)
        || prefixes.iter().any(|own| text.starts_with(own))
        || checkpoint::step_of(Path::new(name)).is_some()
}

/// A train dir, locked for this process.
#[derive(Debug)]
pub struct TrainDir {
    path: PathBuf,
    keep_checkpoints: usize,
    /// Files that are named as checkpoints and are none.
    damaged: Mutex<BTreeSet<PathBuf>>,
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
    /// The old run cannot be moved; it is all where it was.
    #[error(
        "cannot move {path} aside, which --fresh is to do with the old run; nothing was moved. See why it \
         cannot be moved, or give another --train-dir"
    )]
    InTheWay {
        /// What cannot be moved.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
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
    /// [`TrainDirError::InUse`] if another server has it, `InTheWay` if the old run cannot be moved, `Io` if
    /// it cannot be written.
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
            move_aside(path)?;
        }
        Ok(TrainDir {
            path: path.to_owned(),
            keep_checkpoints,
            damaged: Mutex::default(),
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
        let passed_over = |path: &Path, error: CheckpointError| {
            warn!(%error, "passes over a checkpoint");
            self.damaged().insert(path.to_owned());
            first_error.get_or_insert(error);
        };
        let load = |path: &Path| checkpoint::load(path, layout);
        let newest = checkpoint::newest(&self.path, load, passed_over).map_err(nothing_good)?;
        match (newest, first_error) {
            (None, Some(error)) => Err(nothing_good(error)),
            (newest, _) => Ok(newest),
        }
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Writes a checkpoint, in the place of a file of that name, and removes the oldest beyond the number
    /// that is kept. Damaged files do not count for that number, nor do those of later steps, which are
    /// written again when the run comes there.
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
        let mut damaged = self.damaged();
        damaged.remove(&path);
        let mut kept = 0;
        for (step, old) in checkpoint::list(&self.path)? {
            if step > state.global_step {
                continue;
            }
            if kept < self.keep_checkpoints {
                kept += usize::from(!damaged.contains(&old));
            } else if let Err(error) = fs::remove_file(&old) {
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
        let name = entry.file_name();
        let is_ours = name
            .to_string_lossy()
            .starts_with(checkpoint::TEMPORARY_PREFIX);
        if is_ours && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes the folder `previous-N` of the lowest number that is free.
fn new_folder_for_previous(dir: &Path) -> io::Result<PathBuf> {
    let mut number = 1_u64;
    loop {
        let path = dir.join(format!("{PREVIOUS_PREFIX}{number}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            result => return result.map(|()| path),
        }
    }
}

/// Moves the run in `dir` to `previous-N` there: all of it, or nothing.
fn move_aside(dir: &Path) -> Result<(), TrainDirError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| TrainDirError::Io { path, source }
    };
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(io_error(dir))?.into_iter();
    let names = entries.map(|entry| entry.file_name());
    let old_run: Vec<_> = names.filter(|name| is_of_run(name)).collect();
    if old_run.is_empty() {
        return Ok(());
    }
    let aside = new_folder_for_previous(dir).map_err(io_error(dir))?;
    for (num_moved, name) in old_run.iter().enumerate() {
        let path = dir.join(name);
        if let Err(source) = fs::rename(&path, aside.join(name)) {
            let back = |name| fs::rename(aside.join(name), dir.join(name));
            let moved_back = old_run[..num_moved].iter().try_for_each(back);
            let removed = moved_back.and_then(|()| fs::remove_dir(&aside));
            removed.map_err(io_error(&aside))?;
            return Err(TrainDirError::InTheWay { path, source });
        }
    }
    Ok(())
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
    fn fresh_leaves_what_is_not_the_runs_own() {
        let folder = tempfile::tempdir().unwrap();
        save(&open(folder.path()), 3);
        let own = [
            "state",
            "state.unfinished",
            "ledger",
            "eval/scores.jsonl",
            "images/0.png",
            "server",
        ];
        let own = [&own[..], &["events.out.tfevents.1700000000.host"]].concat();
        let others = [
            "notes.md",
            "src/main.rs",
            "lost+found/a",
            "model.ckpt-notes",
        ];
        for name in own.iter().chain(&others) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        TrainDir::open(folder.path(), 2, true).unwrap();
        let aside = folder.path().join("previous-1");
        for name in &own {
            assert!(aside.join(name).exists(), "{name}");
        }
        for name in &others {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn what_is_only_named_as_the_servers_own_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        save(&open(folder.path()), 3);
        std::os::unix::fs::symlink("nowhere", folder.path().join("previous-1")).unwrap();
        fs::create_dir(folder.path().join(".checkpoint-notes")).unwrap();
        TrainDir::open(folder.path(), 2, true).unwrap();
        assert!(folder.path().join("previous-2").is_dir());
    }

    /// The path of one file is as long as paths may be; in `previous-1` it would be too long.
    #[test]
    fn a_run_that_cannot_be_moved_as_a_whole_is_not_moved_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}{}", event_file::NAME_PREFIX, "x".repeat(235));
        let mut path = folder.path().to_owned();
        while path.as_os_str().len() + long.len() < 4090 {
            let missing = 4090 - path.as_os_str().len() - long.len();
            path.push("d".repeat(missing.min(200)));
        }
        save(&open(&path), 3);
        for name in ["state", "ledger", &long] {
            fs::write(path.join(name), name).unwrap();
        }
        for _ in 0..2 {
            let error = TrainDir::open(&path, 2, true).unwrap_err();
            assert!(
                matches!(&error, TrainDirError::InTheWay { path, .. } if path.ends_with(&long)),
                "{error}"
            );
            assert_eq!(
                fs::read_dir(&path).unwrap().count(),
                5,
                "four, and the lock"
            );
            assert_eq!(newest_step(&open(&path)), 3);
        }
    }

    #[test]
    fn damaged_checkpoints_cost_no_good_one_and_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        save(&open(folder.path()), 5);
        let dir = open(folder.path());
        let file = |step| checkpoint::path_of(folder.path(), GlobalStep(step));
        for step in [10, 1000, 1001] {
            fs::write(file(step), "").unwrap();
        }
        assert_eq!(newest_step(&dir), 5);
        save(&dir, 11);
        assert!(file(5).exists() && file(11).exists());
        let replaced = save(&dir, 1000);
        assert!(checkpoint::load(&replaced, &Layout::cifar10()).is_ok());
        let steps = checkpoint::list(folder.path()).unwrap();
        let steps: Vec<u64> = steps.iter().map(|(step, _)| step.0).collect();
        assert_eq!(steps, [1001, 1000, 11]);
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
