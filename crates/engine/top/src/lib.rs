//! `cifar-ps top`: a run on the terminal, wherever its server is.
//!
//! [`feed`] follows the server's ledger and keeps following it when the server is away; its lines are
//! folded into a `RunView`, as for the page; [`screen`] draws that, with [`lanes`] for the workers; and
//! [`program`] has the terminal, the keys and the end.

pub mod feed;

pub mod lanes;

pub mod screen;

pub mod program;

pub use program::run;
