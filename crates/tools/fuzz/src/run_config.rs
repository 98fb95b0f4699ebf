//! What any decoder that gives a run's configuration has seen to.

use pserver_run::{
    RunConfig,
    config::{MAX_BATCH_SIZE, MAX_TOWERS},
    data_set::MAX_SYNTHETIC_EXAMPLES,
};

/// Nobody who uses it runs out of numbers, time or memory.
pub(crate) fn assert_in_range(run: &RunConfig) {
    assert!((1..=MAX_TOWERS).contains(&run.num_towers), "{run:?}");
    assert!((1..=MAX_BATCH_SIZE).contains(&run.batch_size), "{run:?}");
    let num_examples = run.data.num_train_examples();
    assert!(
        (1..=MAX_SYNTHETIC_EXAMPLES).contains(&num_examples),
        "{run:?}"
    );
}
