//! A client's channel: shows with each request who asks and what protocol it speaks, and tells a server
//! that would have none of this client from one that is away.

use std::pin::Pin;
use std::task::{Context, Poll};

use pserver_guard::Credentials;
use pserver_guard::connection::Refusal;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::transport::{Channel, Error};

use crate::doorkeeper::PROTOCOL_HEADER;
use crate::messages::PROTOCOL_VERSION;

/// A connection with credentials.
#[derive(Clone, Debug)]
pub struct SecureChannel {
    channel: Channel,
    credentials: Credentials,
    refusal: Refusal,
}

impl SecureChannel {
    /// Shows `credentials` over `channel`, whose refusals are noted in `refusal`.
    pub(crate) fn new(channel: Channel, credentials: Credentials, refusal: Refusal) -> Self {
        SecureChannel {
            channel,
            credentials,
            refusal,
        }
    }

    fn show(&self, request: &mut Request<Body>) {
        let headers = request.headers_mut();
        headers.insert(PROTOCOL_HEADER, HeaderValue::from(PROTOCOL_VERSION));
        if let Some(text) = self.credentials.authorization() {
            let mut value = HeaderValue::try_from(text)
                .expect("a token is made of signs that a header may have");
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }
}

impl Service<Request<Body>> for SecureChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel
            .poll_ready(context)
            .map_err(|error| failed(error, &self.refusal))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        self.show(&mut request);
        let answer = self.channel.call(request);
        let refusal = self.refusal.clone();
        Box::pin(async move { answer.await.map_err(|error| failed(error, &refusal)) })
    }
}

fn failed(error: Error, refusal: &Refusal) -> Status {
    match refusal.reason() {
        Some(reason) => Status::unauthenticated(reason),
        None => Status::from_error(Box::new(error)),
    }
}
