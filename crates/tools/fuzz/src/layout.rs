//! The model of a fuzzed server.

use pserver_run::{Initializer, Layout, VariableSpec};

/// Four numbers: 16 bytes.
pub(crate) fn layout() -> Layout {
    Layout::new(vec![VariableSpec {
        name: "a".to_owned(),
        shape: vec![4],
        initializer: Initializer::Constant(0.0),
    }])
}
