//! What followers get of the train dir, and what of theirs is kept there: checkpoints and scores.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use cifar_ledger::{EvalDir, EvalDirError, ScoreRecord};
use cifar_params::{Score, checkpoint};
use cifar_sequence::{DataSet, GlobalStep};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::recorder::Calendar;

/// Checkpoints that are being sent at a time: each is in memory until its last byte is gone.
const MAX_SENDING: usize = 8;

/// The files of a train dir that followers have to do with.
pub struct FollowerFiles {
    train_dir: PathBuf,
    calendar: Calendar,
    sending: Arc<Semaphore>,
    /// The eval dir, and the score that was kept last, which is not kept twice.
    scores: Mutex<(EvalDir, Option<Score>)>,
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
        FollowerFiles {
            train_dir: train_dir.to_owned(),
            calendar,
            sending: Arc::new(Semaphore::new(MAX_SENDING)),
            scores: Mutex::new((EvalDir::of_train_dir(train_dir), None)),
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
        let (eval_dir, last) = &mut *scores;
        if last.as_ref() == Some(&score) {
            return Ok(None);
        }
        let record = ScoreRecord {
            at_micros: self.calendar.micros(now),
            checkpoint: checkpoint::name_of(score.global_step),
            data,
            score,
        };
        eval_dir.keep(&record)?;
        *last = Some(record.score.clone());
        Ok(Some(record))
    }
}
