//! The parameter server.
//!
//! The arithmetic and the decisions are pure: [`schedule`], [`optimizer`], [`averages`] and
//! [`commit`] turn one state and its gradients into the next; [`membership`], [`assignment`],
//! [`pace`], [`patience`], [`scrutiny`], [`serials`] and [`aggregator`] know who works on what, how
//! fast, what to believe and what has come in, and [`followers`] who looks on; [`loss_averages`] and
//! [`summaries`] are what people look at; [`training`] puts them together, answers every request,
//! tells of every [`event`], says what [`saves`] are to be made, and makes each [`update`]. None of them reads a clock,
//! takes a lock or waits.
//!
//! Around them is a thin shell: [`service`] answers the wire and looks into [`shared_memory`] and
//! [`follower_files`], [`commit_path`] takes an update into the files, with a [`note`] beside the state and a record in the ledger, dated by
//! the [`calendar`], and has a [`commit_point`] wherever a test may have the server die; [`serve`] runs until the end, [`train_dir`] keeps the
//! files, [`server_file`] says where it listens, [`start`] goes on with them, [`step_log`] writes the tutorial's lines, [`summary_writer`] what
//! TensorBoard shows, [`args`] and [`config`] are the command line, and [`program`] is `main`.
//! [`page`] shows the run in a browser and to Prometheus, [`inquiry`] is what the program says about
//! a run instead of serving it, and [`administration`] what it tells a running server to do.

pub mod schedule;

pub mod optimizer;

pub mod averages;

pub mod commit;

pub mod membership;

pub mod assignment;

pub mod pace;

pub mod patience;

pub mod scrutiny;

pub mod serials;

pub mod loss_averages;

pub mod summaries;

pub mod followers;

pub mod event;

pub mod saves;

pub mod update;

pub mod aggregator;

pub mod training;

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

pub use args::Args;
pub use program::main;
