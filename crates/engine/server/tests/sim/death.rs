//! The death of a server at an exact moment of its work, and what its disk then held.
//!
//! A simulated host can only be stopped between its turns. So the moment is made to count instead:
//! the files are copied as they are at that instant, from then on no socket of the server works, the
//! simulation stops the host when its turn is over, and the copy is put back before the next start.
//! Whatever the dead server still did is as if it had never been.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One life of the server: from a start to the death after it.
#[derive(Debug)]
pub(crate) struct Life {
    train_dir: PathBuf,
    over: AtomicBool,
    doom: Mutex<Doom>,
}

#[derive(Debug, Default)]
struct Doom {
    /// Moments that are left.
    countdown: Option<u32>,
    /// The files at the moment of death, by name.
    files: Option<Vec<(PathBuf, Vec<u8>)>>,
}

impl Life {
    pub(crate) fn new(train_dir: &Path) -> Self {
        Life {
            train_dir: train_dir.to_owned(),
            over: AtomicBool::new(false),
            doom: Mutex::default(),
        }
    }

    /// The server is to die at the `countdown`th moment from now.
    pub(crate) fn doom(&self, countdown: u32) {
        self.lock().countdown.get_or_insert(countdown);
    }

    /// The server is not to die any more.
    pub(crate) fn spare(&self) {
        self.lock().countdown = None;
    }

    /// The server is killed between two of its turns.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// A moment at which the server may die.
    pub(crate) fn moment(&self) {
        if self.is_over() {
            return;
        }
        let mut doom = self.lock();
        match &mut doom.countdown {
            None => {}
            Some(0) => {
                doom.files = Some(read_all(&self.train_dir).expect("the train dir can be read"));
                self.end();
            }
            Some(left) => *left -= 1,
        }
    }

    /// Whether the server is dead.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Puts the files back as they were when the server died.
    pub(crate) fn restore_files(&self) -> io::Result<()> {
        let Some(files) = self.lock().files.take() else {
            return Ok(());
        };
        for path in files_in(&self.train_dir)? {
            fs::remove_file(path)?;
        }
        files
            .iter()
            .try_for_each(|(path, bytes)| fs::write(path, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, Doom> {
        self.doom.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_all(dir: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let files = files_in(dir)?.into_iter();
    files
        .map(|path| fs::read(&path).map(|bytes| (path, bytes)))
        .collect()
}

/// The run's own. What is in folders, the scores, may be kept or not where a server dies.
fn files_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
    let paths: io::Result<Vec<PathBuf>> = paths.collect();
    Ok(paths?.into_iter().filter(|path| path.is_file()).collect())
}
