//! What can be seen of a run: its ledger, folded line by line into a [`RunView`].
//!
//! A view takes the same memory after ten steps and after ten million: the [`curve`] thins out, the
//! [`lane`]s of the workers, the [`times`] of the steps and the [`happenings`] keep the last ones, and
//! [`counts`] are numbers. [`scores`] come from a file of their own. [`changes`] are what changed since
//! somebody looked last, as JSON.
//!
//! Pure: no file, no clock, no network. A program that has the lines of a ledger, from its file or from
//! elsewhere, folds them.

pub mod curve;

pub mod lane;

pub mod times;

pub mod happenings;

pub mod counts;

pub mod scores;

pub mod run_view;

pub mod changes;

pub use changes::{Changes, Cursor};
pub use run_view::{RunState, RunView};
pub use scores::Score;
