//! The eval dir: what is kept of the scores of a run. By default it is `TRAIN_DIR/eval`.
//!
//! `scores.jsonl` has a line for each score, `confusion.svg` shows the newest one, and event files hold
//! them for TensorBoard, under the tutorial's tag. The owner of the folder writes: the server, where
//! evaluators report to it, or else the evaluator.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pserver_events::{EventFile, EventFileError, Summary};
use pserver_state::AboutPath;

use crate::confusion_chart::confusion_chart;
use crate::score_record::ScoreRecord;

/// Name of the eval dir in a train dir.
pub const EVAL_DIR: &str = "eval";

/// Name of the file of scores in an eval dir.
pub const SCORES_FILE: &str = "scores.jsonl";

/// Name of the picture of the newest score in an eval dir.
pub const CHART_FILE: &str = "confusion.svg";

/// Tag of a score in TensorBoard: the tutorial's.
pub const PRECISION_TAG: &str = "Precision @ 1";

/// A folder that scores are kept in; it is made when there is one to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalDir {
    path: PathBuf,
}

/// Keeps scores in an eval dir.
#[derive(Debug)]
pub struct EvalWriter {
    path: PathBuf,
    host: String,
    /// Opened for the first score.
    events: Option<EventFile>,
    /// The scores in the file, once they have been read: nobody else writes there.
    kept: Option<Vec<ScoreRecord>>,
}

/// A score that cannot be kept, or a file of scores that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvalDirError {
    /// It cannot be written.
    #[error("cannot keep a score in {path}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An event file cannot be written.
    #[error(transparent)]
    Events(#[from] EventFileError),
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl AboutPath for EvalDirError {
    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            EvalDirError::Write { path, .. } | EvalDirError::Read { path, .. } => path,
            EvalDirError::Events(error) => &mut error.path,
        }
    }
}

impl EvalDir {
    /// The folder at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        EvalDir {
            path: path.to_owned(),
        }
    }

    /// That of a train dir.
    #[must_use]
    pub fn of_train_dir(train_dir: &Path) -> Self {
        EvalDir::new(&train_dir.join(EVAL_DIR))
    }

    /// Keeps scores in it. Event files have `host`, this machine's name, in theirs.
    #[must_use]
    pub fn writer(self, host: &str) -> EvalWriter {
        EvalWriter {
            path: self.path,
            host: host.to_owned(),
            events: None,
            kept: None,
        }
    }

    /// Its scores in the order in which they were made.
    ///
    /// # Errors
    ///
    /// As [`read_scores`].
    pub fn scores(&self) -> Result<Vec<ScoreRecord>, EvalDirError> {
        read_scores(&self.path.join(SCORES_FILE))
    }
}

impl EvalWriter {
    /// Keeps a score, unless the same of the same checkpoint is kept already; whether it is new.
    ///
    /// # Errors
    ///
    /// [`EvalDirError`] if the folder cannot be written or the disk is full.
    pub fn keep(&mut self, record: &ScoreRecord) -> Result<bool, EvalDirError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| EvalDirError::Write { path, source }
        };
        if self.kept()?.iter().any(|kept| kept.is_same(record)) {
            return Ok(false);
        }
        fs::create_dir_all(&self.path).map_err(error(&self.path))?;
        let chart = self.path.join(CHART_FILE);
        replace(&chart, &confusion_chart(record)).map_err(error(&chart))?;
        self.write_event(record)?;
        // The last: with this line the score is kept, and all of it is there.
        let scores = self.path.join(SCORES_FILE);
        append(&scores, &record.to_line()).map_err(error(&scores))?;
        self.kept.get_or_insert_default().push(record.clone());
        Ok(true)
    }

    /// How many scores of a checkpoint are kept.
    ///
    /// # Errors
    ///
    /// As [`read_scores`].
    pub fn num_scores_of(&mut self, checkpoint: &str) -> Result<usize, EvalDirError> {
        let kept = self.kept()?.iter();
        Ok(kept.filter(|kept| kept.checkpoint == checkpoint).count())
    }

    fn kept(&mut self) -> Result<&[ScoreRecord], EvalDirError> {
        if self.kept.is_none() {
            self.kept = Some(read_scores(&self.path.join(SCORES_FILE))?);
        }
        Ok(self.kept.get_or_insert_default())
    }

    fn write_event(&mut self, record: &ScoreRecord) -> Result<(), EventFileError> {
        let now = Duration::from_micros(record.at_micros);
        let step = record.score.global_step.0;
        let mut events = match self.events.take() {
            Some(events) => events,
            None => EventFile::create(&self.path, now, &self.host)?,
        };
        let mut summary = Summary::default();
        summary.scalar(
            PRECISION_TAG,
            record.score.confusion.precision_at_1() as f32,
        );
        // One that could not be written whole is of no more use.
        events.write(now, step, summary)?;
        self.events = Some(events);
        Ok(())
    }
}

/// The scores in a file, in the order in which they were made; none if it is not there. Lines that are
/// cut short or of another release are passed over.
///
/// # Errors
///
/// [`EvalDirError::Read`] if the file cannot be read.
pub fn read_scores(path: &Path) -> Result<Vec<ScoreRecord>, EvalDirError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(EvalDirError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

/// Appends a line in one write. What a kill cut short before it becomes a line of its own; what
/// cannot be written whole is taken back.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    let mut text = String::new();
    if length > 0 && last_byte(&mut file)? != b'\n' {
        text.push('\n');
    }
    text.push_str(line);
    file.write_all(text.as_bytes()).inspect_err(|_| {
        let _ = file.set_len(length);
    })
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Writes a file beside its name and renames it when it is whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".eval-")
        // What the umask leaves of it: others may be meant to read it.
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score_record::example;

    #[test]
    fn scores_are_kept_in_order_and_the_newest_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let eval_dir = EvalDir::of_train_dir(folder.path());
        assert_eq!(eval_dir.scores().unwrap(), []);
        let mut writer = eval_dir.clone().writer("node7");
        assert!(writer.keep(&example(5)).unwrap());
        assert!(writer.keep(&example(10)).unwrap());
        let later = ScoreRecord {
            at_micros: 1_800_000_000_000_000,
            ..example(5)
        };
        assert!(!writer.keep(&later).unwrap(), "it is kept already");
        assert_eq!(eval_dir.scores().unwrap(), [example(5), example(10)]);
        let names = fs::read_dir(folder.path().join("eval")).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let events = "events.out.tfevents.1700000000.node7";
        assert_eq!(names, [CHART_FILE, events, SCORES_FILE]);
        let events = fs::read(folder.path().join("eval").join(events)).unwrap();
        let tag = PRECISION_TAG.as_bytes();
        let tags = events.windows(tag.len()).filter(|bytes| *bytes == tag);
        assert_eq!(tags.count(), 2);
        let chart = fs::read_to_string(folder.path().join("eval/confusion.svg")).unwrap();
        assert!(chart.contains("step 10"), "{chart}");
    }

    #[test]
    fn a_line_that_a_kill_cut_short_costs_no_other_line() {
        let folder = tempfile::tempdir().unwrap();
        let eval_dir = EvalDir::new(folder.path());
        let mut writer = eval_dir.clone().writer("node7");
        writer.keep(&example(5)).unwrap();
        let scores = folder.path().join(SCORES_FILE);
        let whole = fs::read(&scores).unwrap();
        fs::write(&scores, [&whole[..], &whole[..100]].concat()).unwrap();
        writer.keep(&example(10)).unwrap();
        assert_eq!(eval_dir.scores().unwrap(), [example(5), example(10)]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let error = EvalDir::new(&file.join("eval"))
            .writer("node7")
            .keep(&example(5));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("file/eval"), "{error}");
    }
}
