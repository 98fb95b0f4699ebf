//! The parameter server.
//!
//! What is decided, and computed, is decided in `pserver-core`. Here a [`run`] has the newest state besides, as a [`snapshot`], says what
//! [`saves`] are to be made, and knows what people look at: `loss_averages` and [`summaries`]. What happens to it is
//! told as an [`event`], of which `log_lines` and `step_log` are the log.
//!
//! Around it is a thin shell: [`service`] answers the wire and looks into `slots` and
//! [`follower_files`], [`commit_path`] takes an update into the files, with a [`note`] beside the state and a record in
//! the ledger, dated by the [`calendar`], and has a [`commit_point`] wherever a test may have the server die; `serve`
//! runs until the end, [`train_dir`] keeps the files, [`server_file`] says where it listens, [`start`] goes on with
//! them, `summary_writer` writes what TensorBoard shows, [`args`] and [`config`] are the command line, and `program`
//! is `main`. `page` shows the run in a browser and to Prometheus, `inquiry` is what the program says about
//! a run instead of serving it, and `administration` what it tells a running server to do.
//!
//! The server is one lock around a [`run`] and the way of its commits. A pull that finds nothing to do waits in a
//! queue, and whatever changes the run answers those who wait, under the same lock; a push that completes a step
//! commits under it too, which takes two milliseconds, while nobody has anything else to do. `serve` ticks four times
//! a second to end leases. Checkpoints are written on another thread from an immutable snapshot, one state at a time,
//! then the newest that was due meanwhile, so that a slow disk costs two slots of the state file. Events on their way
//! to people have an end too.

mod loss_averages;

pub mod summaries;

pub mod event;

pub mod snapshot;

pub mod saves;

pub mod run;

mod log_lines;

pub mod note;

pub mod calendar;

pub mod commit_path;

pub mod commit_point;

mod slots;

pub mod follower_files;

pub mod service;

mod serve;

mod step_log;

mod summary_writer;

pub mod server_file;

pub mod train_dir;

pub mod start;

pub mod args;

pub mod config;

mod date_header;

mod page;

mod inquiry;

mod administration;

mod program;

#[cfg(test)]
mod fixtures;

pub use args::Args;
pub use program::main;
