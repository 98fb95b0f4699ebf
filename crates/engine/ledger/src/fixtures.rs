//! Records for the tests of this crate.

use pserver_run::{ExamplesDigest, GlobalStep, RunConfig, StateDigest, Tower, TowerStep};

use crate::history::History;
use crate::record::{
    Commit, FORMAT_VERSION, Line, Outcome, Phases, Record, Rewind, Start, TowerRecord,
};

/// Two towers of 4 out of 20 examples: an epoch is two steps and a half.
pub(crate) fn run_config() -> RunConfig {
    RunConfig {
        initial_digest: digest_at(0),
        ..RunConfig::example()
    }
}

/// A stand-in for the digest of the state at a step.
pub(crate) fn digest_at(step: u64) -> StateDigest {
    StateDigest(u128::from(step) + 1000)
}

pub(crate) fn start(step: u64) -> Start {
    Start {
        format_version: FORMAT_VERSION,
        version: "0.1.0".to_owned(),
        run: run_config(),
        global_step: GlobalStep(step),
        digest: digest_at(step),
    }
}

/// The commit of a step, whose towers were computed by these workers: (tower, worker).
pub(crate) fn commit(step: u64, towers: &[(u32, u32)]) -> Commit {
    let run = run_config();
    let mut sequence = run.sequence();
    let mut tower_record = |&(tower, worker): &(u32, u32)| {
        let tower_step = TowerStep {
            global_step: GlobalStep(step),
            tower: Tower(tower),
        };
        TowerRecord {
            of: TowerStep {
                global_step: GlobalStep(step),
                tower: Tower(tower),
            },
            worker,
            examples: ExamplesDigest::of(sequence.samples(tower_step)),
            loss: 4.5,
            norm: 0.25,
            held_micros: 1000,
            compute_micros: 900,
            waited_micros: 10,
            staleness: 0,
        }
    };
    Commit {
        global_step: GlobalStep(step),
        learning_rate: 0.1,
        loss: 4.5,
        towers: towers.iter().map(&mut tower_record).collect(),
        gather_micros: 1010,
        phases: Phases::default(),
        digest: digest_at(step + 1),
    }
}

/// Record of a start at a step.
pub(crate) fn started(step: u64) -> Record {
    Record::Start(start(step))
}

/// Record of a commit whose tower `m` was computed by worker `m`.
pub(crate) fn committed(step: u64) -> Record {
    Record::Commit(commit(step, &[(0, 0), (1, 1)]))
}

pub(crate) fn rewound(to: u64) -> Record {
    Record::Rewind(Rewind {
        to: GlobalStep(to),
        digest: digest_at(to),
    })
}

pub(crate) fn joined(worker: u32, name: &str) -> Record {
    Record::Joined {
        worker,
        name: name.to_owned(),
        numerics: "cpu".to_owned(),
    }
}

pub(crate) fn ended(step: u64) -> Record {
    Record::End {
        global_step: GlobalStep(step),
        outcome: Outcome::Complete,
    }
}

/// A start at step 0, two workers and this many commits.
pub(crate) fn undisturbed(steps: u64) -> Vec<Record> {
    let mut records = vec![started(0), joined(0, "host/10"), joined(1, "host/11")];
    records.extend((0..steps).map(committed));
    records
}

/// Lines with these records, a second apart.
pub(crate) fn lines(records: Vec<Record>) -> impl Iterator<Item = Line> {
    let line = |(second, record): (u64, Record)| Line {
        at_micros: 1_700_000_000_000_000 + second * 1_000_000,
        record,
    };
    (0..).zip(records).map(line)
}

/// The history that these records tell; the first is a start.
pub(crate) fn history(records: Vec<Record>) -> History {
    lines(records)
        .fold(None, History::after)
        .expect("the first record is a start")
}
