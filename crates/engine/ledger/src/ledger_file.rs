//! The file of a ledger, as the server writes it: lines are appended, never changed.

use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use pserver_run::{GlobalStep, StateDigest};
use pserver_state::AboutPath;

use crate::backwards::Backwards;
use crate::damage::Damage;
use crate::record::{Line, Record};

/// Name of the ledger in a train dir.
pub const LEDGER_FILE: &str = "ledger";

/// A ledger that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No line that can be read says how the run is configured.
    #[error("{path} tells of no start of a server: {}", damage.in_short())]
    NoStart {
        /// The file.
        path: PathBuf,
        /// The lines in it.
        damage: Damage,
    },
    /// There is no record in it.
    #[error("{path} holds no record: no server has written to it yet")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl LedgerError {
    /// What happened when a ledger was read.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| LedgerError::Read { path, source }
    }

    /// What happened when a ledger was written.
    fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| LedgerError::Write { path, source }
    }
}

impl AboutPath for LedgerError {
    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            LedgerError::Read { path, .. }
            | LedgerError::Write { path, .. }
            | LedgerError::NoStart { path, .. }
            | LedgerError::Empty { path } => path,
        }
    }
}

/// The state that a ledger ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its step.
    pub global_step: GlobalStep,
    /// Its digest.
    pub digest: StateDigest,
}

impl Head {
    /// The state after a record, if the record tells of one.
    pub(crate) fn after(record: &Record) -> Option<Head> {
        let (global_step, digest) = match record {
            Record::Start(start) => (start.global_step, start.digest),
            Record::Rewind(rewind) => (rewind.to, rewind.digest),
            Record::Commit(commit) => (commit.global_step.next(), commit.digest),
            _ => return None,
        };
        Some(Head {
            global_step,
            digest,
        })
    }
}

/// A number that tells the ledger in a file from any other: it follows from how the ledger begins, with the
/// moment of its first record.
///
/// # Errors
///
/// If the file cannot be read.
pub fn number_of(file: &File) -> io::Result<u64> {
    const BEGINNING_BYTES: u64 = 64;
    let mut beginning = Vec::new();
    file.take(BEGINNING_BYTES).read_to_end(&mut beginning)?;
    let mut hash = DefaultHasher::new();
    beginning.hash(&mut hash);
    Ok(hash.finish())
}

/// A ledger, open for appending. One server writes to it at a time.
#[derive(Debug)]
pub struct LedgerFile {
    file: File,
    path: PathBuf,
    last_micros: u64,
    /// The line that is being written.
    text: Vec<u8>,
}

impl LedgerFile {
    /// Opens the ledger at `path`, which is made if it is not there, and says what it ends with.
    ///
    /// A last line that was cut short by a kill is removed.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Read`] or [`LedgerError::Write`] if the file or its folder cannot be used.
    pub fn open(path: &Path) -> Result<(Self, Option<Head>), LedgerError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let file = options.open(path).map_err(LedgerError::writing(path))?;
        let (last_micros, head) = cut_and_find_end(&file).map_err(LedgerError::reading(path))?;
        let ledger = LedgerFile {
            file,
            path: path.to_owned(),
            last_micros: last_micros.unwrap_or(0),
            text: Vec::new(),
        };
        Ok((ledger, head))
    }

    /// The same file, called `path` in errors.
    #[must_use]
    pub fn called(self, path: PathBuf) -> Self {
        LedgerFile { path, ..self }
    }

    /// When its last line was written before it was opened, in microseconds since 1970; 0 if it had none.
    #[must_use]
    pub fn last_micros(&self) -> u64 {
        self.last_micros
    }

    /// Appends a record: one write, so that a kill leaves at most a last line that is cut short.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Write`], of which nothing is left in the file.
    ///
    /// # Panics
    ///
    /// Never: a record has no map with keys that JSON lacks.
    pub fn append(&mut self, line: &Line) -> Result<(), LedgerError> {
        self.text.clear();
        serde_json::to_writer(&mut self.text, line).expect("a record is numbers and names");
        self.text.push(b'\n');
        self.write().map_err(LedgerError::writing(&self.path))
    }

    fn write(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        self.file.write_all(&self.text).inspect_err(|_| {
            // Half a line in the middle would make the rest unreadable.
            let _ = self.file.set_len(length);
        })
    }
}

/// Removes a last line without an end, and finds when the last of the others was written, in microseconds since
/// 1970, and the state that they tell of last.
fn cut_and_find_end(file: &File) -> io::Result<(Option<u64>, Option<Head>)> {
    let mut lines = Backwards::new(file)?;
    let cut = lines.next_line()?.unwrap_or_default();
    file.set_len(file.metadata()?.len() - cut.len() as u64)?;
    let mut last_micros = None;
    while let Some(text) = lines.next_line()? {
        let Ok(line) = serde_json::from_slice::<Line>(&text) else {
            continue;
        };
        last_micros.get_or_insert(line.at_micros);
        let head = Head::after(&line.record);
        if head.is_some() {
            return Ok((last_micros, head));
        }
    }
    Ok((last_micros, None))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::backwards::PIECE_BYTES;
    use crate::fixtures::{append, committed, digest_at, new_ledger, rewound, started};

    fn head_at(step: u64) -> Option<Head> {
        Some(Head {
            global_step: GlobalStep(step),
            digest: digest_at(step),
        })
    }

    fn head_of(path: &Path) -> Option<Head> {
        LedgerFile::open(path).unwrap().1
    }

    #[test]
    fn a_ledger_ends_with_its_last_state() {
        let (_dir, path) = new_ledger();
        assert_eq!(head_of(&path), None);
        append(&path, [started(0)]);
        assert_eq!(head_of(&path), head_at(0));
        append(
            &path,
            [committed(0), committed(1), Record::Left { worker: 1 }],
        );
        assert_eq!(head_of(&path), head_at(2));
        append(&path, [rewound(1)]);
        assert_eq!(head_of(&path), head_at(1));
    }

    #[test]
    fn the_last_state_is_found_however_much_comes_after_it() {
        let (_dir, path) = new_ledger();
        append(&path, [committed(3)]);
        append(&path, (0..4000).map(|worker| Record::Left { worker }));
        assert!(fs::metadata(&path).unwrap().len() > 2 * PIECE_BYTES);
        assert_eq!(head_of(&path), head_at(4));
    }

    #[test]
    fn a_ledger_knows_when_its_last_line_was_written() {
        let (_dir, path) = new_ledger();
        let last_micros = || LedgerFile::open(&path).unwrap().0.last_micros();
        assert_eq!(last_micros(), 0);
        append(&path, [committed(3), Record::Left { worker: 1 }]);
        assert_eq!(last_micros(), 1_700_000_001_000_000);
    }

    proptest! {
        #[test]
        fn a_ledger_that_was_cut_anywhere_goes_on_with_whole_lines(cut in 0_usize..2000) {
            let (_dir, path) = new_ledger();
            append(&path, (0..3).map(committed));
            let text = fs::read(&path).unwrap();
            let cut = cut.min(text.len());
            fs::write(&path, &text[..cut]).unwrap();

            let head = head_of(&path);
            let whole = text[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
            prop_assert_eq!(head, (whole > 0).then(|| head_at(whole).unwrap()));
            append(&path, [committed(whole)]);
            let lines = fs::read_to_string(&path).unwrap();
            prop_assert_eq!(lines.lines().count() as u64, whole + 1);
            for line in lines.lines() {
                serde_json::from_str::<Line>(line).unwrap();
            }
        }
    }
}
