//! What every program has in common: how it ends, what it writes where, when it leaves.
//!
//! stdout carries results and the one line `listening ADDR`; stderr carries the tutorial's lines,
//! logs and progress.
//!
//! Libraries have one enum of errors each; a program gives each way to fail an exit code ([`exit`]). Outcomes that are
//! no errors (stale, ahead, not yet) are answers.

pub mod args;

pub mod console;

pub mod exit;

mod log_format;

pub mod logging;

pub mod signals;

pub mod host;

pub mod priority;

pub mod shell;

/// Release and commit of the program, for `--version`.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("CIFAR_PS_COMMIT"),
    ")"
);
