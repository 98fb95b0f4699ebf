//! The settings of a connection, the same at both ends.
//!
//! Tensors travel in parts, one a message, and messages have a limit of their own that does not depend on
//! the model. The windows follow from the layout, because HTTP/2's begin at 65,535 bytes, so that a push
//! would stop 65 times to be let on.
//!
//! Socket buffers are left to the kernel. It sizes them to the path as it goes; a fixed size would be cut to what the
//! system allows, and hold back the hosts far apart, which are those that use the wire.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use pserver_guard::Credentials;
pub use pserver_guard::address::BadAddress;
use pserver_guard::address::host_and_port;
use pserver_guard::connection::{self, Refusal};
use pserver_guard::limits::{KEEPALIVE, MAX_HEADER_BYTES, MAX_STREAMS, REQUEST_DEADLINE};
use pserver_run::Layout;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

use crate::channel::SecureChannel;

/// HTTP/2 frames of this size moved most bytes per second; larger ones were slower.
const FRAME_BYTES: u32 = 256 * 1024;

/// Largest part of a tensor in a message: with what else may stand in one, a message has 256 KiB at
/// most. Parts of 64 and of 128 KiB were slower, each of which wakes its receiver, and so were those
/// of 256 and of 512 KiB.
pub const PART_BYTES: usize = MAX_REQUEST_BYTES - 1024;

/// The largest answer that is taken: far more than a part, and enough for the status of thousands of
/// workers.
pub(crate) const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The largest request that is taken: a part of a gradient or a summary, and what else stands with it.
pub(crate) const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// Bytes of a tensor's messages besides the tensor: lengths, keys and digests.
const OVERHEAD_BYTES: usize = 64 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest checkpoint of a model of this layout: variables and averages, and a header of which no
/// part is anywhere near as large as this.
#[must_use]
pub fn max_checkpoint_bytes(layout: &Layout) -> usize {
    const HEADER_BYTES: usize = 1 << 20;
    2 * layout.size_bytes() + HEADER_BYTES
}

/// A window that holds a whole push, or an answer of any kind: the sender need not pause for the receiver.
fn window_bytes(layout: &Layout) -> u32 {
    const MAX_WINDOW_BYTES: usize = (1 << 31) - 1;
    let largest = layout.size_bytes().max(MAX_ANSWER_BYTES);
    (largest + OVERHEAD_BYTES).min(MAX_WINDOW_BYTES) as u32
}

/// The connections that come to `listener`, for a stand-in of a server in a test or a benchmark: let in as they
/// come. A server's own come by `pserver_guard::admission`.
///
/// They send what they have at once. tonic's own setting of that does not reach connections that it has not
/// accepted itself, and without it the last piece of a pull waits 40 ms.
#[must_use]
pub fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// A server with the connection settings of this protocol, for [`incoming`] connections.
#[must_use]
pub fn server_builder(layout: &Layout) -> Server {
    Server::builder()
        .initial_stream_window_size(window_bytes(layout))
        .initial_connection_window_size(window_bytes(layout))
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .timeout(REQUEST_DEADLINE)
}

/// A connection to `address` (`HOST:PORT`), made at the first request and again after a failure.
///
/// # Errors
///
/// [`BadAddress`] if the text is no address; that nobody listens there shows at the first request.
pub fn connect(
    address: &str,
    layout: &Layout,
    credentials: &Credentials,
) -> Result<SecureChannel, BadAddress> {
    let endpoint = endpoint(address, layout)?;
    let refusal = Refusal::default();
    let (host, port) = host_and_port(address)?;
    let host = host.to_owned();
    let connector = {
        let (credentials, refusal) = (credentials.clone(), refusal.clone());
        tower::service_fn(move |_| {
            // As the files are now: they may have been renewed since the last connection.
            let tls = credentials.tls();
            let (host, refusal) = (host.clone(), refusal.clone());
            async move {
                let connected = connection::connect(&host, port, tls, refusal).await;
                connected.map(TokioIo::new)
            }
        })
    };
    let channel = endpoint.connect_with_connector_lazy(connector);
    Ok(SecureChannel::new(channel, credentials.clone(), refusal))
}

/// The server's address with the connection settings of this protocol, for a caller that connects in a
/// way of their own: over a simulated network, say.
///
/// # Errors
///
/// [`BadAddress`] if the text is no address.
pub fn endpoint(address: &str, layout: &Layout) -> Result<Endpoint, BadAddress> {
    host_and_port(address)?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    Ok(endpoint
        .expect("an address is the beginning of a URL")
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(window_bytes(layout))
        .initial_connection_window_size(window_bytes(layout))
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}
