//! The decisions and the arithmetic of a parameter server.
//!
//! Everything here is a function of its arguments: nothing reads a clock, opens a file or a socket, takes a lock or
//! waits; a test (`tests/it/layers.rs`) sees that it cannot.
//!
//! The arithmetic: [`schedule`], [`mod@mean`], `optimizer` and [`averages`] make up a [`mod@commit`], which turns
//! variables and gradients into the next variables.
//!
//! The decisions: `membership`, `assignment`, `pace`, `patience`, `scrutiny`, [`serials`] and `aggregator`
//! know who works on what, how fast, what to believe of each [`contribution`] and what has come in, and `followers`
//! who looks on. [`decisions`] puts them together, answers every request, tells of every [`fact`], and makes each
//! [`update`].

pub mod schedule;

pub mod mean;

mod optimizer;

pub mod averages;

pub mod commit;

mod membership;

mod assignment;

mod pace;

mod patience;

mod scrutiny;

pub mod serials;

pub mod contribution;

mod aggregator;

mod followers;

pub mod fact;

pub mod update;

pub mod decisions;

/// A small run for the tests of this crate.
#[cfg(test)]
mod fixtures;

pub use decisions::{Core, Decision, Given, Limits, Phase};
pub use fact::{Fact, Notice};

pub use serials::AppliedSerials;
pub use update::{At, Update};
