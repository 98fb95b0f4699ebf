//! The way of a commit, from the last gradient to the answer of the worker that pushed it.
//!
//! ```text
//! apply -> digest -> write -> flip -> ledger -> reply
//!                             |
//!                             from here on the step is committed, whatever happens
//! ```
//!
//! The state is in its file before anybody hears of it, so that whoever has heard of a step finds
//! it again after the server's death. The ledger's record travels with the state, so that a server
//! that dies before it is appended appends it when it starts again.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use pserver_ledger::record::Phases;
use pserver_ledger::{LedgerError, Record};
use pserver_run::GlobalStep;
use pserver_state::{StateFile, StateFileError};
use pserver_wire::messages::Goodbye;

use crate::event::Event;
use crate::note::Note;
use crate::recorder::Recorder;
use crate::training::{Snapshot, Training};
use crate::update::{Update, micros};

/// A state or a record that cannot be kept; the run must then not go on.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The state file.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A point of a commit. Tests have the server die there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPoint {
    /// Before this part of it.
    Before(CommitPart),
    /// After this part of it.
    After(CommitPart),
}

/// A part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPart {
    /// The digest of the new state is taken.
    Digest,
    /// The new state is written beside the old one.
    Write,
    /// The new state takes the place of the old one.
    Flip,
    /// The record is appended to the ledger.
    Ledger,
    /// The worker whose push was the last is answered.
    Reply,
}

impl CommitPart {
    const NAMES: [(CommitPart, &str); 5] = [
        (CommitPart::Digest, "digest"),
        (CommitPart::Write, "write"),
        (CommitPart::Flip, "flip"),
        (CommitPart::Ledger, "ledger"),
        (CommitPart::Reply, "reply"),
    ];

    fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        names
            .find(|(part, _)| *part == self)
            .map_or("", |(_, name)| name)
    }
}

impl CommitPoint {
    /// Every point, in the order in which a commit comes to them.
    pub fn all() -> impl Iterator<Item = CommitPoint> {
        CommitPart::NAMES
            .into_iter()
            .flat_map(|(part, _)| [CommitPoint::Before(part), CommitPoint::After(part)])
    }
}

impl fmt::Display for CommitPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitPoint::Before(part) => write!(f, "before-{}", part.name()),
            CommitPoint::After(part) => write!(f, "after-{}", part.name()),
        }
    }
}

/// Text that names no point of a commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no point of a commit is called {0:?}")]
pub struct UnknownPoint(String);

impl FromStr for CommitPoint {
    type Err = UnknownPoint;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        CommitPoint::all()
            .find(|point| point.to_string() == name)
            .ok_or_else(|| UnknownPoint(name.to_owned()))
    }
}

/// Called at every point of every commit, with the step before the update.
pub type AtPoint = Box<dyn Fn(CommitPoint, GlobalStep) + Send + Sync>;

/// Carries updates out and keeps what they lead to.
pub struct CommitPath {
    state_file: StateFile,
    recorder: Recorder,
    /// What it took to append the record of the commit before.
    ledger_micros: u64,
}

impl fmt::Debug for CommitPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitPath")
            .field("state_file", &self.state_file)
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}

impl CommitPath {
    /// A way into `state_file`, which holds the state of the run, and the ledger.
    #[must_use]
    pub fn new(state_file: StateFile, recorder: Recorder) -> Self {
        CommitPath {
            state_file,
            recorder,
            ledger_micros: 0,
        }
    }

    /// The file that holds the newest state.
    #[must_use]
    pub fn state_file(&self) -> &StateFile {
        &self.state_file
    }

    /// Carries an update out, and hands it back if it cannot be: nothing has changed then.
    ///
    /// # Errors
    ///
    /// [`KeepError`]; nobody may then be told that the step is committed.
    pub fn commit(
        &mut self,
        clock: impl Fn() -> Instant,
        at: impl Fn(CommitPoint),
        training: &mut Training,
        update: Update,
    ) -> Result<Option<Update>, KeepError> {
        use CommitPart::{Digest, Flip, Ledger, Write};
        use CommitPoint::{After, Before};

        let began = clock();
        let mut next = self.state_file.begin()?;
        if update.apply(&mut next.state).is_err() {
            return Ok(Some(update));
        }
        let applied = clock();
        at(Before(Digest));
        let digest = next.state.digest();
        at(After(Digest));
        let digested = clock();
        let between = |from: Instant, to: Instant| micros(to.saturating_duration_since(from));
        let phases = Phases {
            apply_micros: between(began, applied),
            digest_micros: between(applied, digested),
            // Known only when it is written; the record in the note goes without.
            write_micros: 0,
            ledger_micros: self.ledger_micros,
        };
        let record = Record::Commit(update.record(digest, phases));
        let mut line = self.recorder.line(digested, record);
        let note = Note {
            run: Cow::Borrowed(training.run()),
            commit: Some(Cow::Borrowed(&line)),
            applied: update.applied().map(Cow::Borrowed),
        };
        at(Before(Write));
        let note = note.to_bytes();
        self.state_file.write(&next, digest, &note)?;
        at(After(Write));
        at(Before(Flip));
        self.state_file.flip()?;
        at(After(Flip));
        let written = clock();

        training.commit(
            written,
            update,
            Snapshot {
                state: next.state,
                digest,
            },
        );
        if let Record::Commit(commit) = &mut line.record {
            commit.phases.write_micros = between(digested, written);
        }
        at(Before(Ledger));
        self.recorder.append(&line)?;
        at(After(Ledger));
        self.ledger_micros = between(written, clock());
        Ok(None)
    }

    /// Keeps what happened besides.
    ///
    /// # Errors
    ///
    /// [`KeepError::Ledger`].
    pub fn happened(&mut self, now: Instant, events: &[Event]) -> Result<(), KeepError> {
        for event in events {
            self.recorder.happened(now, event)?;
        }
        Ok(())
    }

    /// Keeps that a checkpoint was written.
    ///
    /// # Errors
    ///
    /// [`KeepError::Ledger`].
    pub fn checkpoint(&mut self, now: Instant, global_step: GlobalStep) -> Result<(), KeepError> {
        Ok(self.recorder.checkpoint(now, global_step)?)
    }

    /// Keeps that the server leaves.
    ///
    /// # Errors
    ///
    /// [`KeepError::Ledger`].
    pub fn end(
        &mut self,
        now: Instant,
        global_step: GlobalStep,
        goodbye: Goodbye,
    ) -> Result<(), KeepError> {
        Ok(self.recorder.end(now, global_step, goodbye)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_of_a_commit_has_a_name() {
        let names: Vec<String> = CommitPoint::all().map(|point| point.to_string()).collect();
        assert_eq!(names.len(), 10);
        assert_eq!(names[0], "before-digest");
        assert_eq!(names[9], "after-reply");
        for (name, point) in names.iter().zip(CommitPoint::all()) {
            assert_eq!(name.parse(), Ok(point));
        }
        assert!("before-lunch".parse::<CommitPoint>().is_err());
    }
}
