//! The settings of a connection, the same at both ends.
//!
//! Tensors travel in parts, one a message, and messages have a limit of their own that does not depend on
//! the model. The windows follow from the layout, because HTTP/2's begin at 65,535 bytes, so that a push
//! would stop 65 times to be let on.

use std::time::Duration;

use cifar_params::Layout;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

/// HTTP/2 frames of this size moved most bytes per second; larger ones were slower.
const FRAME_BYTES: u32 = 256 * 1024;

/// Largest part of a tensor in a message. Both ends buffer a few of them for each connection; smaller ones
/// cost more time.
pub const PART_BYTES: usize = 128 * 1024;

/// The largest message that is taken: far more than a part, and enough for the status of thousands of
/// workers.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Bytes of a tensor's messages besides the tensor: lengths, keys and digests.
const OVERHEAD_BYTES: usize = 64 * 1024;

/// A peer that does not answer a ping for this long is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest checkpoint of a model of this layout: variables and averages, and a header of which no
/// part is anywhere near as large as this.
#[must_use]
pub fn max_checkpoint_bytes(layout: &Layout) -> usize {
    const HEADER_BYTES: usize = 1 << 20;
    2 * layout.size_bytes() + HEADER_BYTES
}

/// A window that a whole push fits through without waiting to be let on.
fn window_bytes(layout: &Layout) -> u32 {
    const MAX_WINDOW_BYTES: usize = (1 << 31) - 1;
    (layout.size_bytes() + OVERHEAD_BYTES).min(MAX_WINDOW_BYTES) as u32
}

/// The connections that come to `listener`, which send what they have at once.
///
/// tonic's own setting of that does not reach connections that it has not accepted itself. Without
/// it the last piece of a pull waits until the worker has acknowledged those before, which the worker
/// does 40 ms later.
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
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// An address that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no server address; give HOST:PORT, such as 127.0.0.1:2222")]
pub struct BadAddress(String);

/// A connection to `address` (`HOST:PORT`), made at the first request and again after a failure.
///
/// # Errors
///
/// [`BadAddress`] if the text is no address; that nobody listens there shows at the first request.
pub fn connect(address: &str, layout: &Layout) -> Result<Channel, BadAddress> {
    Ok(endpoint(address, layout)?.connect_lazy())
}

/// The server's address with the connection settings of this protocol, for whoever connects in a
/// way of their own: over a simulated network, say.
///
/// # Errors
///
/// [`BadAddress`] if the text is no address.
pub fn endpoint(address: &str, layout: &Layout) -> Result<Endpoint, BadAddress> {
    let bad = || BadAddress(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(window_bytes(layout))
        .initial_connection_window_size(window_bytes(layout))
        .max_frame_size(FRAME_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}
