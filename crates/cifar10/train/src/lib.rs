//! The launcher: starts a parameter server and workers on this machine, shows the run and scores
//! it, as `torchrun` starts a PyTorch job. It computes nothing itself.
//!
//! [`args`] is the command line, most of which is the server's; [`data_choice`] decides what is
//! trained on; [`token`] keeps other users out; [`flags`] is what a program is told, [`processes`] starts and ends the programs; [`supervise`] watches them until the run
//! is over, and [`evaluator`] the one that scores meanwhile; [`progress`] shows the run on a terminal,
//! [`summary`] tells how it went; [`program`] is `main`.
//!
//! It takes the server's flags from the server's own definition and hands on what was typed, so that a flag is
//! described once. A program that it started leaves when its stdin ends, a pipe whose other end only the launcher
//! holds: so it ends with the launcher, even if that was killed before the program had begun.

pub mod args;

pub mod data_choice;

pub mod token;

pub mod flags;

pub mod processes;

pub mod progress;

pub mod evaluator;

pub mod supervise;

pub mod summary;

pub mod program;

pub use program::main;
