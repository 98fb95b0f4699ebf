//! What every decoder has to keep to for any bytes: the bodies of the fuzz targets.
//!
//! A target is a function of bytes that panics where a decoder does what it must not. [`TARGETS`] are all
//! of them. Two callers have them: the programs in `fuzz/`, in which libFuzzer looks for bytes that lead
//! further into the code, and the tests of this crate, which try every seed and everything that was ever found,
//! and bytes at random, in any build.
//!
//! The seeds of target `T` are the files in `fuzz/seeds/T`. What was found wrong is among them, under a
//! name that says what it was.

pub mod wire_request;

pub mod wire_push;

pub mod wire_reply;

pub mod records;

pub mod archive;

pub mod checkpoint;

pub mod state_file;

pub mod ledger;

pub mod run_view;

mod run_config;

pub mod seeds;

pub mod pieces;

mod layout;

mod question;

mod in_memory;

mod recorder;

mod scratch;

/// Panics where a decoder does with these bytes what it must not.
pub type Target = fn(&[u8]);

/// The targets, by name.
pub const TARGETS: [(&str, Target); 12] = [
    ("wire_request", wire_request::wire_request),
    ("wire_push", wire_push::wire_push),
    ("wire_reply", wire_reply::wire_reply),
    ("records", records::records),
    ("data_folder", records::data_folder),
    ("archive", archive::archive),
    ("checkpoint", checkpoint::checkpoint),
    ("state_file", state_file::state_file),
    ("ledger", ledger::ledger),
    ("ledger_file", ledger::ledger_file),
    ("scores", ledger::scores),
    ("run_view", run_view::run_view),
];
