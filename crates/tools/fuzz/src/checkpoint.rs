//! The checkpoint file.

use std::path::Path;

use pserver_run::{Initializer, Layout, ScoredVariables, VariableSpec};
use pserver_state::checkpoint::{self, Scorable};

use crate::run_config::assert_in_range;
use crate::scratch;

/// Two small variables.
pub(crate) fn layout() -> Layout {
    let variable = |name: &str, shape: &[usize]| VariableSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
        initializer: Initializer::Constant(0.0),
    };
    Layout::new(vec![
        variable("a/weights", &[2, 3]),
        variable("a/biases", &[3]),
    ])
}

/// The bytes of a checkpoint.
///
/// What is loaded has the bits of the file, is of the layout, and is loaded again when it is saved; what is
/// scored of it is the half that was asked for. What cannot be loaded is refused in words, by the name
/// that the file was given.
pub fn checkpoint(bytes: &[u8]) {
    let path = Path::new("model");
    let layout = layout();
    for variables in [ScoredVariables::Averages, ScoredVariables::Raw] {
        if let Ok(scorable) = checkpoint::load_scorable_bytes(path, bytes, &layout, variables) {
            assert_eq!(scorable.variables, variables);
            assert_is_scored_again(&layout, scorable);
        }
    }
    let loaded = match checkpoint::load_bytes(path, bytes, &layout) {
        Ok(loaded) => loaded,
        Err(error) => return assert!(error.to_string().contains("model"), "{error}"),
    };
    let Some(run) = &loaded.run else {
        return;
    };
    assert_in_range(run);
    let folder = scratch::folder();
    let saved = checkpoint::save(folder.path(), &layout, &loaded.state, run);
    let saved = saved.expect("a checkpoint can be saved");
    let again = checkpoint::load(&saved, &layout).expect("what was saved can be loaded");
    assert_eq!(again.state.digest(), loaded.state.digest());
    assert_eq!(again.run, loaded.run);
}

fn assert_is_scored_again(layout: &Layout, scorable: Scorable) {
    assert_eq!(scorable.values.len(), layout.num_values());
    if scorable.variables != ScoredVariables::Averages {
        return;
    }
    let folder = scratch::folder();
    let saved = checkpoint::save_averages(folder.path(), layout, &scorable);
    let saved = saved.expect("averages can be saved");
    let again = checkpoint::load_scorable(&saved, layout, ScoredVariables::Averages);
    if scorable.run.is_none() {
        // Averages of no run are taken for a checkpoint that lacks its variables.
        return assert!(again.is_err());
    }
    let again = again.expect("what was saved can be loaded");
    assert_eq!(again.values.as_bytes(), scorable.values.as_bytes());
    assert_eq!(again.global_step, scorable.global_step);
    assert_eq!(again.run, scorable.run);
}
