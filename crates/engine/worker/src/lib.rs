//! A worker's and an evaluator's side of the protocol.
//!
//! Both have a `link` to the server, which repeats requests with growing pauses until they are answered, and
//! sees that the same run is served after a restart. [`worker_link`] pulls tower steps and pushes gradients over
//! it, in a `session` for each registration; [`follower_link`] gets checkpoints and tells scores.

mod link;

mod session;

pub mod worker_link;

pub mod follower_link;

pub use link::{LinkError, NotShared};
