//! Lets in who may look at the page: with a certificate, a token, or both, as the server asks.

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use pserver_guard::admission::{Guarded, Peer, PortTls, admit};
use pserver_guard::door::Capacity;
use pserver_guard::gate::Gate;
use pserver_wire::access::PAGE;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What a browser asks its user for.
const CHALLENGE: &str =
    "Basic realm=\"cifar-ps: any name, and the token as password\", charset=\"UTF-8\"";

/// The connections to the page.
pub(crate) struct Connections(mpsc::Receiver<Guarded>);

impl Connections {
    pub(crate) fn to(listener: TcpListener, tls: PortTls) -> Self {
        Connections(admit(listener, tls, Capacity::default()))
    }
}

impl Listener for Connections {
    type Io = Guarded;
    type Addr = ();

    async fn accept(&mut self) -> (Guarded, ()) {
        match self.0.recv().await {
            Some(connection) => (connection, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Who is at the other end of a connection to the page.
#[derive(Clone, Debug)]
pub(crate) struct PagePeer(Peer);

impl Connected<IncomingStream<'_, Connections>> for PagePeer {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        PagePeer(stream.io().peer())
    }
}

/// Passes a request on, or says what it lacks.
pub(crate) async fn may_look(
    State(gate): State<Gate>,
    ConnectInfo(PagePeer(peer)): ConnectInfo<PagePeer>,
    request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    match gate.check(peer.certificate(), authorization, PAGE) {
        Ok(()) => {
            peer.let_in();
            peer.charge(1.0);
            next.run(request).await
        }
        Err(denied) if denied.is_unknown() && gate.demands_token() => {
            let challenge = [(WWW_AUTHENTICATE, CHALLENGE)];
            (StatusCode::UNAUTHORIZED, challenge, format!("{denied}\n")).into_response()
        }
        Err(denied) => (StatusCode::FORBIDDEN, format!("{denied}\n")).into_response(),
    }
}
