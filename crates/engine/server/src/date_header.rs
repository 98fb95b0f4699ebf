//! The date that answers over HTTP carry, whatever becomes of the machine's clock.
//!
//! hyper writes it: each thread keeps the last date that it has made, and makes another one when the clock is later
//! than that. Only the first one of a thread is made of whatever the clock says, which panics before 1970. So each
//! thread that may answer makes it as it starts, when the server has just looked at the clock.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Waker};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// Has this thread make its first date.
pub(crate) fn make_first() {
    let answer =
        service_fn(async |_| Ok::<_, Infallible>(axum::response::Response::new(String::new())));
    // A connection that is closed before it asks for anything: hyper has the date ready when it looks for that.
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(tokio::io::empty()), answer);
    let _ = pin!(connection).poll(&mut Context::from_waker(Waker::noop()));
}
