//! The sample sequence: which examples a tower step takes, and in which order.
//!
//! Everything here is a pure function of the run's seed and a position in the run. Nothing knows a
//! worker, a clock or a file. That is what lets any worker execute any tower step, lets a retried
//! step give the same gradient, and lets a finished run be audited example by example.
//!
//! Read in this order: [`step`] names the unit of work, [`data_set`] says how many examples there
//! are, [`sequence`] maps the one to the other,
//! [`examples_digest`] proves afterwards what was used, and [`stream`] is where randomness comes from.

pub mod step;

pub mod data_set;

pub mod sequence;

pub mod examples_digest;

pub mod stream;

pub use data_set::DataSet;
pub use examples_digest::ExamplesDigest;
pub use sequence::{InputKind, Sample, SampleSequence};
pub use step::{GlobalStep, Tower, TowerStep};
