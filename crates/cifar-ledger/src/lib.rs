//! The ledger of a run: what was committed, by whom, when, and what came in between.
//!
//! [`record`] says what can stand in it, [`ledger_file`] is how the server writes it, and [`opening`]
//! what it writes first. Nothing here
//! decides anything about a run, and nothing reads a clock.

pub mod record;

pub mod ledger_file;

pub mod opening;

pub use ledger_file::{Head, LedgerError, LedgerFile};
pub use opening::opening_lines;
pub use record::{Commit, Line, Record};

/// Records for the tests of this crate.
#[cfg(test)]
pub(crate) mod fixtures;
