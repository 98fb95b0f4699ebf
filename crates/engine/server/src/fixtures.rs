//! A small run for the tests of this crate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pserver_core::{AppliedSerials, Limits};
use pserver_events::Histogram;
use pserver_run::{
    Confusion, DataSet, EvalData, ExamplesDigest, GlobalStep, Layout, Numerics, RunConfig, Score,
    ScoredVariables,
};
use pserver_state::initial::initial_state;
use pserver_state::{TrainingState, Values};
use pserver_wire::messages::{
    Activations, Losses, Member, PROTOCOL_VERSION, Push, Registration, TowerSummary, Work,
};

use crate::calendar::Calendar;
use crate::run::{Intervals, Run};

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

/// A calendar on which it is so many seconds after the beginning of 1970.
pub(crate) fn calendar(secs: u64) -> Calendar {
    Calendar {
        moment: some_time(),
        since_1970: Duration::from_secs(secs),
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        max_steps: GlobalStep(1000),
        worker_lease: Duration::from_secs(10),
        mixed: false,
        min_workers: 1,
        stall_timeout: Duration::from_secs(60),
        audit_fraction: 0.0,
    }
}

/// A state of this step.
pub(crate) fn state_at(layout: &Layout, step: u64) -> TrainingState {
    TrainingState {
        global_step: GlobalStep(step),
        ..initial_state(layout, 1)
    }
}

/// The state that a run over two numbers begins with.
pub(crate) fn one_and_two() -> TrainingState {
    TrainingState::initial(Values::from([1.0, 2.0].as_slice()))
}

/// A run of two towers that begins with [`one_and_two`].
pub(crate) fn run(now: Instant, intervals: Intervals) -> Run {
    let applied = AppliedSerials::default();
    Run::new(
        now,
        run_config(),
        limits(),
        one_and_two(),
        applied,
        intervals,
    )
}

/// A worker that may take part.
pub(crate) fn registration(layout_fingerprint: u64) -> Registration {
    Registration {
        protocol_version: PROTOCOL_VERSION,
        layout_fingerprint,
        data_digest: run_config().data.digest(),
        numerics: Numerics::example(1),
        name: "worker".to_owned(),
    }
}

/// What a worker says of its gradient.
pub(crate) fn push_of(member: Member, work: &Work) -> Push {
    let mut sequence = run_config().sequence();
    Push {
        member,
        tower_step: work.tower_step,
        state_digest: work.state_digest,
        losses: Losses {
            cross_entropy: 1.0,
            total: 2.0,
            ..Losses::default()
        },
        examples_digest: ExamplesDigest::of(sequence.samples(work.tower_step)).0,
        compute_time: Duration::from_millis(5),
        attempt: work.attempt,
    }
}

/// Losses that can be told from each other.
pub(crate) fn losses(loss: f32) -> Losses {
    Losses {
        cross_entropy: loss,
        local3_weight_loss: 2.0 * loss,
        local4_weight_loss: 3.0 * loss,
        total: 6.0 * loss,
    }
}

/// A score of the state at `step`, as if each of `num_examples` had been recognised.
pub(crate) fn score(step: u64, num_examples: u32) -> Score {
    let mut confusion = Confusion::default();
    confusion.0[3][3] = num_examples;
    Score {
        global_step: GlobalStep(step),
        eval_data: EvalData::Test,
        variables: ScoredVariables::Averages,
        confusion,
    }
}

/// A worker's part of the summary of a step.
pub(crate) fn tower_summary(step: u64, images: Vec<Bytes>) -> TowerSummary {
    TowerSummary {
        summary_step: GlobalStep(step),
        activations: [(); 5].map(|()| Activations {
            histogram: Histogram::of(&[1.0]),
            sparsity: 0.5,
        }),
        images,
    }
}
