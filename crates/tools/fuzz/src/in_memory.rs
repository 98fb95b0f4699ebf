//! Both ends of the wire in one thread: the server's end as a function of a request's bytes, and clients
//! over connections that are only memory.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use pserver_wire::client::Client;
use pserver_wire::service::service;
use tokio::io::DuplexStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::Router;
use tonic::transport::{Channel, Endpoint, Server};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::layout::layout;
use crate::question::ask;
use crate::recorder::{Answer, Recorder};

/// The service's name in the paths of requests.
const SERVICE: &str = "pserver.v1.ParameterServer";

/// What a connection holds before its reader has come.
const BUFFER_BYTES: usize = 64 * 1024;

/// The service as a function.
type ServerEnd = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The two ends, and a third that says anything.
pub(crate) struct Ends {
    runtime: Runtime,
    server_end: ServerEnd,
    /// Behind [`server_end`](Self::answer_to) and [`client`](Self::client).
    pub(crate) recorder: Arc<Recorder>,
    /// Of a server of this release.
    pub(crate) client: Client,
    /// Of a server that answers with [`puppet`](Self::puppet).
    pub(crate) puppets_client: Client,
    pub(crate) puppet: Puppet,
}

thread_local! {
    static ENDS: RefCell<Ends> = RefCell::new(Ends::new());
}

/// Does something with the ends that this thread has.
pub(crate) fn with_ends<T>(act: impl FnOnce(&mut Ends) -> T) -> T {
    ENDS.with_borrow_mut(act)
}

impl Ends {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a thread can have a runtime");
        let within = runtime.enter();
        let recorder = Recorder::new().expect("there is memory for a slot");
        let recorder = Arc::new(recorder);
        let service = service(Arc::clone(&recorder), &layout());
        let puppet = Puppet::default();
        let client = client_of(Server::builder().add_service(service.clone()));
        let puppets_client = client_of(Server::builder().add_service(puppet.clone()));
        drop(within);
        Ends {
            runtime,
            server_end: BoxCloneSyncService::new(service),
            recorder,
            client,
            puppets_client,
            puppet,
        }
    }

    /// Waits for an answer.
    pub(crate) fn wait_for<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }

    /// What a server of this release says to a client that asks, message by message.
    pub(crate) fn said_by_server(&mut self, question: &str, answer: Answer) -> Vec<Vec<u8>> {
        let mut client = self.puppets_client.clone();
        self.puppet.says(Bytes::new());
        let _ = self.wait_for(ask(question, &mut client));
        let (method, messages) = self.puppet.heard();
        self.recorder.answer(answer);
        let messages = framed(messages.iter().map(Vec::as_slice));
        unframed(self.exchange(&method, messages).1)
    }

    /// What the server's end says to a request of these messages, in the end.
    pub(crate) fn answer_to(&self, method: &str, messages: Bytes) -> Status {
        self.exchange(method, messages).0
    }

    fn exchange(&self, method: &str, messages: Bytes) -> (Status, Bytes) {
        self.recorder.take();
        let request = Request::post(format!("/{SERVICE}/{method}"))
            .body(Body::new(Full::new(messages)))
            .expect("this is a path");
        self.runtime.block_on(async {
            let response = self.server_end.clone().oneshot(request).await;
            let Ok(response) = response;
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("an answer has an end");
            let status = Status::from_header_map(&head.headers)
                .or_else(|| body.trailers().and_then(Status::from_header_map));
            (status.expect("every answer has a status"), body.to_bytes())
        })
    }
}

/// Messages as they stand in a request or an answer, each after its length.
pub(crate) fn framed<'a>(messages: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut bytes = BytesMut::new();
    for message in messages {
        let is_compressed = 0;
        bytes.put_u8(is_compressed);
        bytes.put_u32(message.len() as u32);
        bytes.put_slice(message);
    }
    bytes.freeze()
}

/// The messages in such bytes.
fn unframed(mut bytes: Bytes) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while bytes.has_remaining() {
        let _is_compressed = bytes.get_u8();
        let length = bytes.get_u32() as usize;
        messages.push(bytes.split_to(length).to_vec());
    }
    messages
}

/// A client of a server that it reaches through memory.
fn client_of(router: Router) -> Client {
    let (accepted, incoming) = mpsc::channel(1);
    tokio::spawn(router.serve_with_incoming(ReceiverStream::new(incoming)));
    Client::over(channel(accepted), &layout())
}

fn channel(accepted: mpsc::Sender<io::Result<DuplexStream>>) -> Channel {
    let connector = tower::service_fn(move |_| {
        let accepted = accepted.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            let sent = accepted.send(Ok(theirs)).await;
            sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            Ok::<_, io::Error>(TokioIo::new(ours))
        }
    });
    Endpoint::from_static("http://memory").connect_with_connector_lazy(connector)
}

/// A server that answers every request with the same bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Puppet(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    /// The answer.
    messages: Bytes,
    /// The last request: its path and its messages.
    heard: (String, Bytes),
}

impl Puppet {
    /// Answers with these messages from now on.
    pub(crate) fn says(&self, messages: Bytes) {
        self.said().messages = messages;
    }

    /// Method and messages of the last request.
    pub(crate) fn heard(&self) -> (String, Vec<Vec<u8>>) {
        let (path, messages) = std::mem::take(&mut self.said().heard);
        let method = path.rsplit('/').next().unwrap_or_default();
        (method.to_owned(), unframed(messages))
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NamedService for Puppet {
    const NAME: &'static str = SERVICE;
}

impl Service<Request<Body>> for Puppet {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let puppet = self.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            // A request that is not read to its end would be broken off.
            let heard = request.into_body().collect().await;
            let heard = heard.map(|body| body.to_bytes()).unwrap_or_default();
            puppet.said().heard = (path, heard);
            let messages = puppet.said().messages.clone();
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            let body = Full::new(messages).with_trailers(async { Some(Ok(trailers)) });
            let mut response = Response::new(Body::new(body));
            response.headers_mut().insert(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            Ok(response)
        })
    }
}
