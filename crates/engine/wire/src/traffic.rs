//! Counts the bytes of connections, for the page's metrics.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use pserver_guard::admission::{Guarded, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

/// Bytes that went over a server's connections, in both directions.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Bytes that came in.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that went out.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The same connections, whose bytes are counted in `traffic`.
pub fn counted(
    incoming: impl Stream<Item = Guarded>,
    traffic: Arc<Traffic>,
) -> impl Stream<Item = io::Result<CountedStream>> {
    incoming.map(move |stream| {
        Ok(CountedStream {
            stream,
            traffic: Arc::clone(&traffic),
        })
    })
}

/// A connection whose bytes are counted, before they are encrypted.
#[derive(Debug)]
pub struct CountedStream {
    stream: Guarded,
    traffic: Arc<Traffic>,
}

impl CountedStream {
    fn note_sent(&self, sent: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = sent {
            self.traffic
                .sent
                .fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

impl Connected for CountedStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.stream.peer()
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let bytes = (buffer.filled().len() - before) as u64;
        self.traffic.received.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_sent(&sent);
        sent
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.note_sent(&sent);
        sent
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use pserver_guard::admission::admit;
    use pserver_guard::door::Capacity;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test]
    async fn what_comes_and_goes_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let traffic = Arc::new(Traffic::default());
        let incoming = ReceiverStream::new(admit(listener, None, Capacity::default()));
        let mut streams = Box::pin(counted(incoming, Arc::clone(&traffic)));
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut server = streams.next().await.unwrap().unwrap();

        client.write_all(&[1; 70_000]).await.unwrap();
        server.read_exact(&mut [0; 70_000]).await.unwrap();
        server.write_all(&[1; 300]).await.unwrap();
        let written = server.write_vectored(&[IoSlice::new(&[2; 20])]).await;
        assert_eq!(written.unwrap(), 20);
        client.read_exact(&mut [0; 320]).await.unwrap();
        assert_eq!((traffic.received(), traffic.sent()), (70_000, 320));
        assert!(server.is_write_vectored());
    }
}
