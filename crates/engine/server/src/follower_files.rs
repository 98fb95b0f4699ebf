//! What followers get of the train dir, and what of theirs is kept there: checkpoints, the ledger, scores.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use pserver_cli::host::host_name;
use pserver_ledger::ledger_file::{LEDGER_FILE, number_of};
use pserver_ledger::{EvalDir, EvalDirError, EvalWriter, ScoreRecord};
use pserver_run::{DataSet, GlobalStep, Score};
use pserver_state::{Folder, checkpoint};
use pserver_wire::messages::{LedgerPart, LedgerPosition};
use pserver_wire::transport::PART_BYTES;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::calendar::Calendar;

/// Checkpoints that are being sent at a time: each is in memory until its last byte is gone.
const MAX_SENDING: usize = 8;

/// Scores of one checkpoint that are kept: of both splits, by variables and averages, several times over.
pub const MAX_SCORES_OF_CHECKPOINT: usize = 16;

/// The files of a train dir that followers have to do with.
#[derive(Debug)]
pub struct FollowerFiles {
    folder: Folder,
    calendar: Calendar,
    sending: Arc<Semaphore>,
    /// Checkpoints that there are, or were since this server started: what can be scored.
    checkpoints: Mutex<BTreeSet<GlobalStep>>,
    /// One is written at a time, on a thread that may wait for the disk.
    scores: Arc<tokio::sync::Mutex<EvalWriter>>,
}

/// Whether a score is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is kept.
    Now,
    /// It was kept before.
    Already,
    /// It is not, and why.
    NotWanted(&'static str),
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

impl FollowerFiles {
    /// Those of a train dir. Dates of scores are taken from `calendar`.
    #[must_use]
    pub fn new(folder: &Folder, calendar: Calendar) -> Self {
        let eval_dir = EvalDir::of_train_dir(folder.through());
        // A folder that cannot be listed holds none.
        let checkpoints = checkpoint::list(folder.through()).into_iter().flatten();
        FollowerFiles {
            folder: folder.clone(),
            calendar,
            sending: Arc::new(Semaphore::new(MAX_SENDING)),
            checkpoints: Mutex::new(checkpoints.map(|(step, _)| step).collect()),
            scores: Arc::new(tokio::sync::Mutex::new(eval_dir.writer(&host_name()))),
        }
    }

    /// A checkpoint of this step was written.
    pub fn checkpoint_is_there(&self, global_step: GlobalStep) {
        self.checkpoints().insert(global_step);
    }

    fn checkpoints(&self) -> MutexGuard<'_, BTreeSet<GlobalStep>> {
        let checkpoints = self.checkpoints.lock();
        checkpoints.unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of the checkpoint of a step.
    ///
    /// # Errors
    ///
    /// If so many are on their way already, or it cannot be read: a newer one may have taken its place.
    pub async fn checkpoint(&self, global_step: GlobalStep) -> anyhow::Result<Bytes> {
        let Ok(_permit) = Arc::clone(&self.sending).try_acquire_owned() else {
            bail!("{MAX_SENDING} checkpoints are being fetched already");
        };
        let path = checkpoint::path_of(self.folder.through(), global_step);
        let shown = self.folder.shown(&path);
        let bytes = waiting_for_disk(move || fs::read(path)).await;
        let bytes = bytes.with_context(|| format!("cannot read {}", shown.display()))?;
        Ok(Bytes::from_owner(Sending { bytes, _permit }))
    }

    /// What there is of the ledger from a place on, at most as much as a message takes; from its
    /// beginning if the place is in another ledger.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub async fn ledger(&self, from: LedgerPosition) -> io::Result<LedgerPart> {
        let path = self.folder.join(LEDGER_FILE);
        waiting_for_disk(move || ledger_part(&path, from)).await
    }

    /// Keeps a score that was told at `now`, if it is of a checkpoint of this run, new, and not one of too many:
    /// so what is kept is bounded by the checkpoints, whatever is told.
    ///
    /// # Errors
    ///
    /// [`EvalDirError`] if it cannot be written.
    pub async fn keep_score(
        &self,
        now: Instant,
        data: DataSet,
        score: Score,
    ) -> Result<Kept, EvalDirError> {
        if !self.checkpoints().contains(&score.global_step) {
            return Ok(Kept::NotWanted("there is no checkpoint of this step"));
        }
        let mut scores = Arc::clone(&self.scores).lock_owned().await;
        let record = ScoreRecord {
            at_micros: self.calendar.micros(now),
            checkpoint: checkpoint::name_of(score.global_step),
            data,
            score,
        };
        let keep = move || {
            if scores.num_scores_of(&record.checkpoint)? >= MAX_SCORES_OF_CHECKPOINT {
                return Ok(Kept::NotWanted("there are many of this checkpoint"));
            }
            Ok(match scores.keep(&record)? {
                true => Kept::Now,
                false => Kept::Already,
            })
        };
        let kept = waiting_for_disk(keep).await;
        kept.map_err(|error| self.folder.explain(error))
    }
}

/// Does what may wait for the disk on a thread that may, and not on one that answers. A runtime of one thread is a
/// simulation's: there it is done at once, so that no other thread decides what comes first.
async fn waiting_for_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The server ends, and nobody waits for the answer.
        Err(_) => std::future::pending().await,
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
    use super::*;
    use crate::fixtures::{calendar, score};

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

    /// Scores of the checkpoints of steps 10 and 20.
    struct Scores {
        folder: tempfile::TempDir,
        calendar: Calendar,
    }

    impl Scores {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for step in [10, 20] {
                fs::write(checkpoint::path_of(folder.path(), GlobalStep(step)), "").unwrap();
            }
            Scores {
                folder,
                calendar: calendar(1_700_000_000),
            }
        }

        fn files(&self) -> FollowerFiles {
            FollowerFiles::new(&Folder::open(self.folder.path()).unwrap(), self.calendar)
        }

        /// Tells a score of so many examples; whether it is new.
        async fn tell(&self, files: &FollowerFiles, step: u64, num_examples: u32) -> bool {
            let score = score(step, num_examples);
            let now = self.calendar.moment;
            let kept = files.keep_score(now, DataSet::Cifar10, score).await;
            kept.unwrap() == Kept::Now
        }
    }

    #[tokio::test]
    async fn a_score_that_the_server_before_kept_is_not_kept_again() {
        let scores = Scores::new();
        let before = scores.files();
        assert!(scores.tell(&before, 10, 1).await && !scores.tell(&before, 10, 1).await);
        let after = scores.files();
        assert!(!scores.tell(&after, 10, 1).await && scores.tell(&after, 20, 1).await);
    }

    #[tokio::test]
    async fn scores_that_are_made_up_fill_no_disk() {
        let scores = Scores::new();
        let files = scores.files();
        let mut num_kept = 0;
        for num_examples in 1..100 {
            for step in [10, 11, 20, 1_000_000] {
                num_kept += usize::from(scores.tell(&files, step, num_examples).await);
            }
        }
        assert_eq!(num_kept, 2 * MAX_SCORES_OF_CHECKPOINT);
        files.checkpoint_is_there(GlobalStep(30));
        assert!(scores.tell(&files, 30, 1).await);
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
