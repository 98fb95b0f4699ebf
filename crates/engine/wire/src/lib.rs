//! What the processes tell each other.
//!
//! [`messages`] are plain types; the rest of the workspace knows only these. The code generated
//! from `proto/pserver/v1/parameter_server.proto` stays inside this crate: `convert` checks what
//! arrives and turns it into messages, `follower` those of an evaluator. [`server`] says what a server has to do,
//! [`service`] and [`tensor_routes`] let it be asked, and [`client`] asks; tensors go through `framing`.
//! [`transport`] sets both ends of a connection alike, and [`traffic`] counts its bytes. Before
//! each request stands a [`doorkeeper`], who looks into the table of [`access`]; a client shows who it is
//! with the [`channel`], `in_flight` counts the requests that are under way, and answers
//! stay in memory as long as `unread` says. A worker
//! on the server's host hands its gradients over in a [`gradient_slot`] instead; in a [`gradient_buffer`] they are
//! computed for either way, and as a [`gradient`] the server has them.
//!
//! Control messages are always gRPC. A registered worker asks for shared memory; the server offers two paths,
//! `/proc/PID/fd/N` of its state file and of a slot for this worker's gradients, which is a sealed memory file without
//! a name. The kernel lets only processes of the same host, container and user open them, and the worker shows by a
//! nonce that it has found the right one; only then is memory reserved and used. From there on `Work` names a sequence
//! number in the state file, and `Push` a generation in the slot; a late duplicate finds another generation and is
//! refused. Where any of this fails, variables and gradients travel. There is nothing to clean up: the memory goes with
//! the last process that has it open.
//!
//! Over the wire tensors travel in parts of 255 KiB, one a message, a push from the last to the first, as gradients
//! become ready: the head's, nine tenths of all, travel while the trunk's are computed. The stream is what makes the
//! parts one push: they are put where they belong in one buffer as they come, and forgotten if the last does not come,
//! so that nothing has to be kept, keyed or cleared up. A worker repeats such a push as a whole. Variables come in the
//! same way; so the server holds no tensor twice, and what a message may be does not depend on the model. The bodies of
//! these two requests go around the generated code and tonic's buffers: a part goes from the tensor's memory into the
//! socket, and from the frame that came to where it belongs, with no copy between.
//!
//! An accepted push is answered together with the pull that follows it: one request per tower step, under way from the
//! moment that the first gradients are.

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
    tonic::include_proto!("pserver.v1");
}
