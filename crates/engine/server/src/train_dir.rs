//! The train dir: where a run keeps its checkpoints, used by one server at a time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pserver_events::event_file;
use pserver_ledger::eval_dir::EVAL_DIR;
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_ledger::{Head, LedgerError, LedgerFile, Witness};
use pserver_run::{GlobalStep, Layout, RunConfig, StateDigest};
use pserver_state::checkpoint::{self, CheckpointError};
use pserver_state::folder::is_same;
use pserver_state::{Checkpoint, Folder, StateFile, StateFileError, Stored, TrainingState};
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

/// A train dir, locked for this process. What is done there is done through the folder that was locked, not
/// by its name, which may be another one's by now.
#[derive(Debug)]
pub struct TrainDir {
    folder: Folder,
    keep_checkpoints: usize,
    /// Held as long as the server runs; the kernel lets it go when the process ends, however it ends. The
    /// folder is locked too, where the file system locks folders: nobody removes that by cleaning up.
    lock: Mutex<File>,
    /// Checkpoints that were looked into, and whether each can be loaded.
    looked_into: Mutex<BTreeMap<PathBuf, (Stamp, bool)>>,
}

/// Tells a file from what it was before, and from another one under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Stamp {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
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
    /// Every checkpoint is damaged, or of another run.
    #[error(
        "the train dir {path} holds no checkpoint that can be read, the newest because {newest}; \
         start anew with --fresh, which moves the old run aside"
    )]
    NothingGood {
        /// The folder.
        path: PathBuf,
        /// What is wrong with the newest.
        newest: Box<TrainDirError>,
    },
    /// A file is of another run than the one beside it.
    #[error(
        "{path} does not belong to the run of {other} ({difference}); move the one that does not belong out \
         of the train dir"
    )]
    Stranger {
        /// The file.
        path: PathBuf,
        /// The one beside it.
        other: PathBuf,
        /// What is different.
        difference: String,
    },
    /// There was a run, and nothing is left to go on from.
    #[error(
        "the train dir {path} holds {left}, and no checkpoint to go on from; put one back, or begin a new \
         run with --fresh, which moves what is left of the old one aside"
    )]
    NothingLeft {
        /// The folder.
        path: PathBuf,
        /// What is left of the run.
        left: &'static str,
    },
    /// The state is of another release or model, and is not to be replaced.
    #[error(
        "{path} is a state of another release or model; start the one that wrote it, or move the file out \
         of the train dir to go on from the newest checkpoint, or begin a new run with --fresh, which moves \
         the old one aside"
    )]
    OfAnotherRelease {
        /// The state file.
        path: PathBuf,
    },
    /// The state file is damaged or cannot be read.
    #[error(transparent)]
    State(StateFileError),
    /// A checkpoint cannot be loaded or written, or the folder not be listed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The state that a state file holds, with what was kept with it.
#[derive(Debug)]
pub struct Kept {
    /// The state.
    pub state: TrainingState,
    /// Its digest.
    pub digest: StateDigest,
    /// What was kept with it.
    pub note: Note<'static>,
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
        let folder = Folder::open(path).map_err(io_error)?;
        // Some file systems cannot lock folders; the lock file is locked in any case.
        if let Err(TryLockError::WouldBlock) = folder.file().try_lock() {
            return Err(in_use(&folder));
        }
        let lock = lock_file(&folder)?;
        remove_unfinished(path).map_err(io_error)?;
        if fresh {
            move_aside(path)?;
        }
        Ok(TrainDir {
            folder,
            keep_checkpoints,
            lock: Mutex::new(lock),
            looked_into: Mutex::default(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The newest checkpoint that is whole and of the run of the `ledger`, if the dir holds a run. Others are
    /// named in the log and passed over.
    ///
    /// # Errors
    ///
    /// [`TrainDirError::NothingGood`] if there are checkpoints but none is good.
    pub fn newest(
        &self,
        layout: &Layout,
        ledger: Option<&Witness>,
    ) -> Result<Option<Checkpoint>, TrainDirError> {
        let mut first_error = None;
        for (_, path) in self.checkpoints()? {
            match self.load(&path, layout, ledger) {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(TrainDirError::Checkpoint(CheckpointError::Read { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound => {}
                Err(error @ (TrainDirError::Checkpoint(_) | TrainDirError::Stranger { .. })) => {
                    warn!(%error, "passes over a checkpoint");
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match first_error {
            None => Ok(None),
            Some(newest) => Err(TrainDirError::NothingGood {
                path: self.folder.path().to_owned(),
                newest: Box::new(newest),
            }),
        }
    }

    /// A checkpoint, if it is of the run of the `ledger`.
    fn load(
        &self,
        path: &Path,
        layout: &Layout,
        ledger: Option<&Witness>,
    ) -> Result<Checkpoint, TrainDirError> {
        let loaded = checkpoint::load(path, layout);
        let loaded = loaded.map_err(|error| self.folder.explain(error))?;
        if let (Some(ledger), Some(run)) = (ledger, &loaded.run) {
            let (step, digest) = (loaded.state.global_step, || loaded.state.digest());
            self.compare_with_ledger(path, run, step, digest, ledger)?;
        }
        Ok(loaded)
    }

    /// Sees that a file, which holds the state at a step of `run`, is of the run of the `ledger`.
    fn compare_with_ledger(
        &self,
        path: &Path,
        run: &RunConfig,
        step: GlobalStep,
        digest: impl FnOnce() -> StateDigest,
        ledger: &Witness,
    ) -> Result<(), TrainDirError> {
        let settings = ledger.run().map(|of_ledger| of_ledger.differences(run));
        let settings = settings.unwrap_or_default();
        if !settings.is_empty() {
            return Err(self.stranger(path, LEDGER_FILE, settings.join("; ")));
        }
        let expected = ledger.digest_at(step);
        let expected = expected.map_err(|error| self.folder.explain(error))?;
        match expected.map(|expected| (expected, digest())) {
            Some((expected, found)) if found != expected => {
                let difference = format!("its state at step {step} is {found}, not {expected}");
                Err(self.stranger(path, LEDGER_FILE, difference))
            }
            _ => Ok(()),
        }
    }

    fn stranger(&self, path: &Path, other: &str, difference: String) -> TrainDirError {
        TrainDirError::Stranger {
            path: self.folder.shown(path),
            other: self.folder.path().join(other),
            difference,
        }
    }

    /// The newest state that the state file holds whole, if it is of the run of the `ledger`; `None` if there
    /// is no such file.
    ///
    /// # Errors
    ///
    /// If there is one that cannot be used: [`TrainDirError::State`] if it is damaged or cannot be read,
    /// [`TrainDirError::OfAnotherRelease`], or [`TrainDirError::Stranger`] if it is of another run.
    pub fn kept_state(
        &self,
        layout: &Layout,
        ledger: Option<&Witness>,
    ) -> Result<Option<Kept>, TrainDirError> {
        let path = self.folder.join(STATE_FILE);
        let of_another_release = || TrainDirError::OfAnotherRelease {
            path: self.folder.shown(&path),
        };
        let stored = match StateFile::read(&path, layout) {
            Ok(None) => return Ok(None),
            Ok(Some(stored)) => stored,
            Err(StateFileError::Foreign { .. }) => return Err(of_another_release()),
            Err(error) => return Err(TrainDirError::State(self.folder.explain(error))),
        };
        // It is whole, so another release wrote what this one does not understand.
        let note = serde_json::from_slice(&stored.note).map_err(|_| of_another_release())?;
        let kept = Kept {
            state: stored.state,
            digest: stored.digest,
            note,
        };
        if let Some(ledger) = ledger {
            let (run, step) = (&kept.note.run, kept.state.global_step);
            self.compare_with_ledger(&path, run, step, || kept.digest, ledger)?;
        }
        Ok(Some(kept))
    }

    /// Sees that a state and a checkpoint are of one run.
    ///
    /// # Errors
    ///
    /// [`TrainDirError::Stranger`] if they are not.
    pub fn compare(&self, kept: &Kept, saved: &Checkpoint) -> Result<(), TrainDirError> {
        let Some(run) = &saved.run else {
            return Ok(());
        };
        let differences = run.differences(&kept.note.run);
        if differences.is_empty() {
            return Ok(());
        }
        let of_checkpoint = checkpoint::name_of(saved.state.global_step);
        let state = self.folder.join(STATE_FILE);
        Err(self.stranger(&state, &of_checkpoint, differences.join("; ")))
    }

    /// Nothing is left of a run but a ledger, or a state that is damaged.
    #[must_use]
    pub fn nothing_left(&self, has_state: bool) -> TrainDirError {
        TrainDirError::NothingLeft {
            path: self.folder.path().to_owned(),
            left: match has_state {
                true => "a damaged state",
                false => "a ledger and no state",
            },
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
        let path = self.folder.join(STATE_FILE);
        match StateFile::create(&path, layout, max_note_bytes(num_towers), stored) {
            Ok(file) => Ok(file.called(self.folder.shown(&path))),
            Err(error) => Err(self.folder.explain(error)),
        }
    }

    /// The ledger, and the state that it ends with.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if it cannot be read or written.
    pub fn ledger(&self) -> Result<(LedgerFile, Option<Head>), LedgerError> {
        let path = self.folder.join(LEDGER_FILE);
        match LedgerFile::open(&path) {
            Ok((file, head)) => Ok((file.called(self.folder.shown(&path)), head)),
            Err(error) => Err(self.folder.explain(error)),
        }
    }

    /// What the ledger says, before anything is written to it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if it cannot be read.
    pub fn witness(&self) -> Result<Option<Witness>, LedgerError> {
        let witness = Witness::open(&self.folder.join(LEDGER_FILE));
        witness.map_err(|error| self.folder.explain(error))
    }

    /// Writes a checkpoint, in the place of a file of that name, and removes the oldest beyond the number
    /// that is kept. Only files that can be loaded and are of this run count for that number, and of later
    /// steps none, which are written again when the run comes there.
    ///
    /// # Errors
    ///
    /// [`TrainDirError::Checkpoint`] if the disk is full or cannot be written; the checkpoints that
    /// were there remain. [`TrainDirError::InUse`] if the lock file was removed, and another server has come.
    pub fn save(
        &self,
        layout: &Layout,
        state: &TrainingState,
        run: &RunConfig,
    ) -> Result<PathBuf, TrainDirError> {
        self.hold_lock()?;
        let path = checkpoint::save(self.folder.through(), layout, state, run);
        let path = path.map_err(|error| self.folder.explain(error))?;
        self.note_good(&path);
        let mut num_good = 0;
        for (step, old) in self.checkpoints()? {
            if step > state.global_step {
                continue;
            }
            if num_good < self.keep_checkpoints {
                num_good += usize::from(self.is_good(&old, layout, run));
            } else {
                self.remove(&old);
            }
        }
        Ok(self.folder.shown(&path))
    }

    /// Files that are named as checkpoints, the newest first.
    fn checkpoints(&self) -> Result<Vec<(GlobalStep, PathBuf)>, CheckpointError> {
        let found = checkpoint::list(self.folder.through());
        found.map_err(|error| self.folder.explain(error))
    }

    fn looked_into(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (Stamp, bool)>> {
        let looked_into = self.looked_into.lock();
        looked_into.unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, path: &Path) {
        self.looked_into().remove(path);
        if let Err(error) = fs::remove_file(path) {
            let path = self.folder.shown(path);
            warn!(path = %path.display(), %error, "cannot remove an old checkpoint");
        }
    }

    /// A file was just written, and is on the disk.
    fn note_good(&self, path: &Path) {
        if let Ok(stamp) = Stamp::of(path) {
            self.looked_into().insert(path.to_owned(), (stamp, true));
        }
    }

    /// Whether a file can be loaded and is of this run. It is looked into once, and again when it has changed.
    fn is_good(&self, path: &Path, layout: &Layout, run: &RunConfig) -> bool {
        let Ok(stamp) = Stamp::of(path) else {
            return false;
        };
        let mut looked_into = self.looked_into();
        if let Some((before, is_good)) = looked_into.get(path)
            && *before == stamp
        {
            return *is_good;
        }
        let is_good = match checkpoint::load(path, layout) {
            Ok(loaded) => loaded.run.is_some_and(|of| of.differences(run).is_empty()),
            Err(error) => {
                let error = self.folder.explain(error);
                warn!(%error, "a checkpoint is damaged, and does not count as one that is kept");
                false
            }
        };
        looked_into.insert(path.to_owned(), (stamp, is_good));
        is_good
    }

    /// Holds the lock file, which somebody may have removed or replaced.
    fn hold_lock(&self) -> Result<(), TrainDirError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_same(&lock, &self.folder.join(LOCK_FILE)) {
            *lock = lock_file(&self.folder)?;
        }
        Ok(())
    }
}

fn in_use(folder: &Folder) -> TrainDirError {
    TrainDirError::InUse {
        path: folder.path().to_owned(),
    }
}

/// The lock file of a folder, made if it is not there, and locked.
fn lock_file(folder: &Folder) -> Result<File, TrainDirError> {
    let path = folder.join(LOCK_FILE);
    let io_error = |source| TrainDirError::Io {
        path: folder.shown(&path),
        source,
    };
    loop {
        let lock = File::create(&path).map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(folder)),
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        // It may have been removed or replaced just before it was locked.
        if is_same(&lock, &path) {
            return Ok(lock);
        }
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
    use super::*;
    use crate::fixtures::{run_config, state_at};

    fn open(path: &Path) -> TrainDir {
        TrainDir::open(path, 2, false).unwrap()
    }

    fn save(dir: &TrainDir, step: u64) -> PathBuf {
        let layout = Layout::example();
        let state = state_at(&layout, step);
        dir.save(&layout, &state, &run_config()).unwrap()
    }

    fn newest_step(dir: &TrainDir) -> u64 {
        dir.newest(&Layout::example(), None)
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
    fn nothing_but_damaged_checkpoints_is_an_error_and_not_a_new_run() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        fs::write(save(&dir, 5), "cut").unwrap();
        let error = dir
            .newest(&Layout::example(), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("model.ckpt-5.safetensors") && error.contains("--fresh"),
            "{error}"
        );
    }

    #[test]
    fn fresh_moves_the_old_run_aside() {
        let folder = tempfile::tempdir().unwrap();
        for previous in ["previous-1", "previous-2"] {
            save(&open(folder.path()), 3);
            let dir = TrainDir::open(folder.path(), 2, true).unwrap();
            assert!(dir.newest(&Layout::example(), None).unwrap().is_none());
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
        assert!(checkpoint::load(&replaced, &Layout::example()).is_ok());
        assert_eq!(steps_in(folder.path()), [1001, 1000, 11]);
    }

    fn steps_in(folder: &Path) -> Vec<u64> {
        let steps = checkpoint::list(folder).unwrap();
        steps.iter().map(|(step, _)| step.0).collect()
    }

    #[test]
    fn a_checkpoint_that_is_damaged_while_the_server_runs_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        save(&dir, 5);
        fs::write(save(&dir, 6), "cut").unwrap();
        save(&dir, 7);
        assert_eq!(steps_in(folder.path()), [7, 6, 5]);
        fs::write(save(&dir, 8), "cut").unwrap();
        save(&dir, 9);
        assert_eq!(steps_in(folder.path()), [9, 8, 7], "two can be loaded");
    }

    #[test]
    fn a_checkpoint_of_another_run_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        save(&dir, 5);
        let layout = Layout::example();
        let state = state_at(&layout, 6);
        let other_run = RunConfig {
            seed: 2,
            ..run_config()
        };
        checkpoint::save(folder.path(), &layout, &state, &other_run).unwrap();
        save(&dir, 7);
        assert_eq!(steps_in(folder.path()), [7, 6, 5]);
    }

    #[test]
    fn checkpoints_go_where_the_folder_goes() {
        let parent = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| parent.path().join(name));
        let dir = open(&a);
        save(&dir, 5);
        fs::rename(&a, &b).unwrap();
        let other = open(&a);
        save(&other, 1);
        save(&dir, 6);
        save(&dir, 7);
        assert_eq!(steps_in(&a), [1]);
        assert_eq!(steps_in(&b), [7, 6]);
        assert_eq!(newest_step(&dir), 7);
    }

    #[test]
    fn a_second_server_is_refused_though_the_lock_file_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path());
        fs::remove_file(folder.path().join(LOCK_FILE)).unwrap();
        let error = TrainDir::open(folder.path(), 2, false).unwrap_err();
        assert!(matches!(error, TrainDirError::InUse { .. }), "{error}");
        save(&first, 5);
        assert!(folder.path().join(LOCK_FILE).exists(), "it is held again");
    }

    /// Where folders cannot be locked another server can come in; this one sees it before it writes.
    #[test]
    fn a_server_whose_lock_another_one_has_writes_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let dir = open(folder.path());
        let path = folder.path().join(LOCK_FILE);
        fs::remove_file(&path).unwrap();
        let of_another = File::create(&path).unwrap();
        of_another.lock().unwrap();
        let layout = Layout::example();
        let error = dir.save(&layout, &state_at(&layout, 0), &run_config());
        let error = error.unwrap_err();
        assert!(matches!(error, TrainDirError::InUse { .. }), "{error}");
        assert_eq!(steps_in(folder.path()), [0; 0]);
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
