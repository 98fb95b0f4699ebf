//! What the state file keeps with each state, besides the state.

use std::borrow::Cow;

use pserver_core::AppliedSerials;
use pserver_core::decisions::MAX_AHEAD;
use pserver_ledger::Line;
use pserver_run::RunConfig;
use serde::{Deserialize, Serialize};

/// The run that a state belongs to, and the commit that led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note<'a> {
    /// The run's configuration.
    pub run: Cow<'a, RunConfig>,
    /// The ledger's line of the commit, which a kill may have kept from being appended; `None`
    /// where a server started with the state.
    pub commit: Option<Cow<'a, Line>>,
    /// The tower steps that were applied, in asynchronous mode.
    pub applied: Option<Cow<'a, AppliedSerials>>,
}

impl Note<'_> {
    /// Its text form.
    ///
    /// # Panics
    ///
    /// Never: a note has no map with keys that JSON lacks.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a note is numbers and names")
    }
}

/// Room for the notes of a run: its configuration takes less than two kilobytes, a tower of a
/// commit about 300 bytes, and an applied serial number at most 21.
#[must_use]
pub fn max_note_bytes(num_towers: u32) -> usize {
    4096 + 512 * num_towers as usize + MAX_SERIALS_BYTES
}

/// The serial numbers that were applied ahead of one that was not, with their commas.
const MAX_SERIALS_BYTES: usize = 22 * (MAX_AHEAD + 1);
