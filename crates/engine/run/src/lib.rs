//! What a run is: its settings, the layout of its variables, and which examples each tower step takes, in which order.
//!
//! Everything here is a plain value or a pure function of the run's seed and a position in the run. Nothing knows a
//! worker, a clock or a file. That is what lets any worker execute any tower step, lets a retried
//! step give the same gradient, and lets a finished run be audited example by example.
//!
//! Read in this order: [`step`] names the unit of work, [`data_set`] says how many examples there
//! are, [`sequence`] maps the one to the other, [`examples_digest`] proves afterwards what was used, and [`stream`] is
//! where randomness comes from. [`layout`] says what the variables are called and how they lie in memory, [`mode`] what
//! makes an update, [`config`] which settings belong to a run, [`state_digest`] what tells its states apart, and
//! [`score`] how good one is. [`member`] says who takes part, [`request`] what workers ask and are told, [`evidence`] what counts of a gradient, [`status`] how
//! the run stands, and [`record`] what happened to it. [`mod@printable`] cleans text that comes from others.

pub mod step;

pub mod data_set;

pub mod sequence;

pub mod examples_digest;

pub mod stream;

pub mod layout;

pub mod mode;

pub mod config;

pub mod state_digest;

pub mod score;

pub mod member;

pub mod request;

pub mod evidence;

pub mod status;

pub mod record;

pub mod printable;

pub use config::{DecayBy, Kernels, Numerics, RunConfig};
pub use data_set::DataSet;
pub use evidence::Evidence;
pub use examples_digest::ExamplesDigest;
pub use layout::{Initializer, Layout, VariableSpec};
pub use mode::Mode;
pub use printable::printable;
pub use score::{Confusion, EvalData, Score, ScoredVariables};
pub use sequence::{InputKind, Sample, SampleSequence};
pub use state_digest::StateDigest;
pub use step::{GlobalStep, Tower, TowerStep};
