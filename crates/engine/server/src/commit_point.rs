//! The points of a commit at which tests have the server die: between any two things that change its files.

use std::fmt;
use std::str::FromStr;

use pserver_ledger::Line;
use pserver_run::{GlobalStep, StateDigest};
use pserver_state::NextState;

use crate::commit_path::{CommitFiles, Files};

/// A point of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPoint {
    /// Before the new state is written beside the old one.
    BeforeWrite,
    /// Before the new state takes the place of the old one.
    BeforeFlip,
    /// Before the record is appended to the ledger.
    BeforeLedger,
    /// Before the worker whose push was the last is answered.
    BeforeReply,
}

impl CommitPoint {
    /// Every point, in the order in which a commit comes to them.
    pub const ALL: [CommitPoint; 4] = [
        CommitPoint::BeforeWrite,
        CommitPoint::BeforeFlip,
        CommitPoint::BeforeLedger,
        CommitPoint::BeforeReply,
    ];
}

impl fmt::Display for CommitPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CommitPoint::BeforeWrite => "before-write",
            CommitPoint::BeforeFlip => "before-flip",
            CommitPoint::BeforeLedger => "before-ledger",
            CommitPoint::BeforeReply => "before-reply",
        })
    }
}

impl FromStr for CommitPoint {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|point| point.to_string() == name)
            .ok_or_else(|| format!("no point of a commit is called {name:?}"))
    }
}

/// Files that say when a commit comes to one of its points.
pub struct WatchedFiles<F> {
    files: Files,
    /// Called with the point, and the step before the update.
    at: F,
    step: GlobalStep,
}

impl<F> WatchedFiles<F> {
    /// `files`, and `at` is called at every point of every commit, with the step before the update.
    pub fn new(files: Files, at: F) -> Self {
        let step = GlobalStep(0);
        WatchedFiles { files, at, step }
    }
}

impl<F> fmt::Debug for WatchedFiles<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl<F: Fn(CommitPoint, GlobalStep) + Send> CommitFiles for WatchedFiles<F> {
    fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    fn write(&mut self, next: &NextState, digest: StateDigest, note: &[u8]) -> anyhow::Result<()> {
        self.step = GlobalStep(next.state.global_step.0 - 1);
        (self.at)(CommitPoint::BeforeWrite, self.step);
        self.files.write(next, digest, note)
    }

    fn flip(&mut self) -> anyhow::Result<()> {
        (self.at)(CommitPoint::BeforeFlip, self.step);
        self.files.flip()
    }

    fn append(&mut self, line: &Line) -> anyhow::Result<()> {
        (self.at)(CommitPoint::BeforeLedger, self.step);
        self.files.append(line)?;
        (self.at)(CommitPoint::BeforeReply, self.step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_of_a_commit_has_a_name() {
        for point in CommitPoint::ALL {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        assert!("before-lunch".parse::<CommitPoint>().is_err());
    }
}
