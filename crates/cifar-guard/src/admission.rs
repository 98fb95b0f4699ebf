//! Takes connections in: as many as the door allows, over TLS where that is asked for, each with a
//! deadline by which it has to have been let in.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::{debug, info};

use crate::door::{Capacity, Door, Knock, Ticket};
use crate::identity::Identity;
use crate::limits::{ENTRY_DEADLINE, REFUSAL_LINES, REQUESTS, SOCKET_KEEPALIVE};
use crate::rate::Allowance;
use crate::watched::Watched;

/// TLS of a port, if it has any.
pub type PortTls = Option<Watched<ServerConfig>>;

/// The pause after a connection that could not be accepted: the system is out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a peer may take to read why it is refused.
const PARTING: Duration = Duration::from_secs(1);

/// Connections that have been taken in and that nobody has looked at.
const TAKEN_IN: usize = 16;

/// The connections that come to `listener` and may ask, until nobody takes them any more.
#[must_use]
pub fn admit(listener: TcpListener, tls: PortTls, capacity: Capacity) -> mpsc::Receiver<Guarded> {
    let (taken_in, connections) = mpsc::channel(TAKEN_IN);
    let hall = Arc::new(Hall {
        tls,
        inner: Mutex::new(Inner {
            door: Door::new(capacity),
            waiting: BTreeMap::new(),
            refusal_lines: Allowance::new(Instant::now(), REFUSAL_LINES),
        }),
    });
    tokio::spawn(accept(listener, hall, taken_in));
    connections
}

async fn accept(listener: TcpListener, hall: Arc<Hall>, taken_in: mpsc::Sender<Guarded>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = taken_in.closed() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some((place, evicted)) = hall.knock(address) {
                    let hall = Arc::clone(&hall);
                    tokio::spawn(welcome(stream, place, evicted, hall, taken_in.clone()));
                }
            }
            Err(error) => {
                debug!(%error, "connection is not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Shakes hands, and hands the connection on.
async fn welcome(
    stream: TcpStream,
    place: Place,
    mut evicted: oneshot::Receiver<()>,
    hall: Arc<Hall>,
    taken_in: mpsc::Sender<Guarded>,
) {
    let address = place.address;
    let deadline = Box::pin(tokio::time::sleep(ENTRY_DEADLINE));
    let shaken = tokio::select! {
        shaken = shake_hands(stream, &hall) => shaken,
        // A sender that is dropped is one that tells.
        _ = &mut evicted => Err(io::Error::other("others come in its place")),
        () = tokio::time::sleep(ENTRY_DEADLINE) => Err(io::ErrorKind::TimedOut.into()),
    };
    match shaken {
        Ok((stream, certificate)) => {
            let peer = Peer(Arc::new(PeerState {
                certificate,
                is_let_in: AtomicBool::new(false),
                allowance: Mutex::new(Allowance::new(Instant::now(), REQUESTS)),
                place,
            }));
            let waiting = Some((deadline, evicted));
            let guarded = Guarded {
                stream,
                peer,
                waiting,
            };
            // Where nobody takes it, the server leaves.
            let _ = taken_in.send(guarded).await;
        }
        Err(error) => hall.tell_refusal(address, &error),
    }
}

async fn shake_hands(stream: TcpStream, hall: &Hall) -> io::Result<(Stream, Option<Identity>)> {
    // Without it the last piece of an answer waits until those before are acknowledged, 40 ms later.
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, SOCKET_KEEPALIVE)?;
    let Some(tls) = &hall.tls else {
        return Ok((Either::Left(stream), None));
    };
    let accepted = TlsAcceptor::from(tls.newest())
        .accept(stream)
        .into_fallible()
        .await;
    let stream = match accepted {
        Ok(stream) => stream,
        Err((error, stream)) => {
            part(stream).await;
            return Err(error);
        }
    };
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates();
    let identity = certificates.and_then(|chain| Identity::of(chain.first()?));
    Ok((Either::Right(Box::new(stream)), identity))
}

/// Lets a peer read why it is refused: to close while it still sends would throw that away.
async fn part(mut stream: TcpStream) {
    let mut rest = [0; 4096];
    let reading = async {
        stream.shutdown().await?;
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(PARTING, reading).await;
}

/// What all connections of a port share.
#[derive(Debug)]
struct Hall {
    tls: PortTls,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    door: Door,
    /// Tells those that wait that they have to go.
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
    refusal_lines: Allowance,
}

impl Hall {
    fn knock(self: &Arc<Self>, address: SocketAddr) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut inner = self.lock();
        let Knock::Waits {
            ticket,
            in_place_of,
        } = inner.door.knock(address.ip())
        else {
            drop(inner);
            self.tell_refusal(address, &io::Error::other("there are too many"));
            return None;
        };
        if let Some(other) = in_place_of {
            // Dropping it tells.
            inner.waiting.remove(&other);
        }
        let (go, evicted) = oneshot::channel();
        inner.waiting.insert(ticket, go);
        let place = Place {
            address,
            ticket,
            hall: Arc::clone(self),
        };
        Some((place, evicted))
    }

    fn let_in(&self, ticket: Ticket, is_let_in: &AtomicBool) {
        let mut inner = self.lock();
        if inner.door.let_in(ticket) {
            is_let_in.store(true, Ordering::Release);
            inner.waiting.remove(&ticket);
        }
    }

    fn leave(&self, ticket: Ticket) {
        let mut inner = self.lock();
        inner.door.leave(ticket);
        inner.waiting.remove(&ticket);
    }

    fn tell_refusal(&self, address: SocketAddr, error: &io::Error) {
        let is_told = self.lock().refusal_lines.take(Instant::now());
        match is_told {
            true => info!(peer = %address, %error, "connection is refused"),
            false => debug!(peer = %address, %error, "connection is refused"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the hall, which is free again when this is dropped.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    ticket: Ticket,
    hall: Arc<Hall>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hall.leave(self.ticket);
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer(Arc<PeerState>);

#[derive(Debug)]
struct PeerState {
    certificate: Option<Identity>,
    is_let_in: AtomicBool,
    allowance: Mutex<Allowance>,
    place: Place,
}

impl Peer {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.place.address
    }

    /// What its certificate says, if it has shown one.
    #[must_use]
    pub fn certificate(&self) -> Option<&Identity> {
        self.0.certificate.as_ref()
    }

    /// Whom limits count it as: the name of its certificate, or its address if it has none.
    #[must_use]
    pub fn who(&self) -> String {
        match self.certificate() {
            Some(certificate) => certificate.name.clone(),
            None => self.address().ip().to_string(),
        }
    }

    /// It has asked for something that it may ask for: it may stay.
    pub fn let_in(&self) {
        let PeerState {
            is_let_in, place, ..
        } = &*self.0;
        if !is_let_in.load(Ordering::Acquire) {
            place.hall.let_in(place.ticket, is_let_in);
        }
    }

    /// Counts a request; false if there are too many.
    pub fn may_ask(&self, now: Instant) -> bool {
        let allowance = self.0.allowance.lock();
        allowance.unwrap_or_else(PoisonError::into_inner).take(now)
    }
}

/// A connection that was taken in. Until it is let in it ends at its deadline, or for others.
#[derive(Debug)]
pub struct Guarded {
    stream: Stream,
    peer: Peer,
    waiting: Option<(Pin<Box<Sleep>>, oneshot::Receiver<()>)>,
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Guarded {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    fn poll_wait(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some((deadline, evicted)) = &mut self.waiting else {
            return Ok(());
        };
        let is_late = deadline.as_mut().poll(context).is_ready();
        let has_to_go = Pin::new(evicted).poll(context).is_ready();
        // Looked at last: who is let in is told to go at the same moment.
        if self.peer.0.is_let_in.load(Ordering::Acquire) {
            self.waiting = None;
            return Ok(());
        }
        match is_late || has_to_go {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_wait(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
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
