//! The variables of the model: what they are called, how they are laid out in memory, how they
//! start, which run they belong to, the file that keeps them, and how good they are.
//!
//! Nothing here computes a gradient, opens a socket or reads a clock.

#[cfg(target_endian = "big")]
compile_error!(
    "the wire and the checkpoint hold little-endian numbers, read here without conversion"
);

pub mod layout;

pub mod lent_memory;

pub mod values;

pub mod initial;

pub mod state;

pub mod mode;

pub mod run;

pub mod folder;

pub mod checkpoint;

pub mod score;

pub mod printable;

pub mod shared_path;

pub mod state_file;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use folder::{AboutPath, Folder};
pub use layout::{Initializer, Layout, VariableSpec};
pub use mode::Mode;
pub use printable::printable;
pub use run::{DecayBy, Kernels, Numerics, RunConfig};
pub use score::{Confusion, EvalData, Score, ScoredVariables};
pub use shared_path::{open_shared, shared_path};
pub use state::{StateDigest, TrainingState};
pub use state_file::{Copied, NextState, StateFile, StateFileError, StateReader, Stored};
pub use values::Values;
