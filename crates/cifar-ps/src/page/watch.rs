//! Follows a train dir: its ledger, its scores, its pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use cifar_ledger::LedgerTail;
use cifar_ledger::eval_dir::{EVAL_DIR, SCORES_FILE};
use cifar_ledger::ledger_file::LEDGER_FILE;
use cifar_params::checkpoint;
use cifar_sequence::GlobalStep;
use cifar_view::{Cursor, RunView};
use serde::Serialize;

use crate::page::Source;
use crate::page::live::Live;
use crate::page::metrics::StepTimes;
use crate::page::pictures::{NUM_SAMPLES, sample_path};
use crate::update::micros;

/// Of a longer file of scores, the first lines are not read.
const MAX_SCORE_BYTES: usize = 4 * 1024 * 1024;

/// The files besides the ledger are looked at once in so many looks.
const LOOKS_PER_FILES: u64 = 2;

/// Whether there is more to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasMore(bool);

/// A train dir as it was at the last look.
#[derive(Debug)]
pub struct Watch {
    ledger: LedgerTail,
    scores: Stamp,
    view: RunView,
    step_times: StepTimes,
    live: Option<Live>,
    files: Files,
    /// Counts the runs that the train dir held, one after the other.
    run: u64,
    /// Why nothing more can be read.
    problem: Option<String>,
    /// Bytes of the ledger that were read, and that there are, until it was read to its end.
    reading: Option<(u64, u64)>,
    num_looks: u64,
    version: u64,
}

/// A file's time of change, in microseconds since 1970, and its length.
type Stamp = Option<(u64, u64)>;

/// The files of a run that are pictures, or become one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Files {
    samples: [Stamp; NUM_SAMPLES],
    checkpoint: Option<(GlobalStep, PathBuf, Stamp)>,
}

/// How far a page has seen a train dir.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageCursor {
    run: u64,
    view: Cursor,
}

/// What a page is told.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    /// The moment, in microseconds since 1970.
    pub now_micros: u64,
    /// Whether the server leaves, and nothing more will come from it.
    pub is_last: bool,
    /// Why nothing more can be told.
    pub problem: Option<&'a str>,
    /// The part of the ledger that was read, until it was read to its end.
    pub reading: Option<f64>,
    /// What the ledger tells.
    pub view: cifar_view::Update<'a>,
    /// What the running server tells.
    pub live: Option<&'a Live>,
    /// For each sample image that is there its time, which changes with it.
    pub samples: [Option<u64>; NUM_SAMPLES],
    /// Step of the checkpoint whose filters can be seen.
    pub filters: Option<u64>,
}

impl Watch {
    /// There is more to be read at once.
    pub const MORE: HasMore = HasMore(true);

    /// The train dir of a source, of which nothing was read yet.
    #[must_use]
    pub fn new(train_dir: &Path) -> Self {
        Watch {
            ledger: LedgerTail::new(&train_dir.join(LEDGER_FILE)),
            scores: None,
            view: RunView::default(),
            step_times: StepTimes::default(),
            live: None,
            files: Files::default(),
            run: 0,
            problem: None,
            reading: Some((0, 1)),
            num_looks: 0,
            version: 0,
        }
    }

    /// Looks for what is new.
    pub fn look(&mut self, source: &Source) -> HasMore {
        let has_more = self.look_at_ledger();
        if has_more != Watch::MORE && self.num_looks.is_multiple_of(LOOKS_PER_FILES) {
            self.look_at_files(&source.train_dir);
        }
        self.num_looks += u64::from(has_more != Watch::MORE);
        let live = source.status.as_ref().map(|status| Live::of(&status()));
        if live != self.live {
            self.live = live;
            self.version += 1;
        }
        has_more
    }

    fn look_at_ledger(&mut self) -> HasMore {
        let news = match self.ledger.look() {
            Ok(news) => news,
            Err(error) => {
                let problem = format!("{:#}", anyhow::Error::new(error));
                if self.problem.as_ref() != Some(&problem) {
                    self.problem = Some(problem);
                    self.version += 1;
                }
                return HasMore(false);
            }
        };
        if news.begins_anew {
            self.begin_anew();
        }
        for line in &news.lines {
            self.view.add(line);
            self.step_times.add(&line.record);
        }
        let reading = news.has_more().then_some(news.read_bytes);
        if !news.lines.is_empty() || self.reading != reading || self.problem.is_some() {
            self.version += 1;
        }
        self.problem = None;
        // Once it was read to its end, it is only followed.
        self.reading = self.reading.and(reading);
        HasMore(news.has_more())
    }

    /// The train dir holds another run now.
    fn begin_anew(&mut self) {
        self.view = RunView::default();
        self.step_times = StepTimes::default();
        self.scores = None;
        self.run += 1;
    }

    fn look_at_files(&mut self, train_dir: &Path) {
        let path = train_dir.join(EVAL_DIR).join(SCORES_FILE);
        let scores = stamp_of(&path);
        if scores != self.scores {
            self.scores = scores;
            self.read_scores(&path);
        }
        let mut samples = [None; NUM_SAMPLES];
        for (number, sample) in samples.iter_mut().enumerate() {
            *sample = stamp_of(&sample_path(train_dir, number));
        }
        let newest = checkpoint::list(train_dir).ok();
        let newest = newest.and_then(|list| list.into_iter().next());
        let checkpoint = newest.map(|(step, path)| {
            let stamp = stamp_of(&path);
            (step, path, stamp)
        });
        let files = Files {
            samples,
            checkpoint,
        };
        if files != self.files {
            self.files = files;
            self.version += 1;
        }
    }

    /// A file of scores that cannot be read is looked at again when it has changed.
    fn read_scores(&mut self, path: &Path) {
        let Ok(text) = fs::read(path) else { return };
        let begin = text.len().saturating_sub(MAX_SCORE_BYTES);
        for line in String::from_utf8_lossy(&text[begin..]).lines() {
            self.view.add_score_line(line);
        }
        self.version += 1;
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the ledger tells.
    #[must_use]
    pub fn view(&self) -> &RunView {
        &self.view
    }

    /// The times of all steps.
    #[must_use]
    pub fn step_times(&self) -> &StepTimes {
        &self.step_times
    }

    /// What the running server tells.
    #[must_use]
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// Why nothing more can be read, if so.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether the ledger was read to its end.
    #[must_use]
    pub fn has_read_all(&self) -> bool {
        self.reading.is_none()
    }

    /// The newest checkpoint: its file, and when it was written, in microseconds since 1970.
    #[must_use]
    pub fn checkpoint(&self) -> Option<(GlobalStep, &Path, u64)> {
        let (step, path, stamp) = self.files.checkpoint.as_ref()?;
        Some((*step, path, (*stamp)?.0))
    }

    /// What a page has not been told yet.
    pub fn message(&self, cursor: &mut PageCursor, now_micros: u64, is_last: bool) -> Message<'_> {
        if cursor.run != self.run {
            *cursor = PageCursor {
                run: self.run,
                view: Cursor::default(),
            };
        }
        let reading = self.reading;
        Message {
            now_micros,
            is_last,
            problem: self.problem(),
            reading: reading.map(|(read, length)| read as f64 / length.max(1) as f64),
            view: self.view.since(&mut cursor.view),
            live: self.live(),
            samples: self.files.samples.map(|stamp| stamp.map(|(at, _)| at)),
            filters: self.checkpoint().map(|(step, ..)| step.0),
        }
    }
}

fn stamp_of(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?;
    let since_1970 = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some((micros(since_1970), metadata.len()))
}
