//! Follows a train dir: its ledger, its scores, its pictures.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{env, fs};

use pserver_cli::host::host_name;
use pserver_cli::shell::quoted;
use pserver_ledger::LedgerTail;
use pserver_ledger::eval_dir::{EVAL_DIR, SCORES_FILE};
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_run::GlobalStep;
use pserver_state::checkpoint;
use pserver_view::{Cursor, RunView};
use serde::Serialize;

use crate::page::Source;
use crate::page::live::Live;
use crate::page::metrics::StepTimes;
use crate::page::pictures::{Files, Filters, NUM_SAMPLES, Pictures, Stamp, sample_path};
use pserver_core::update::micros;

/// Of a longer file of scores, the first lines are not read.
const MAX_SCORE_BYTES: usize = 4 * 1024 * 1024;

/// A train dir as it was at the last look.
#[derive(Debug)]
pub(crate) struct Watch {
    train_dir: PathBuf,
    host: String,
    view_command: String,
    ledger: LedgerTail,
    scores: Stamp,
    /// What the ledger tells.
    pub(crate) view: RunView,
    /// The times of all steps.
    pub(crate) step_times: StepTimes,
    /// What the running server tells.
    pub(crate) live: Option<Live>,
    files: Files,
    pictures: Pictures,
    /// Counts the runs that the train dir held, one after the other.
    run: u64,
    /// Why nothing more can be read, if so.
    pub(crate) problem: Option<String>,
    /// Bytes of the ledger that were read, and that there are, until it was read to its end.
    reading: Option<(u64, u64)>,
    /// Grows with every change.
    pub(crate) version: u64,
}

/// How far a page has seen a train dir.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageCursor {
    run: u64,
    view: Cursor,
    /// Serial number of the newest picture.
    pictures: u64,
}

/// What a page is told.
#[derive(Debug, Serialize)]
pub(crate) struct Message<'a> {
    /// The moment, in microseconds since 1970.
    pub(crate) now_micros: u64,
    /// Whether the server leaves, and nothing more will come from it.
    pub(crate) is_last: bool,
    /// The machine that the server runs on.
    pub(crate) host: &'a str,
    /// The command that shows the run again there.
    pub(crate) view_command: &'a str,
    /// Why nothing more can be told.
    pub(crate) problem: Option<&'a str>,
    /// The part of the ledger that was read, until it was read to its end.
    pub(crate) reading: Option<f64>,
    /// What the ledger tells.
    pub(crate) view: pserver_view::Changes<'a>,
    /// What the running server tells.
    pub(crate) live: Option<&'a Live>,
    /// Sample images that are new, each as a `data:` URL.
    pub(crate) samples: [Option<&'a str>; NUM_SAMPLES],
    /// The filters of the newest checkpoint, if they are new.
    pub(crate) filters: Option<&'a Filters>,
}

impl Watch {
    /// The train dir of a source, of which nothing was read yet.
    pub(crate) fn new(train_dir: &Path) -> Self {
        Watch {
            train_dir: train_dir.to_owned(),
            host: host_name(),
            view_command: view_command(train_dir),
            ledger: LedgerTail::new(&train_dir.join(LEDGER_FILE)),
            scores: None,
            view: RunView::default(),
            step_times: StepTimes::default(),
            live: None,
            files: Files::default(),
            pictures: Pictures::default(),
            run: 0,
            problem: None,
            reading: Some((0, 1)),
            version: 0,
        }
    }

    /// Looks for what is new; whether there is more to be read at once.
    pub(crate) fn look(&mut self, source: &Source) -> bool {
        let has_more = self.look_at_ledger();
        if !has_more {
            self.look_at_files();
        }
        let live = source.status.as_ref().map(|status| Live::of(&status()));
        if live != self.live {
            self.live = live;
            self.version += 1;
        }
        has_more
    }

    fn look_at_ledger(&mut self) -> bool {
        let news = match self.ledger.look() {
            Ok(news) => news,
            Err(error) => {
                let problem = format!("{:#}", anyhow::Error::new(error));
                if self.problem.as_ref() != Some(&problem) {
                    self.problem = Some(problem);
                    self.version += 1;
                }
                return false;
            }
        };
        if news.begins_anew {
            self.begin_anew();
        }
        for line in &news.lines {
            self.view.add(line);
            self.step_times.add(&line.record);
        }
        self.view.add_damage(&news.damage);
        let reading = news.has_more().then_some(news.read_bytes);
        let is_new = !news.lines.is_empty() || !news.damage.is_empty();
        if is_new || self.reading != reading || self.problem.is_some() {
            self.version += 1;
        }
        self.problem = None;
        // Once it was read to its end, it is only followed.
        self.reading = self.reading.and(reading);
        news.has_more()
    }

    /// The train dir holds another run now.
    fn begin_anew(&mut self) {
        self.view = RunView::default();
        self.step_times = StepTimes::default();
        self.scores = None;
        self.pictures = Pictures::default();
        self.run += 1;
    }

    fn look_at_files(&mut self) {
        let train_dir = &self.train_dir;
        let path = train_dir.join(EVAL_DIR).join(SCORES_FILE);
        let scores = stamp_of(&path);
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
        if scores != self.scores {
            self.scores = scores;
            self.read_scores(&path);
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

    /// Whether the ledger was read to its end.
    pub(crate) fn has_read_all(&self) -> bool {
        self.reading.is_none()
    }

    /// The newest checkpoint: its file, and when it was written, in microseconds since 1970.
    pub(crate) fn checkpoint(&self) -> Option<(GlobalStep, &Path, u64)> {
        let (step, path, stamp) = self.files.checkpoint.as_ref()?;
        Some((*step, path, (*stamp)?.0))
    }

    /// What a page has not been told yet.
    pub(crate) fn message(
        &mut self,
        cursor: &mut PageCursor,
        now_micros: u64,
        is_last: bool,
    ) -> Message<'_> {
        if cursor.run != self.run {
            *cursor = PageCursor {
                run: self.run,
                ..PageCursor::default()
            };
        }
        // Only for those who look.
        self.pictures.draw(&self.train_dir, &self.files);
        let seen = std::mem::replace(&mut cursor.pictures, self.pictures.serial);
        let reading = self.reading;
        Message {
            now_micros,
            is_last,
            host: &self.host,
            view_command: &self.view_command,
            problem: self.problem.as_deref(),
            reading: reading.map(|(read, length)| read as f64 / length.max(1) as f64),
            view: self.view.since(&mut cursor.view),
            live: self.live.as_ref(),
            samples: self.pictures.samples_since(seen),
            filters: self.pictures.filters_since(seen),
        }
    }
}

/// The command that shows the run of a train dir, from any folder.
fn view_command(train_dir: &Path) -> String {
    let program = program().unwrap_or_else(|| PathBuf::from("cifar-ps"));
    let train_dir = std::path::absolute(train_dir).unwrap_or_else(|_| train_dir.to_owned());
    let (program, train_dir) = (quoted(&program), quoted(&train_dir));
    format!("{program} view --train-dir {train_dir}")
}

/// This program: its name where a shell finds it by that, else its path.
fn program() -> Option<PathBuf> {
    let path = env::current_exe().ok()?;
    let name = Path::new(path.file_name()?);
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name));
    let found = found.into_iter().find(|file| file.is_file());
    match found.and_then(|found| found.canonicalize().ok()) == Some(path.clone()) {
        true => Some(name.to_owned()),
        false => Some(path),
    }
}

fn stamp_of(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    let modified = metadata.modified().ok()?;
    let since_1970 = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some((micros(since_1970), metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::fixtures::calendar;

    #[test]
    fn a_damaged_line_is_told_and_the_lines_after_it_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = fs::File::create(dir.path().join(LEDGER_FILE)).unwrap();
        ledger
            .write_all(b"{\"at_micros\":7,\"record\":\"checkpoint\",\"global_step\":1}\n\0\0\n")
            .unwrap();
        ledger
            .write_all(b"{\"at_micros\":8,\"record\":\"checkpoint\",\"global_step\":2}\n")
            .unwrap();
        let source = Source {
            train_dir: dir.path().to_owned(),
            calendar: calendar(1_700_000_000),
            status: None,
            traffic: None,
        };
        let mut watch = Watch::new(dir.path());
        while watch.look(&source) {}
        assert_eq!(watch.problem, None);
        assert_eq!(watch.view.checkpoint(), Some(GlobalStep(2)));
        assert_eq!(watch.view.damage().num_lines(), 1);
        assert!(watch.has_read_all());
        let metrics = crate::page::metrics::text(&watch, None, 9);
        assert!(
            metrics.contains("cifar_damaged_ledger_lines_total 1\n"),
            "{metrics}"
        );
        let version = watch.version;
        ledger.write_all(b"no record\n").unwrap();
        watch.look(&source);
        assert!(watch.version > version);
        assert_eq!(watch.view.damage().num_lines(), 2);
    }
}
