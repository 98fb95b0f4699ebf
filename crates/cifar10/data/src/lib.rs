//! CIFAR-10 bytes to batches.
//!
//! Takes a data set's name and a folder; gives batches of standardized 24x24 images as plain
//! `Vec<f32>`. It knows no tensor library, no server and no worker, and reads no clock except to
//! give up on a network or a lock. Which examples a batch holds is decided in `pserver-run`.
//!
//! Read in this order, the way of the bytes:
//!
//! - [`dataset`] is the whole set in memory, in each [`split`]; [`record`] is one example of it.
//! - [`obtain`] gets CIFAR-10 onto the disk once, whatever number of processes ask for it:
//!   [`manifest`] says what it should be, [`lock`] lets one process in, [`download`] fetches
//!   (with [`progress`]), [`unpack`] unpacks, [`verify`] reads and checks.
//! - [`synthetic`] draws a set that needs no download.
//! - [`distort`] turns a record into an image; [`pipeline`] turns samples into a batch;
//!   [`prefetch`] has the next batch ready before it is asked for.
//! - [`args`] are the flags that say where the set is; [`error`] is what can go wrong in all of this.
//! - [`program`] gets the set and does nothing else.

pub mod split;

pub mod dataset;
pub mod record;

pub mod manifest;
pub mod obtain;

pub mod digest;
pub mod download;
pub mod lock;
pub mod progress;
pub mod unpack;
pub mod verify;

pub mod synthetic;

pub mod distort;
pub mod pipeline;
pub mod prefetch;

pub mod args;
pub mod error;
pub mod program;

pub use dataset::Dataset;
pub use digest::Sha256Digest;
pub use download::{Patience, Source};
pub use error::DataError;
pub use obtain::WhenAbsent;
pub use pipeline::Batch;
pub use prefetch::Prefetcher;
pub use split::Split;
