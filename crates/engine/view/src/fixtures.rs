//! Records for the tests of this crate.

use pserver_ledger::record::{
    Commit, FORMAT_VERSION, Line, Phases, Record, Rewind, Start, TowerRecord,
};
use pserver_run::{ExamplesDigest, GlobalStep, RunConfig, StateDigest, Tower, TowerStep};

/// Two towers of 4 examples.
pub(crate) fn run_config() -> RunConfig {
    RunConfig::example()
}

pub(crate) fn unit(step: u64, tower: u32) -> TowerStep {
    TowerStep {
        global_step: GlobalStep(step),
        tower: Tower(tower),
    }
}

/// The commit of a step, whose tower `m` was computed by the worker at place `m`.
pub(crate) fn commit(step: u64, workers: &[u32]) -> Commit {
    let tower = |(tower, worker): (u32, &u32)| TowerRecord {
        of: unit(step, tower),
        worker: *worker,
        examples: ExamplesDigest([0; 16]),
        loss: 4.5,
        norm: 0.25,
        held_micros: 1000,
        compute_micros: 900,
        waited_micros: 0,
        staleness: 0,
    };
    Commit {
        global_step: GlobalStep(step),
        learning_rate: 0.1,
        loss: 4.5,
        towers: (0..).zip(workers).map(tower).collect(),
        gather_micros: 1010,
        phases: Phases::default(),
        digest: StateDigest(u128::from(step)),
    }
}

pub(crate) fn started(step: u64) -> Record {
    Record::Start(Start {
        format_version: FORMAT_VERSION,
        version: "0.1.0".to_owned(),
        run: run_config(),
        global_step: GlobalStep(step),
        digest: StateDigest(1),
    })
}

pub(crate) fn committed(step: u64) -> Record {
    Record::Commit(commit(step, &[0, 1]))
}

pub(crate) fn rewound(to: u64) -> Record {
    Record::Rewind(Rewind {
        to: GlobalStep(to),
        digest: StateDigest(1),
    })
}

pub(crate) fn joined(worker: u32, name: &str) -> Record {
    Record::Joined {
        worker,
        name: name.to_owned(),
        numerics: "cpu".to_owned(),
    }
}

/// Lines with these records, a second apart.
pub(crate) fn lines(records: impl IntoIterator<Item = Record>) -> impl Iterator<Item = Line> {
    (1..).zip(records).map(|(second, record)| Line {
        at_micros: second * 1_000_000,
        record,
    })
}
