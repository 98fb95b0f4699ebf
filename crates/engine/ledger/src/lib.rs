//! The ledger of a run: what was committed, by whom, when, and what came in between.
//!
//! [`record`] says what can stand in it, [`ledger_file`] is how the server writes it, and [`opening`]
//! what it writes first. [`line_reader`] reads its lines and skips those that are damaged ([`damage`]);
//! [`tail`] reads a ledger while it grows; [`history`] is a whole ledger read again. From a history [`verify()`] proves that every example was used exactly once, [`diff()`]
//! finds where two runs part, and [`explain()`] and [`explain_step()`] tell people where the time went
//! and who did what, and a [`summary`] does so in a few lines.
//!
//! Beside the ledger lie the scores of the run's checkpoints: a [`score_record`] of each in the
//! [`eval_dir`], with a [`confusion_chart()`] of the newest.
//!
//! Nothing here decides anything about a run, and nothing reads a clock.

pub use pserver_run::record;

#[cfg(test)]
mod record_text;

mod backwards;

pub mod ledger_file;

pub mod witness;

pub mod opening;

pub mod damage;

pub mod line_reader;

pub mod tail;

pub mod history;

mod replay;

mod coverage;

pub mod proof;

pub mod verify;

pub mod diff;

pub mod step_time;

pub mod workers;

pub mod straggler;

pub mod incidents;

pub mod explain;

pub mod explain_step;

pub mod summary;

pub mod score_record;

pub mod confusion_chart;

pub mod eval_dir;

mod units;

pub use confusion_chart::confusion_chart;
pub use damage::Damage;
pub use diff::{Difference, diff};
pub use eval_dir::{EvalDir, EvalDirError, EvalWriter, read_scores};
pub use explain::{Explanation, explain};
pub use explain_step::{StepExplanation, explain_step};
pub use history::History;
pub use ledger_file::{Head, LedgerError, LedgerFile};
pub use line_reader::LineReader;
pub use opening::opening_lines;
pub use proof::{Findings, Proof};
pub use record::{Commit, Line, Record};
pub use score_record::ScoreRecord;
pub use summary::Summary;
pub use tail::{LedgerTail, News};
pub use units::{count, duration, median};
pub use verify::verify;
pub use witness::Witness;

#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
