//! What a worker has open of its server's memory, where both are on one host.

use std::path::Path;

use pserver_run::Layout;
use pserver_state::{StateFileError, StateReader};
use pserver_wire::gradient_slot::{SlotError, WorkerSlot};

/// The state file, to read variables from, and the slot that gradients are computed in.
#[derive(Debug)]
pub struct SharedMemory {
    /// The server's state file.
    pub state: StateReader,
    /// This worker's slot.
    pub slot: WorkerSlot,
}

/// Memory that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NotShared {
    /// The slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The server says no.
    #[error("the server says: {0}")]
    Refused(String),
}

impl SharedMemory {
    /// Opens what the server offers at these paths.
    ///
    /// # Errors
    ///
    /// [`NotShared`] if the server is not on this host, or not this user's.
    pub fn open(state_path: &Path, slot_path: &Path, layout: &Layout) -> Result<Self, NotShared> {
        Ok(SharedMemory {
            state: StateReader::open(state_path, layout)?,
            slot: WorkerSlot::open(slot_path, layout.num_values())?,
        })
    }
}
