//! A small run for the tests of this crate.

use std::time::{Duration, Instant};

use pserver_run::member::{Member, SECRET_BYTES, Secret, WorkerId};
use pserver_run::request::{Losses, Push};
use pserver_run::{
    DataSet, Evidence, GlobalStep, Numerics, RunConfig, StateDigest, Tower, TowerStep,
};

use crate::contribution::Contribution;

pub(crate) fn run_config() -> RunConfig {
    RunConfig {
        data: DataSet::Synthetic { num_examples: 100 },
        learning_rate: 0.5,
        num_epochs_per_decay: 1000.0,
        ..RunConfig::example()
    }
}

/// Some time to begin with.
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some time to begin with"
)]
pub(crate) fn some_time() -> Instant {
    Instant::now()
}

/// A gradient of two numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Toy(pub(crate) [f32; 2]);

impl Evidence for Toy {
    fn norm(&self) -> f32 {
        self.0[0].hypot(self.0[1])
    }

    fn same_bits(&self, other: &Self) -> bool {
        self.0.map(f32::to_bits) == other.0.map(f32::to_bits)
    }
}

/// What a worker says of its first gradient of a tower step.
pub(crate) fn push(member: Member, tower_step: TowerStep) -> Push {
    Push {
        member,
        tower_step,
        state_digest: StateDigest(0),
        losses: Losses {
            cross_entropy: 1.0,
            total: 2.0,
            ..Losses::default()
        },
        examples_digest: [0; 16],
        compute_time: Duration::from_millis(8),
        attempt: 0,
    }
}

/// A gradient as a worker without haste would have pushed it.
pub(crate) fn contribution(step: u64, tower: u32, numbers: [f32; 2]) -> Contribution<Toy> {
    let member = Member {
        worker: WorkerId(0),
        secret: Secret([0; SECRET_BYTES]),
    };
    let tower_step = TowerStep {
        global_step: GlobalStep(step),
        tower: Tower(tower),
    };
    Contribution {
        push: push(member, tower_step),
        gradient: Toy(numbers),
        doubt: None,
        numerics: Numerics::example(1),
        held: Duration::from_millis(10),
        arrived: some_time(),
        staleness: 0,
    }
}
