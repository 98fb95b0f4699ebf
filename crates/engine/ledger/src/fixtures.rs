//! Records for the tests of this crate, and with the feature `fixtures` for those of others.

use std::path::{Path, PathBuf};

use pserver_run::{ExamplesDigest, GlobalStep, RunConfig, StateDigest, Tower, TowerStep};
use tempfile::TempDir;

use crate::history::History;
use crate::ledger_file::{LEDGER_FILE, LedgerFile};
use crate::record::{
    Commit, FORMAT_VERSION, Line, Outcome, Phases, Record, Rewind, Start, TowerRecord,
};

/// Two towers of 4 out of 20 examples: an epoch is two steps and a half.
pub fn run_config() -> RunConfig {
    RunConfig {
        initial_digest: digest_at(0),
        ..RunConfig::example()
    }
}

/// A stand-in for the digest of the state at a step.
pub fn digest_at(step: u64) -> StateDigest {
    StateDigest(u128::from(step) + 1000)
}

/// A tower step.
pub fn unit(step: u64, tower: u32) -> TowerStep {
    TowerStep {
        global_step: GlobalStep(step),
        tower: Tower(tower),
    }
}

/// What a server says that starts at a step.
pub fn start(step: u64) -> Start {
    Start {
        format_version: FORMAT_VERSION,
        version: "0.1.0".to_owned(),
        run: run_config(),
        global_step: GlobalStep(step),
        digest: digest_at(step),
    }
}

/// The commit of a step whose tower `m` was computed by `workers[m]`.
pub fn commit(step: u64, workers: &[u32]) -> Commit {
    let mut sequence = run_config().sequence();
    let tower = |(tower, worker): (u32, &u32)| TowerRecord {
        of: unit(step, tower),
        worker: *worker,
        examples: ExamplesDigest::of(sequence.samples(unit(step, tower))),
        loss: 4.5,
        norm: 0.25,
        held_micros: 1000,
        compute_micros: 900,
        waited_micros: 10,
        staleness: 0,
    };
    Commit {
        global_step: GlobalStep(step),
        learning_rate: 0.1,
        loss: 4.5,
        towers: (0..).zip(workers).map(tower).collect(),
        gather_micros: 1010,
        phases: Phases::default(),
        digest: digest_at(step + 1),
    }
}

/// Record of a start at a step.
pub fn started(step: u64) -> Record {
    Record::Start(start(step))
}

/// Record of a commit whose tower `m` was computed by worker `m`.
pub fn committed(step: u64) -> Record {
    Record::Commit(commit(step, &[0, 1]))
}

/// Record of a way back to a step.
pub fn rewound(to: u64) -> Record {
    Record::Rewind(Rewind {
        to: GlobalStep(to),
        digest: digest_at(to),
    })
}

/// Record of a worker that registers.
pub fn joined(worker: u32, name: &str) -> Record {
    Record::Joined {
        worker,
        name: name.to_owned(),
        numerics: "cpu".to_owned(),
    }
}

/// Record of a server that leaves a run that is complete.
pub fn ended(step: u64) -> Record {
    Record::End {
        global_step: GlobalStep(step),
        outcome: Outcome::Complete,
    }
}

/// A start at step 0, two workers and this many commits.
pub fn undisturbed(steps: u64) -> Vec<Record> {
    let mut records = vec![started(0), joined(0, "host/10"), joined(1, "host/11")];
    records.extend((0..steps).map(committed));
    records
}

/// Lines with these records, a second apart.
pub fn lines(records: impl IntoIterator<Item = Record>) -> impl Iterator<Item = Line> {
    let line = |(second, record): (u64, Record)| Line {
        at_micros: 1_700_000_000_000_000 + second * 1_000_000,
        record,
    };
    (0..).zip(records).map(line)
}

/// The text of a ledger with these records.
pub fn text(records: impl IntoIterator<Item = Record>) -> String {
    let text = |line| serde_json::to_string(&line).expect("a line has a text form") + "\n";
    lines(records).map(text).collect()
}

/// A ledger that is not there yet, in a folder of its own.
///
/// # Panics
///
/// If no folder can be made.
pub fn new_ledger() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let path = dir.path().join(LEDGER_FILE);
    (dir, path)
}

/// Appends these records to a ledger, as a server does.
///
/// # Panics
///
/// If it cannot be written.
pub fn append(path: &Path, records: impl IntoIterator<Item = Record>) {
    let (mut ledger, _) = LedgerFile::open(path).expect("a ledger can be opened");
    for line in lines(records) {
        ledger.append(&line).expect("a line can be written");
    }
}

/// The history that these records tell.
///
/// # Panics
///
/// If the first is no start.
pub fn history(records: Vec<Record>) -> History {
    lines(records)
        .fold(None, History::after)
        .expect("the first record is a start")
}
