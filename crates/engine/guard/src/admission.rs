//! Takes connections in: as many as the door allows, over TLS where that is asked for, each with a
//! deadline by which it has to have been let in.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::{debug, info};

use crate::door::{Capacity, Door, Knock, Standing, Ticket};
use crate::identity::Identity;
use crate::limits::{ENTRY_DEADLINE, MAX_PEERS, READS, REFUSAL_LINES, REQUESTS, SOCKET_KEEPALIVE};
use crate::rate::{Allowance, Allowances};
use crate::tls::{ServerTls, Speaks};

/// TLS of a port, if it has any.
pub type PortTls = Option<(ServerTls, Speaks)>;

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
            may_have_to_go: BTreeMap::new(),
            reads: Allowances::new(READS, MAX_PEERS),
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
            let guarded = Guarded {
                stream,
                peer: Peer::new(certificate, place),
                deadline: Some(deadline),
                evicted: Some(evicted),
                pause: None,
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
    let Some((tls, speaks)) = &hall.tls else {
        return Ok((Either::Left(stream), None));
    };
    let accepted = TlsAcceptor::from(tls.newest(*speaks))
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
    /// Tells connections that they have to go: those of workers never have to.
    may_have_to_go: BTreeMap<Ticket, oneshot::Sender<()>>,
    /// Requests of those that are no workers.
    reads: Allowances,
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
            inner.may_have_to_go.remove(&other);
        }
        let (go, evicted) = oneshot::channel();
        inner.may_have_to_go.insert(ticket, go);
        let place = Place {
            address,
            ticket,
            hall: Arc::clone(self),
        };
        Some((place, evicted))
    }

    /// A connection has come so far, unless it has to go.
    fn stands(&self, ticket: Ticket, standing: Standing, told: &AtomicU8) {
        let mut inner = self.lock();
        if inner.door.stands(ticket, standing) {
            told.store(standing as u8, Ordering::Release);
            if standing == Standing::Member {
                inner.may_have_to_go.remove(&ticket);
            }
        }
    }

    fn leave(&self, ticket: Ticket) {
        let mut inner = self.lock();
        inner.door.leave(ticket);
        inner.may_have_to_go.remove(&ticket);
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
    /// A [`Standing`] as a number.
    standing: AtomicU8,
    /// Shared with other connections of the same peer, as long as this one is no worker's.
    reads: Arc<Mutex<Allowance>>,
    requests: Mutex<Allowance>,
    place: Place,
}

impl Peer {
    fn new(certificate: Option<Identity>, place: Place) -> Self {
        let now = tokio::time::Instant::now().into_std();
        let who = counted_as(certificate.as_ref(), place.address);
        let reads = place.hall.lock().reads.of(now, who);
        Peer(Arc::new(PeerState {
            certificate,
            standing: AtomicU8::new(Standing::Waiting as u8),
            reads,
            requests: Mutex::new(Allowance::new(now, REQUESTS)),
            place,
        }))
    }

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
        counted_as(self.certificate(), self.address())
    }

    /// It has asked for something that it may ask for: it may stay while there is room.
    pub fn let_in(&self) {
        self.stands(Standing::Inside);
    }

    /// It is a worker's: it may stay, and make as many requests as a worker does.
    pub fn is_a_workers(&self) {
        self.stands(Standing::Member);
    }

    fn stands(&self, standing: Standing) {
        let PeerState {
            standing: told,
            place,
            ..
        } = &*self.0;
        if told.load(Ordering::Acquire) < standing as u8 {
            place.hall.stands(place.ticket, standing, told);
        }
    }

    fn has_come_to(&self, standing: Standing) -> bool {
        self.0.standing.load(Ordering::Acquire) >= standing as u8
    }

    /// Counts a request, or something that costs as much as several. Nothing is read of connections that
    /// have asked for too much, until the rest would have been allowed.
    pub fn charge(&self, cost: f64) {
        self.allowance(|allowance, now| allowance.charge(now, cost));
    }

    fn allowance<T>(&self, ask: impl FnOnce(&mut Allowance, Instant) -> T) -> T {
        let now = tokio::time::Instant::now().into_std();
        let allowance = match self.has_come_to(Standing::Member) {
            true => &self.0.requests,
            false => &*self.0.reads,
        };
        let mut allowance = allowance.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut allowance, now)
    }
}

fn counted_as(certificate: Option<&Identity>, address: SocketAddr) -> String {
    match certificate {
        Some(certificate) => certificate.name.clone(),
        None => address.ip().to_string(),
    }
}

/// A connection that was taken in. Until it is let in it ends at its deadline, and until it is a worker's it
/// may have to go for others.
#[derive(Debug)]
pub struct Guarded {
    stream: Stream,
    peer: Peer,
    deadline: Option<Pin<Box<Sleep>>>,
    evicted: Option<oneshot::Receiver<()>>,
    /// Until then nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Guarded {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// Fails where the connection has to go.
    fn poll_stay(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut has_to_go = false;
        if let Some(evicted) = &mut self.evicted {
            has_to_go = Pin::new(evicted).poll(context).is_ready();
        }
        if let Some(deadline) = &mut self.deadline {
            let is_late = deadline.as_mut().poll(context).is_ready();
            // Looked at last: it may be let in at this very moment.
            match self.peer.has_come_to(Standing::Inside) {
                true => self.deadline = None,
                false => has_to_go |= is_late,
            }
        }
        if self.peer.has_come_to(Standing::Member) {
            self.evicted = None;
            return Ok(());
        }
        match has_to_go {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }

    /// Waits while the peer has asked for too much.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let debt = self.peer.allowance(Allowance::debt);
            if debt.is_zero() {
                return Poll::Ready(());
            }
            self.pause = Some(Box::pin(tokio::time::sleep(debt)));
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_stay(context)?;
        ready!(self.poll_pause(context));
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
