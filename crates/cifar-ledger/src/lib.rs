//! The ledger of a run: what was committed, by whom, when, and what came in between.
//!
//! [`record`] says what can stand in it, [`ledger_file`] is how the server writes it. Nothing here
//! decides anything about a run, and nothing reads a clock.

pub mod record;

pub mod ledger_file;

pub use ledger_file::{LedgerError, LedgerFile};
pub use record::{Commit, Line, Record};

/// Records for the tests of this crate.
#[cfg(test)]
pub(crate) mod fixtures;
