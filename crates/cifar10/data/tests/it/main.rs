//! From an archive on a server to a batch: the crate as its users see it.

#![expect(clippy::unwrap_used, reason = "a test may stop where it fails")]
#![expect(clippy::print_stderr, reason = "a test tells why it is skipped")]

mod server;
mod small_set;

mod batches;
mod cifar10;
mod download;
mod golden;
mod obtain;
mod program;
