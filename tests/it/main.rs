//! Do the programs work? Each test starts real processes and looks at what anybody could see of
//! them: exit codes, what they write, the files they leave, and the status that a server gives.
//!
//! Servers listen on port 0, every wait has a deadline, and nothing sleeps in the hope that
//! something has happened meanwhile. A test that fails prints what its programs wrote.

#![expect(clippy::unwrap_used, reason = "a test may stop where it fails")]
#![expect(clippy::print_stderr, reason = "a test tells what it saw")]

mod authority;
mod browser;
mod cluster;
mod files;
mod http;
mod network;
mod program;
mod python;
mod rendering;
mod terminal;

mod training;

mod resuming;
mod survival;
mod top;

mod chaos;
mod commit_points;
mod data_plane;
mod hosts;
mod same_bits;

mod attacks;
mod limits;
mod security;

mod bad_data;
mod console;
mod disk;
mod divergence;
mod faulty_disk;
mod modes;
mod train_dir;
mod usage;

mod evaluation;
mod gpu;
mod launcher;
mod layers;
mod ledger;
mod metrics;
mod page;
mod predict;
mod real_data;
mod tensorboard;

mod bench;

mod documents;
mod logs;
mod manifests;
mod tidy;
