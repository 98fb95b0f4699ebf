//! The parameter server.
//!
//! What is decided, and computed, is decided in `pserver-core`. Here a [`run`] has the newest state besides, says what
//! [`saves`] are to be made, and knows what people look at: [`loss_averages`] and [`summaries`]. What happens to it is
//! told as an [`event`], of which [`log_lines`] and [`step_log`] are the log.
//!
//! Around it is a thin shell: [`service`] answers the wire and looks into [`shared_memory`] and
//! [`follower_files`], [`commit_path`] takes an update into the files, with a [`note`] beside the state and a record in
//! the ledger, dated by the [`calendar`], and has a [`commit_point`] wherever a test may have the server die; [`serve`]
//! runs until the end, [`train_dir`] keeps the files, [`server_file`] says where it listens, [`start`] goes on with
//! them, [`summary_writer`] writes what TensorBoard shows, [`args`] and [`config`] are the command line, and [`program`]
//! is `main`. [`page`] shows the run in a browser and to Prometheus, [`inquiry`] is what the program says about
//! a run instead of serving it, and [`administration`] what it tells a running server to do.

pub mod loss_averages;

pub mod summaries;

pub mod event;

pub mod saves;

pub mod run;

pub mod log_lines;

pub mod note;

pub mod calendar;

pub mod commit_path;

pub mod commit_point;

pub mod shared_memory;

pub mod follower_files;

pub mod service;

pub mod serve;

pub mod step_log;

pub mod summary_writer;

pub mod server_file;

pub mod train_dir;

pub mod start;

pub mod args;

pub mod config;

mod date_header;

pub mod page;

pub mod inquiry;

pub mod administration;

pub mod program;

#[cfg(test)]
mod fixtures;

pub use args::Args;
pub use program::main;
