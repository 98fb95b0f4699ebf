//! What the processes tell each other.
//!
//! [`messages`] are plain types; the rest of the workspace knows only these. The code generated
//! from `proto/cifar/ps/v1/parameter_server.proto` stays inside this crate: `convert` checks what
//! arrives and turns it into messages, `follower` those of an evaluator, [`server`] and [`client`] are the
//! two ends, [`transport`] sets both ends of a connection alike, and [`traffic`] counts its bytes. A worker
//! on the server's host hands its gradients over in a [`gradient_slot`] instead.

pub mod messages;

pub mod data_plane;

pub mod gradient_slot;

mod shared_copy;

mod convert;

mod follower;

pub mod transport;

pub mod traffic;

pub mod server;

pub mod client;

/// Generated from the proto; documented there.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all
)]
mod pb {
    tonic::include_proto!("cifar.ps.v1");
}
