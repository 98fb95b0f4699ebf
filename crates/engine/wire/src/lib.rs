//! What the processes tell each other.
//!
//! [`messages`] are plain types; the rest of the workspace knows only these. The code generated
//! from `proto/cifar/ps/v1/parameter_server.proto` stays inside this crate: `convert` checks what
//! arrives and turns it into messages, `follower` those of an evaluator. [`server`] says what a server has to do,
//! [`service`] and [`tensor_routes`] let it be asked, and [`client`] asks; tensors go through `framing`.
//! [`transport`] sets both ends of a connection alike, and [`traffic`] counts its bytes. Before
//! each request stands a [`doorkeeper`], who looks into the table of [`access`]; a client shows who it is
//! with the [`channel`], `in_flight` counts the requests that are under way, and answers
//! stay in memory as long as `unread` says. A worker
//! on the server's host hands its gradients over in a [`gradient_slot`] instead; in a [`gradient_buffer`] they are
//! computed for either way, and as a [`gradient`] the server has them.

pub mod messages;

pub mod data_plane;

pub mod gradient;

pub mod gradient_buffer;

pub mod gradient_slot;

mod shared_copy;

mod method;

mod convert;

mod follower;

pub mod transport;

pub mod traffic;

pub mod access;

pub mod doorkeeper;

pub mod channel;

mod in_flight;

mod unread;

mod framing;

pub mod server;

pub mod tensor_routes;

pub mod service;

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
