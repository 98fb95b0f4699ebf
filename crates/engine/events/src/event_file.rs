//! One event file, written as a run goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;

use crate::messages::{Event, SessionLog, SessionStatus, What};
use crate::record;
use crate::summary::Summary;

/// How the name of an event file begins.
pub const NAME_PREFIX: &str = "events.out.tfevents.";

/// What the first event of a file says it is.
const FILE_VERSION: &str = "brain.Event:2";

/// A file that TensorBoard reads while it is written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

/// An event file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct EventFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl EventFile {
    /// Begins a file in `folder`, which is there: `events.out.tfevents.SECS.HOST`. Nothing is ever written
    /// to an old file, whose end may be half a record: TensorBoard reads the files of a folder one after the
    /// other, in the order of their names. So SECS is the time, or later where a file of that time or a later
    /// one is there, because it is of the same second or the clock was set back.
    ///
    /// `now`: since 1970.
    ///
    /// # Errors
    ///
    /// [`EventFileError`].
    pub fn create(folder: &Path, now: Duration, host: &str) -> Result<Self, EventFileError> {
        let newest = newest_secs(folder).map_err(|source| EventFileError {
            path: folder.to_owned(),
            source,
        })?;
        let mut secs = newest.map_or(0, |secs| secs + 1).max(now.as_secs());
        loop {
            let path = folder.join(format!("{NAME_PREFIX}{secs:010}.{host}"));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => return EventFile { path, file }.begin(now),
                // Another program was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => secs += 1,
                Err(source) => return Err(EventFileError { path, source }),
            }
        }
    }

    fn begin(mut self, now: Duration) -> Result<Self, EventFileError> {
        self.append(now, 0, What::FileVersion(FILE_VERSION.to_owned()))?;
        Ok(self)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that a program begins or goes on with `step`: TensorBoard forgets what older files say of
    /// this step and later ones.
    ///
    /// # Errors
    ///
    /// [`EventFileError`].
    pub fn start_session(&mut self, now: Duration, step: u64) -> Result<(), EventFileError> {
        let status = SessionStatus::Start.into();
        self.append(now, step, What::SessionLog(SessionLog { status }))
    }

    /// Writes the values of a step. They are in the file when this returns; a program that is killed
    /// meanwhile leaves at most its last record cut short, which TensorBoard passes over.
    ///
    /// # Errors
    ///
    /// [`EventFileError`]; half a record may then be at the end, and nothing more is to be written.
    pub fn write(
        &mut self,
        now: Duration,
        step: u64,
        summary: Summary,
    ) -> Result<(), EventFileError> {
        self.append(now, step, What::Summary(summary.into_message()))
    }

    fn append(&mut self, now: Duration, step: u64, what: What) -> Result<(), EventFileError> {
        let event = Event {
            wall_time: now.as_secs_f64(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            what: Some(what),
        };
        let mut bytes = Vec::new();
        record::append(&event.encode_to_vec(), &mut bytes);
        let written = self.file.write_all(&bytes);
        written.map_err(|source| EventFileError {
            path: self.path.clone(),
            source,
        })
    }
}

/// The latest time in the names of the event files in a folder.
fn newest_secs(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        newest = newest.max(secs_in(&entry?.file_name().to_string_lossy()));
    }
    Ok(newest)
}

/// The time in the name of an event file. Digits that are not ten are no time.
fn secs_in(name: &str) -> Option<u64> {
    let (secs, _) = name.strip_prefix(NAME_PREFIX)?.split_once('.')?;
    secs.parse().ok().filter(|_| secs.len() == 10)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::messages::{Kind, Value};

    fn events(path: &Path) -> Vec<Event> {
        let messages = record::messages(&fs::read(path).unwrap());
        let decode = |message: Vec<u8>| Event::decode(message.as_slice()).unwrap();
        messages.into_iter().map(decode).collect()
    }

    const NOW: Duration = Duration::from_millis(1_700_000_000_500);

    #[test]
    fn a_file_says_its_version_its_start_and_then_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), NOW, "host").unwrap();
        let name = file.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(name, "events.out.tfevents.1700000000.host");
        file.start_session(NOW, 7).unwrap();
        let mut summary = Summary::default();
        summary.scalar("a", 0.0);
        assert_eq!(summary.tags().collect::<Vec<_>>(), ["a"]);
        file.write(NOW, 100, summary).unwrap();

        let event = |step, what| Event {
            wall_time: 1_700_000_000.5,
            step,
            what: Some(what),
        };
        let zero = Value {
            tag: "a".to_owned(),
            kind: Some(Kind::Scalar(0.0)),
        };
        let values = vec![zero];
        let expected = [
            event(0, What::FileVersion("brain.Event:2".to_owned())),
            event(7, What::SessionLog(SessionLog { status: 1 })),
            event(100, What::Summary(crate::messages::Summary { values })),
        ];
        assert_eq!(events(file.path()), expected);
    }

    #[test]
    fn a_second_file_of_the_same_second_leaves_the_first_alone() {
        let folder = tempfile::tempdir().unwrap();
        let files = [(); 3].map(|()| EventFile::create(folder.path(), NOW, "host").unwrap());
        for file in &files {
            assert_eq!(events(file.path()).len(), 1);
        }
        assert!(files.iter().map(EventFile::path).is_sorted());
    }

    #[test]
    fn a_file_comes_after_all_others_though_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        for others in [
            "events.out.tfevents.1700000007.other.12.0.v2",
            "events.out.tfevents.notes",
        ] {
            fs::write(folder.path().join(others), "").unwrap();
        }
        let mut names = Vec::new();
        for now in [NOW, NOW - Duration::from_secs(86_400), NOW] {
            let file = EventFile::create(folder.path(), now, "host").unwrap();
            names.push(file.path().file_name().unwrap().to_owned());
        }
        let expected =
            [8, 9, 10].map(|secs| format!("events.out.tfevents.{}.host", 1_700_000_000 + secs));
        assert_eq!(names, expected.map(std::ffi::OsString::from));
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = EventFile::create(&folder.path().join("gone"), NOW, "host").unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
