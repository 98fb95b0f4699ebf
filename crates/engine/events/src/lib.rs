//! TensorBoard event files, as TensorFlow wrote them.
//!
//! A program opens an [`EventFile`] in the folder that TensorBoard looks at, and writes a [`Summary`]
//! of a step into it now and then: scalars, [`Histogram`]s and [`Image`]s, each under its tag. The
//! crate knows nothing of training and reads no clock: times are arguments, counted from 1970.
//!
//! ```
//! # use std::time::Duration;
//! # use pserver_events::{EventFile, Histogram, Summary};
//! # let folder = tempfile::tempdir()?;
//! # let now = Duration::from_secs(1_700_000_000);
//! let mut events = EventFile::create(folder.path(), now, "node7")?;
//! let mut summary = Summary::default();
//! summary.scalar("total_loss", 4.68);
//! summary.histogram("conv1/biases", &Histogram::of(&[0.0, 0.1, 0.1]));
//! events.write(now, 100, summary)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read in this order: [`summary`] is what is written, made of [`histogram`] and [`image`];
//! [`event_file`] writes it, in the frames of `record` and the protocol buffers of `messages`.
//!
//! Frames, five messages and TensorFlow's histogram buckets are 500 lines; the crates for them are old, and lack
//! images, histograms or the start of a session.

pub mod summary;

pub mod histogram;

pub mod image;

pub mod event_file;

mod record;

mod messages;

pub use event_file::{EventFile, EventFileError};
pub use histogram::Histogram;
pub use image::Image;
pub use summary::Summary;
