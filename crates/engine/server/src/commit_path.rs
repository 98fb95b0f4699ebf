//! The way of a commit, from the last gradient to the answer of the worker that pushed it.
//!
//! ```text
//! apply -> digest -> write -> flip -> ledger -> reply
//!                             |
//!                             from here on the step is committed, whatever happens
//! ```
//!
//! The state is in its file before anybody hears of it: a worker that has heard of a step finds it
//! again after the server's death. The ledger's record travels with the state, so that a server
//! that dies before it is appended appends it when it starts again.

use std::borrow::Cow;
use std::fmt;
use std::time::Instant;

use pserver_core::Update;
use pserver_core::update::micros;
use pserver_ledger::record::{Outcome, Phases};
use pserver_ledger::{LedgerFile, Line, Record};
use pserver_run::{GlobalStep, StateDigest};
use pserver_state::{NextState, StateFile};
use pserver_wire::gradient::Gradient;
use pserver_wire::messages::Goodbye;

use crate::calendar::Calendar;
use crate::event::Event;
use crate::note::Note;
use crate::run::Run;
use crate::snapshot::Snapshot;

/// The files of a run.
#[derive(Debug)]
pub struct Files {
    /// Holds the newest state.
    pub state_file: StateFile,
    /// Has a record of each commit, and of what happens besides.
    pub ledger: LedgerFile,
}

/// What a commit does to the files, in the order of these methods. A test may look on.
pub trait CommitFiles: fmt::Debug + Send {
    /// The files themselves.
    fn files(&mut self) -> &mut Files;

    /// Writes the new state beside the old one.
    ///
    /// # Errors
    ///
    /// As [`StateFile::write`].
    fn write(&mut self, next: &NextState, digest: StateDigest, note: &[u8]) -> anyhow::Result<()> {
        Ok(self.files().state_file.write(next, digest, note)?)
    }

    /// Has the new state take the place of the old one.
    ///
    /// # Errors
    ///
    /// As [`StateFile::flip`].
    fn flip(&mut self) -> anyhow::Result<()> {
        Ok(self.files().state_file.flip()?)
    }

    /// Appends the record of the commit to the ledger.
    ///
    /// # Errors
    ///
    /// As [`LedgerFile::append`].
    fn append(&mut self, line: &Line) -> anyhow::Result<()> {
        Ok(self.files().ledger.append(line)?)
    }
}

impl CommitFiles for Files {
    fn files(&mut self) -> &mut Files {
        self
    }
}

/// Carries updates out and keeps what they lead to.
#[derive(Debug)]
pub struct CommitPath {
    files: Box<dyn CommitFiles>,
    calendar: Calendar,
    /// What it took to append the record of the commit before.
    ledger_micros: u64,
}

impl CommitPath {
    /// A way into `files`, whose state is that of the run.
    #[must_use]
    pub fn new(files: impl CommitFiles + 'static, calendar: Calendar) -> Self {
        CommitPath {
            files: Box::new(files),
            calendar,
            ledger_micros: 0,
        }
    }

    /// The file that holds the newest state.
    #[must_use]
    pub fn state_file(&mut self) -> &StateFile {
        &self.files.files().state_file
    }

    /// Carries an update out, and hands it back if it cannot be: nothing has changed then.
    ///
    /// # Errors
    ///
    /// If the state or the record cannot be kept; nobody may then be told that the step is committed, and the run must
    /// not go on.
    pub fn commit(
        &mut self,
        clock: impl Fn() -> Instant,
        run: &mut Run,
        update: Update<Gradient>,
    ) -> anyhow::Result<Option<Update<Gradient>>> {
        let began = clock();
        let mut next = self.files.files().state_file.begin()?;
        if run.snapshot().apply(&update, &mut next.state).is_err() {
            return Ok(Some(update));
        }
        let applied = clock();
        let digest = next.state.digest();
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
        let mut line = self.line(digested, record);
        let note = Note {
            run: Cow::Borrowed(run.core.run()),
            commit: Some(Cow::Borrowed(&line)),
            applied: update.applied.as_ref().map(Cow::Borrowed),
        };
        self.files.write(&next, digest, &note.to_bytes())?;
        self.files.flip()?;
        let written = clock();

        let NextState { state, .. } = next;
        run.commit(written, update, Snapshot { state, digest });
        if let Record::Commit(commit) = &mut line.record {
            commit.phases.write_micros = between(digested, written);
        }
        self.files.append(&line)?;
        self.ledger_micros = between(written, clock());
        Ok(None)
    }

    /// Keeps what happened besides.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written.
    pub fn happened(&mut self, now: Instant, events: &[Event]) -> anyhow::Result<()> {
        let mut records = events.iter().filter_map(Event::record);
        records.try_for_each(|record| self.keep(now, record.clone()))
    }

    /// Keeps that the server leaves.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written.
    pub fn end(
        &mut self,
        now: Instant,
        global_step: GlobalStep,
        goodbye: Goodbye,
    ) -> anyhow::Result<()> {
        let outcome = match goodbye {
            Goodbye::Complete => Outcome::Complete,
            Goodbye::Diverged => Outcome::Diverged,
            Goodbye::Stopping | Goodbye::Quarantined => Outcome::Stopped,
        };
        let record = Record::End {
            global_step,
            outcome,
        };
        self.keep(now, record)
    }

    /// Keeps a record that is of no commit.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written.
    pub fn keep(&mut self, now: Instant, record: Record) -> anyhow::Result<()> {
        let line = self.line(now, record);
        Ok(self.files.files().ledger.append(&line)?)
    }

    fn line(&self, now: Instant, record: Record) -> Line {
        Line {
            at_micros: self.calendar.micros(now),
            record,
        }
    }
}
