//! What followers get of the train dir, and what of theirs is kept there: checkpoints, the ledger, scores.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use cifar_cli::host::host_name;
use cifar_ledger::ledger_file::{LEDGER_FILE, number_of};
use cifar_ledger::{EvalDir, EvalDirError, EvalWriter, ScoreRecord};
use cifar_params::{Score, checkpoint};
use cifar_sequence::{DataSet, GlobalStep};
use cifar_wire::messages::{LedgerPart, LedgerPosition};
use cifar_wire::transport::PART_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::recorder::Calendar;

/// Checkpoints that are being sent at a time: each is in memory until its last byte is gone.
const MAX_SENDING: usize = 8;

/// The files of a train dir that followers have to do with.
pub struct FollowerFiles {
    train_dir: PathBuf,
    calendar: Calendar,
    sending: Arc<Semaphore>,
    scores: Mutex<EvalWriter>,
}

impl fmt::Debug for FollowerFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowerFiles")
            .field("train_dir", &self.train_dir)
            .finish_non_exhaustive()
    }
}

/// A file in memory, and the leave to have it there.
struct Sending {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a checkpoint cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// So many are on their way already.
    #[error("{MAX_SENDING} checkpoints are being fetched already")]
    TooMany,
    /// It cannot be read. A newer one may have taken its place.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FollowerFiles {
    /// Those of `train_dir`. Dates of scores are taken from `calendar`.
    #[must_use]
    pub fn new(train_dir: &Path, calendar: Calendar) -> Self {
        let eval_dir = EvalDir::of_train_dir(train_dir);
        FollowerFiles {
            train_dir: train_dir.to_owned(),
            calendar,
            sending: Arc::new(Semaphore::new(MAX_SENDING)),
            scores: Mutex::new(eval_dir.writer(&host_name())),
        }
    }

    /// The file of the checkpoint of a step.
    ///
    /// # Errors
    ///
    /// [`NotSent`].
    pub async fn checkpoint(&self, global_step: GlobalStep) -> Result<Bytes, NotSent> {
        let permit = Arc::clone(&self.sending).try_acquire_owned();
        let _permit = permit.map_err(|_| NotSent::TooMany)?;
        let path = checkpoint::path_of(&self.train_dir, global_step);
        let of_path = path.clone();
        let read = tokio::task::spawn_blocking(move || fs::read(of_path)).await;
        match read.map_err(io::Error::other).flatten() {
            Ok(bytes) => Ok(Bytes::from_owner(Sending { bytes, _permit })),
            Err(source) => Err(NotSent::Read { path, source }),
        }
    }

    /// What there is of the ledger from a place on, at most as much as a message takes; from its
    /// beginning if the place is in another ledger.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub async fn ledger(&self, from: LedgerPosition) -> io::Result<LedgerPart> {
        let path = self.train_dir.join(LEDGER_FILE);
        let read = tokio::task::spawn_blocking(move || ledger_part(&path, from)).await;
        read.map_err(io::Error::other).flatten()
    }

    /// Keeps a score that was told at `now`, and gives its record; `None` if it was told before.
    ///
    /// # Errors
    ///
    /// [`EvalDirError`] if it cannot be written.
    pub fn keep_score(
        &self,
        now: Instant,
        data: DataSet,
        score: Score,
    ) -> Result<Option<ScoreRecord>, EvalDirError> {
        let mut scores = self.scores.lock().unwrap_or_else(PoisonError::into_inner);
        let record = ScoreRecord {
            at_micros: self.calendar.micros(now),
            checkpoint: checkpoint::name_of(score.global_step),
            data,
            score,
        };
        let is_new = scores.keep(&record)?;
        Ok(is_new.then_some(record))
    }
}

fn ledger_part(path: &Path, from: LedgerPosition) -> io::Result<LedgerPart> {
    let file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let ledger = number_of(&file)?;
    let offset = match from.ledger == Some(ledger) && from.offset <= size_bytes {
        true => from.offset,
        false => 0,
    };
    let mut bytes = Vec::new();
    (&file).seek(SeekFrom::Start(offset))?;
    (&file).take(PART_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(LedgerPart {
        ledger,
        offset,
        bytes: bytes.into(),
        size_bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cifar_params::{Confusion, EvalData, ScoredVariables};

    use super::*;
    use crate::training::fixtures::some_time;

    fn at(ledger: Option<u64>, offset: u64) -> LedgerPosition {
        LedgerPosition { ledger, offset }
    }

    #[test]
    fn a_ledger_is_read_from_where_it_was_left_and_another_one_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEDGER_FILE);
        let beginning =
            "{\"at_micros\":1700000000000000,\"record\":\"start\",\"format_version\":1}\n";
        fs::write(&path, beginning).unwrap();
        let first = ledger_part(&path, at(None, 7)).unwrap();
        assert_eq!((first.offset, &first.bytes[..]), (0, beginning.as_bytes()));
        assert!(ledger_part(&path, first.end()).unwrap().bytes.is_empty());

        fs::write(&path, format!("{beginning}more")).unwrap();
        let more = ledger_part(&path, first.end()).unwrap();
        assert_eq!((more.ledger, &more.bytes[..]), (first.ledger, &b"more"[..]));

        let other = beginning.replace('7', "8") + "its own";
        fs::write(&path, &other).unwrap();
        let part = ledger_part(&path, more.end()).unwrap();
        assert_ne!(part.ledger, first.ledger);
        assert_eq!((part.offset, &part.bytes[..]), (0, other.as_bytes()));
    }

    #[test]
    fn a_score_that_the_server_before_kept_is_not_kept_again() {
        let folder = tempfile::tempdir().unwrap();
        let now = some_time();
        let calendar = Calendar {
            moment: now,
            since_1970: Duration::from_secs(1_700_000_000),
        };
        let score = |step| {
            let mut confusion = Confusion::default();
            confusion.note(3, 3);
            Score {
                global_step: GlobalStep(step),
                eval_data: EvalData::Test,
                variables: ScoredVariables::Averages,
                confusion,
            }
        };
        let keep = |files: &FollowerFiles, step| {
            let kept = files.keep_score(now, DataSet::Cifar10, score(step));
            kept.unwrap().is_some()
        };
        let before = FollowerFiles::new(folder.path(), calendar);
        assert!(keep(&before, 10) && !keep(&before, 10));
        let after = FollowerFiles::new(folder.path(), calendar);
        assert!(!keep(&after, 10) && keep(&after, 20));
    }

    #[test]
    fn much_comes_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEDGER_FILE);
        let text = vec![b'x'; 2 * PART_BYTES + 5];
        fs::write(&path, &text).unwrap();
        let mut position = LedgerPosition::default();
        let mut sizes = Vec::new();
        while position.offset < text.len() as u64 {
            let part = ledger_part(&path, position).unwrap();
            assert_eq!(part.size_bytes, text.len() as u64);
            sizes.push(part.bytes.len());
            position = part.end();
        }
        assert_eq!(sizes, [PART_BYTES, PART_BYTES, 5]);
    }
}
