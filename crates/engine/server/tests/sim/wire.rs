//! The simulated network as tonic wants it: a server's sockets that die with it, and a connector.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use pserver_wire::client::Client;
use pserver_wire::transport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

use crate::death::Life;
use crate::model::layout;

/// The server's name in the simulated network.
pub(crate) const SERVER: &str = "server";
const PORT: u16 = 2222;

/// A worker finds out that its connection is dead after twice this: the real ten seconds would only
/// make simulations longer.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// A client of the simulated server.
pub(crate) fn client() -> Client {
    let connector = tower::service_fn(|_| async {
        let stream = TcpStream::connect((SERVER, PORT)).await?;
        Ok::<_, io::Error>(TokioIo::new(stream))
    });
    let channel = transport::endpoint(&format!("{SERVER}:{PORT}"), &layout())
        .expect("this is an address")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .connect_with_connector_lazy(connector);
    Client::over(channel, &layout())
}

/// The open sockets of the server, by the time they were accepted.
///
/// When a host is stopped, its tasks end in no certain order, and each would close its socket then.
/// So the sockets of a server that is killed are kept here and closed together, in their order:
/// nothing but the seed decides what is simulated.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Vec<Arc<Mutex<TcpStream>>>>);

impl Sockets {
    fn open(&self, stream: TcpStream) -> Arc<Mutex<TcpStream>> {
        let stream = Arc::new(Mutex::new(stream));
        locked(&self.0).push(Arc::clone(&stream));
        stream
    }

    /// Waits until the workers have closed them all.
    pub(crate) async fn all_closed(&self) {
        while !locked(&self.0).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn close(&self, stream: &Arc<Mutex<TcpStream>>) {
        locked(&self.0).retain(|other| !Arc::ptr_eq(other, stream));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connections to the server, which fail once its `life` is over. The owner of `sockets` must
/// outlive them all.
pub(crate) async fn incoming(
    life: Arc<Life>,
    sockets: Arc<Sockets>,
) -> io::Result<ReceiverStream<io::Result<MortalStream>>> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (accepted, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = MortalStream {
                stream: sockets.open(stream),
                sockets: Arc::clone(&sockets),
                life: Arc::clone(&life),
            };
            if accepted.send(Ok(stream)).await.is_err() {
                break;
            }
        }
    });
    Ok(ReceiverStream::new(incoming))
}

/// A socket of a process that may be dead: then nothing gets in or out any more, even while the
/// simulation still lets the process run to the end of its turn.
#[derive(Debug)]
pub(crate) struct MortalStream {
    stream: Arc<Mutex<TcpStream>>,
    sockets: Arc<Sockets>,
    life: Arc<Life>,
}

impl MortalStream {
    /// Does something with the socket, if the process lives.
    fn alive<T>(
        &self,
        act: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.life.is_over() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        act(Pin::new(&mut *locked(&self.stream)))
    }
}

impl Drop for MortalStream {
    fn drop(&mut self) {
        if !self.life.is_over() {
            self.sockets.close(&self.stream);
        }
    }
}

impl Connected for MortalStream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for MortalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.alive(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for MortalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.life.moment();
        self.alive(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive(|stream| stream.poll_shutdown(cx))
    }
}
