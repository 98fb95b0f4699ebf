//! What a ledger says of a run that is found beside it: which run it is of, and which states that went through.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use pserver_run::{GlobalStep, RunConfig, StateDigest};

use crate::backwards::Backwards;
use crate::ledger_file::{Head, LedgerError};
use crate::record::{Line, Record};

/// More bytes than this are no first line.
const MAX_FIRST_LINE: u64 = 1 << 16;

/// A ledger that is asked, and not written to.
#[derive(Debug)]
pub struct Witness {
    file: File,
    path: PathBuf,
    run: Option<RunConfig>,
}

impl Witness {
    /// The ledger at `path`; `None` where there is none, or nothing is in it.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Read`].
    pub fn open(path: &Path) -> Result<Option<Self>, LedgerError> {
        let open = || {
            let file = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            if file.metadata()?.len() == 0 {
                return Ok(None);
            }
            let mut first = Vec::new();
            BufReader::new(&file)
                .take(MAX_FIRST_LINE)
                .read_until(b'\n', &mut first)?;
            Ok(Some((file, run_of(&first))))
        };
        let opened = open().map_err(LedgerError::reading(path))?;
        Ok(opened.map(|(file, run)| Witness {
            file,
            path: path.to_owned(),
            run,
        }))
    }

    /// The run that it is of; `None` where its first line does not tell.
    #[must_use]
    pub fn run(&self) -> Option<&RunConfig> {
        self.run.as_ref()
    }

    /// The digest of the state at a step of the run; `None` for one that the ledger does not know: it ends
    /// before that step, or lost some lines in a power cut.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Read`].
    pub fn digest_at(&self, step: GlobalStep) -> Result<Option<StateDigest>, LedgerError> {
        self.search(step).map_err(LedgerError::reading(&self.path))
    }

    fn search(&self, step: GlobalStep) -> io::Result<Option<StateDigest>> {
        let mut lines = Backwards::new(&self.file)?;
        while let Some(line) = lines.next_line()? {
            let line = serde_json::from_slice::<Line>(&line).ok();
            let Some(head) = line.and_then(|line| Head::after(&line.record)) else {
                continue;
            };
            match head.global_step.cmp(&step) {
                Ordering::Greater => {}
                Ordering::Equal => return Ok(Some(head.digest)),
                // What comes before is a way that the run went back from.
                Ordering::Less => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn run_of(first: &[u8]) -> Option<RunConfig> {
    match serde_json::from_slice::<Line>(first).ok()?.record {
        Record::Start(start) => Some(start.run),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::backwards::PIECE_BYTES;
    use crate::fixtures::{
        commit, committed, digest_at, new_ledger, rewound, run_config, started, text,
    };

    fn digest_in(text: &str, step: u64) -> Option<StateDigest> {
        let (_dir, path) = new_ledger();
        fs::write(&path, text).unwrap();
        let witness = Witness::open(&path).unwrap().unwrap();
        assert_eq!(witness.run(), Some(&run_config()));
        witness.digest_at(GlobalStep(step)).unwrap()
    }

    #[test]
    fn a_ledger_knows_the_digest_of_every_step() {
        let mut records = vec![started(0)];
        records.extend((0..500).map(committed));
        let ledger = text(records);
        assert!(ledger.len() as u64 > 2 * PIECE_BYTES);
        for step in [0, 1, 250, 499, 500] {
            assert_eq!(digest_in(&ledger, step), Some(digest_at(step)), "{step}");
        }
        assert_eq!(digest_in(&ledger, 501), None);
        let cut = &ledger[..ledger.len() - 3];
        assert_eq!(digest_in(cut, 499), Some(digest_at(499)));
        assert_eq!(digest_in(cut, 500), None);
    }

    #[test]
    fn of_a_run_that_went_back_the_way_that_it_took_last_counts() {
        let abandoned = |step| {
            let mut commit = commit(step, &[0, 1]);
            commit.digest = StateDigest(7);
            Record::Commit(commit)
        };
        let mut records = vec![started(0)];
        records.extend((0..3).map(committed));
        records.extend([3, 4].map(abandoned));
        records.extend([rewound(3), started(3), committed(3)]);
        let ledger = text(records);
        for step in 0..=4 {
            assert_eq!(digest_in(&ledger, step), Some(digest_at(step)), "{step}");
        }
        assert_eq!(digest_in(&ledger, 5), None, "it went back from there");
    }

    #[test]
    fn steps_whose_lines_were_lost_are_not_known() {
        let mut records = vec![started(0)];
        records.extend((0..3).map(committed));
        records.push(started(9));
        let ledger = text(records);
        assert_eq!(digest_in(&ledger, 5), None);
        assert_eq!(digest_in(&ledger, 3), Some(digest_at(3)));
        assert_eq!(digest_in(&ledger, 9), Some(digest_at(9)));
    }

    #[test]
    fn no_ledger_and_an_empty_one_say_nothing() {
        let (_dir, path) = new_ledger();
        assert!(Witness::open(&path).unwrap().is_none());
        fs::write(&path, "").unwrap();
        assert!(Witness::open(&path).unwrap().is_none());
        fs::write(&path, "notes\n").unwrap();
        assert_eq!(Witness::open(&path).unwrap().unwrap().run(), None);
    }
}
