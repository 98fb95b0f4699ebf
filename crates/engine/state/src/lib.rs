//! The state of a run: flat buffers of variables, how they start, and the files that keep them.
//!
//! Nothing here computes a gradient, opens a socket or reads a clock.

#[cfg(target_endian = "big")]
compile_error!(
    "the wire and the checkpoint hold little-endian numbers, read here without conversion"
);

pub mod values;

pub mod initial;

pub mod state;

pub mod folder;

pub mod checkpoint;

pub mod shared_path;

pub mod state_file;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use folder::{AboutPath, Folder};
pub use shared_path::{open_shared, shared_path};
pub use state::TrainingState;
pub use state_file::{Copied, NextState, StateFile, StateFileError, StateReader, Stored};
pub use values::{Place, Pool, Values};
