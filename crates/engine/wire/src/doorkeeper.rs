//! Stands before every request of a server: is it of this protocol, and may this peer make it? Counts it, too.

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::Either;
use pserver_guard::admission::Peer;
use pserver_guard::gate::{Denied, Gate};
use pserver_guard::limits::{MAX_PEERS, REGISTRATIONS};
use pserver_guard::rate::Allowances;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tower::Layer;

use crate::access::needed;
use crate::messages::PROTOCOL_VERSION;
use crate::method;

/// The header in which every client names its protocol.
pub(crate) const PROTOCOL_HEADER: &str = "pserver-protocol";

/// A layer around a server's services.
#[derive(Clone, Debug)]
pub struct Doorkeeper {
    gate: Gate,
    registrations: Arc<Mutex<Allowances>>,
}

impl Doorkeeper {
    /// Lets through what `gate` does.
    #[must_use]
    pub fn new(gate: Gate) -> Self {
        Doorkeeper {
            gate,
            registrations: Arc::new(Mutex::new(Allowances::new(REGISTRATIONS, MAX_PEERS))),
        }
    }

    fn check<B>(&self, now: Instant, request: &Request<B>) -> Result<(), Status> {
        let path = request.uri().path();
        let name = method::named_by(path);
        if name.is_none() && !method::is_former(path) {
            // Of health, which has nothing to hide.
            return Ok(());
        }
        let peer = request.extensions().get::<Peer>();
        if let Some(peer) = peer {
            peer.charge(1.0);
        }
        let Some(name) = name else {
            return Err(Status::failed_precondition(format!(
                "the program speaks a protocol before the server's, {PROTOCOL_VERSION}: use programs of one release"
            )));
        };
        let header = |name| {
            let value = request.headers().get(name)?;
            value.to_str().ok()
        };
        let theirs = header(PROTOCOL_HEADER);
        if let Some(theirs) = theirs.filter(|theirs| *theirs != PROTOCOL_VERSION.to_string()) {
            return Err(Status::failed_precondition(format!(
                "the program speaks protocol {theirs:?}, the server {PROTOCOL_VERSION}: use programs of one \
                 release"
            )));
        }
        let needed = needed(name).ok_or_else(|| {
            Status::unimplemented(format!("this server knows no request {name:?}"))
        })?;
        let certificate = peer.and_then(Peer::certificate);
        self.gate
            .check(certificate, header(AUTHORIZATION.as_str()), needed)
            .map_err(denied)?;
        if let Some(peer) = peer {
            peer.let_in();
            if name == "Register" {
                self.count_registration(now, peer)?;
            }
        }
        Ok(())
    }

    fn count_registration(&self, now: Instant, peer: &Peer) -> Result<(), Status> {
        let who = peer.who();
        let registrations = self.registrations.lock();
        let mut registrations = registrations.unwrap_or_else(PoisonError::into_inner);
        let allowance = registrations.of(now, who.clone());
        let is_left = allowance.lock().is_ok_and(|mut left| left.take(now));
        match is_left {
            true => Ok(()),
            false => Err(Status::unavailable(format!("{who} registers too often"))),
        }
    }
}

fn denied(denied: Denied) -> Status {
    match denied.is_unknown() {
        true => Status::unauthenticated(denied.to_string()),
        false => Status::permission_denied(denied.to_string()),
    }
}

impl<S> Layer<S> for Doorkeeper {
    type Service = Kept<S>;

    fn layer(&self, inner: S) -> Kept<S> {
        let keeper = self.clone();
        Kept { inner, keeper }
    }
}

/// Services behind a [`Doorkeeper`].
#[derive(Clone, Debug)]
pub struct Kept<S> {
    inner: S,
    keeper: Doorkeeper,
}

impl<S, B> Service<Request<B>> for Kept<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // A simulation has its own clock, and no peers to be counted by it.
        let now = tokio::time::Instant::now().into_std();
        match self.keeper.check(now, &request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}
