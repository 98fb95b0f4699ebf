//! What a ledger says of a run, with its rewinds applied.

use std::collections::BTreeMap;
use std::fmt;

use pserver_run::{GlobalStep, RunConfig, StateDigest, TowerStep};

use crate::damage::Damage;
use crate::record::{Commit, Record, Start};

/// A run as its ledger tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The run's configuration, with the numerics once they are known.
    pub run: RunConfig,
    /// Each start of a server; there is at least one.
    pub starts: Vec<ServerStart>,
    /// The commits that count.
    pub commits: BTreeMap<GlobalStep, Committed>,
    /// Each time that the run went back.
    pub rewinds: Vec<Rewound>,
    /// Where records contradict each other, in sentences.
    pub contradictions: Vec<String>,
    /// Everything else that happened.
    pub events: Vec<Event>,
    /// The step that the run is at, by the newest record that tells of a step.
    pub reached: GlobalStep,
    /// The lines that were skipped: what they told is missing above.
    pub damage: Damage,
}

/// A start of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerStart {
    /// When, in microseconds since 1970.
    pub at_micros: u64,
    /// When the last record before the next start was made.
    pub last_at_micros: u64,
    /// What the server said of itself.
    pub start: Start,
    /// The workers that registered with it, by number.
    pub workers: BTreeMap<u32, Registered>,
    /// The lowest step that this server can have committed.
    pub(crate) lowest_step: GlobalStep,
}

impl ServerStart {
    /// From the start to the last record, in microseconds.
    pub(crate) fn served_micros(&self) -> u64 {
        self.last_at_micros - self.at_micros
    }
}

/// What a worker said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub name: String,
    /// What it computes with.
    pub numerics: String,
}

/// A commit that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// When, in microseconds since 1970.
    pub at_micros: u64,
    /// The start of the server that made it, which gives its workers their numbers.
    pub server_start: usize,
    /// The record.
    pub commit: Commit,
}

/// The run went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// When, in microseconds since 1970.
    pub at_micros: u64,
    /// The step that it went back to.
    pub to: GlobalStep,
    /// How many commits no longer counted.
    pub undone: usize,
}

/// A record that is neither start, rewind nor commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, in microseconds since 1970.
    pub at_micros: u64,
    /// The start of the server that wrote it.
    pub server_start: usize,
    /// The record.
    pub record: Record,
    /// Whether the step that it tells of was undone by a rewind.
    pub undone: bool,
}

/// A worker, for people: `worker 3 (host/412)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    /// Its number at one start of the server.
    pub number: u32,
    /// Its name, if it is on record.
    pub name: Option<String>,
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "worker {} ({name})", self.number),
            None => write!(f, "worker {}", self.number),
        }
    }
}

impl History {
    /// Whether the ledger begins where the run does, with its initial state.
    #[must_use]
    pub fn has_beginning(&self) -> bool {
        self.starts[0].start.digest == self.run.initial_digest
    }

    /// The step that the ledger begins with.
    #[must_use]
    pub fn first_step(&self) -> GlobalStep {
        let started = self.starts[0].start.global_step;
        let committed = self.commits.keys().next();
        committed.map_or(started, |step| started.min(*step))
    }

    /// Digest of the state before a step, if the ledger knows it.
    #[must_use]
    pub fn digest_at(&self, step: GlobalStep) -> Option<StateDigest> {
        let before = step.0.checked_sub(1).map(GlobalStep);
        let committed = before.and_then(|before| self.commits.get(&before));
        let begun = || {
            let first = &self.starts.first()?.start;
            (first.global_step == step).then_some(first.digest)
        };
        committed.map(|before| before.commit.digest).or_else(begun)
    }

    /// A worker by its number at a start of the server.
    #[must_use]
    pub fn worker(&self, server_start: usize, number: u32) -> Worker {
        let registered = self.starts[server_start].workers.get(&number);
        Worker {
            number,
            name: registered.map(|registered| registered.name.clone()),
        }
    }
}

/// The tower step that a record tells of.
pub(crate) fn unit_of(record: &Record) -> Option<TowerStep> {
    match record {
        Record::Overdue { of, .. }
        | Record::Dropped { of, .. }
        | Record::InDoubt { of, .. }
        | Record::Audited { of, .. } => Some(*of),
        _ => None,
    }
}
