//! Messages in the bodies of gRPC, written and read without copying the tensors in them.
//!
//! tonic writes each message into a buffer, and collects what comes in another one. These two copies took a
//! fifth of both ends' CPU time, so the bodies of Pull and Push are made here. They are the same on the wire
//! (source: "gRPC over HTTP2", of the gRPC project): before each message stand a byte that tells whether it is
//! compressed, which none is here, and its length in four bytes, big-endian.
//!
//! What is written is shared with the message. A part of a tensor goes out as an HTTP/2 frame of its own, so that
//! the reader finds it in one piece, which the message then shares as well.

use std::future::ready;
use std::marker::PhantomData;
use std::mem;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::Either;
use futures_util::{Stream, StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, TE};
use tonic::codegen::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use tonic::{Code, Status};

use crate::method::path_of;
use crate::pb;

/// The bytes before each message.
const HEADER_BYTES: usize = 5;

const NOT_COMPRESSED: u8 = 0;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A request for a method, which the server has so much time for.
pub(crate) fn request<M: Carrier>(
    method: &str,
    timeout: Duration,
    messages: impl Stream<Item = M> + Send + 'static,
) -> Request<Body> {
    let body = StreamBody::new(messages.flat_map(frames_of));
    let mut request = Request::new(Body::new(body));
    *request.method_mut() = Method::POST;
    let path = Uri::try_from(path_of(method));
    *request.uri_mut() = path.expect("names of methods are made of letters");
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, GRPC);
    let seconds = timeout.as_secs();
    let timeout = HeaderValue::try_from(format!("{seconds}S"));
    headers.insert(GRPC_TIMEOUT, timeout.expect("it is made of digits"));
    request
}

/// An answer, which says in the end that all is well. An error ends it at once.
pub(crate) fn answer<M: Carrier>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
) -> Response<Body> {
    let status = (GRPC_STATUS, HeaderValue::from_static("0"));
    let end = Frame::trailers(HeaderMap::from_iter([status]));
    let end = stream::once(ready(Ok(end)));
    let frames = messages.flat_map(|message| match message {
        Ok(message) => Either::Left(frames_of(message)),
        Err(status) => Either::Right(stream::once(ready(Err(status)))),
    });
    let body = StreamBody::new(frames.chain(end));
    let mut answer = Response::new(Body::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, GRPC);
    answer
}

fn frames_of<M: Carrier>(message: M) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    let pieces = pieces(message).into_iter();
    let pieces = pieces.filter(|piece| !piece.is_empty());
    stream::iter(pieces.map(|piece| Ok(Frame::data(piece))))
}

/// A message that may carry a part of a tensor.
pub(crate) trait Carrier: Message + 'static {
    /// Numbers of the fields that lead to it, from the message's own to the tensor's, each below 16.
    const FIELDS: &'static [u8] = &[];

    /// The part.
    fn tensor(&mut self) -> Option<&mut Bytes> {
        None
    }
}

impl Carrier for pb::PullRequest {}

impl Carrier for pb::PullReply {
    const FIELDS: &'static [u8] = &[5];

    fn tensor(&mut self) -> Option<&mut Bytes> {
        Some(&mut self.variables)
    }
}

impl Carrier for pb::PushRequest {
    const FIELDS: &'static [u8] = &[8];

    fn tensor(&mut self) -> Option<&mut Bytes> {
        Some(&mut self.gradients)
    }
}

impl Carrier for pb::PushReply {
    const FIELDS: &'static [u8] = &[7, 5];

    fn tensor(&mut self) -> Option<&mut Bytes> {
        self.next.as_mut().map(|part| &mut part.variables)
    }
}

/// A message after its header, without the tensor that it carries and with what stands before one; and
/// the tensor. Fields may come in any order, and one that comes twice is merged, so the tensor may be last.
fn pieces<M: Carrier>(mut message: M) -> [Bytes; 2] {
    let tensor = message.tensor().map(mem::take).unwrap_or_default();
    let mut before_tensor = Vec::new();
    let fields = if tensor.is_empty() { &[] } else { M::FIELDS };
    // From the tensor's own field outwards.
    for number in fields.iter().rev() {
        const LENGTH_DELIMITED: u8 = 2;
        let length = before_tensor.len() + tensor.len();
        let mut field = vec![number << 3 | LENGTH_DELIMITED];
        let written = prost::encode_length_delimiter(length, &mut field);
        written.expect("a vector grows");
        field.append(&mut before_tensor);
        before_tensor = field;
    }
    let length = message.encoded_len() + before_tensor.len() + tensor.len();
    let length = u32::try_from(length).expect("no part of a tensor is as large as this");
    let mut first =
        BytesMut::with_capacity(HEADER_BYTES + message.encoded_len() + before_tensor.len());
    first.put_u8(NOT_COMPRESSED);
    first.put_u32(length);
    let encoded = message.encode(&mut first);
    encoded.expect("there is room for as much as comes");
    first.put_slice(&before_tensor);
    [first.freeze(), tensor]
}

/// The messages in a body, as they come.
#[derive(Debug)]
pub(crate) struct Messages<M> {
    body: Body,
    max_bytes: usize,
    end: End,
    /// The header of a message, and as much of it as came in frames before the last.
    begun: Vec<u8>,
    /// The last frame, from what of it has not been looked at.
    frame: Bytes,
    message: PhantomData<fn() -> M>,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Just so.
    Plain,
    /// With the status of what was asked for.
    WithStatus,
}

impl<M: Message + Default> Messages<M> {
    /// The messages of a request, none of which may have more than `max_bytes`.
    pub(crate) fn of_request(body: Body, max_bytes: usize) -> Self {
        Messages::new(body, max_bytes, End::Plain)
    }

    /// The messages of an answer, none of which may have more than `max_bytes`.
    ///
    /// # Errors
    ///
    /// The status of an answer without messages.
    pub(crate) fn of_answer(answer: Response<Body>, max_bytes: usize) -> Result<Self, Status> {
        let (head, body) = answer.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Err(status);
        }
        if head.status != StatusCode::OK {
            let reason = format!("what answers is no parameter server: HTTP {}", head.status);
            return Err(Status::unavailable(reason));
        }
        Ok(Messages::new(body, max_bytes, End::WithStatus))
    }

    fn new(body: Body, max_bytes: usize, end: End) -> Self {
        Messages {
            body,
            max_bytes,
            end,
            begun: Vec::new(),
            frame: Bytes::new(),
            message: PhantomData,
        }
    }

    /// The next message; `None` after the last.
    ///
    /// # Errors
    ///
    /// The status that an answer ends with, or what went wrong with the connection or with what came over it.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.frame().await.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.frame = data,
                Some(Err(trailers)) => {
                    return self.end(trailers.into_trailers().ok());
                }
                None => return self.end(None),
            }
        }
    }

    /// A message, if all of it has come; else the frame is used up.
    fn take(&mut self) -> Result<Option<M>, Status> {
        self.begin_up_to(HEADER_BYTES);
        let Some((&[is_compressed, ref length @ ..], _)) =
            self.begun.split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        if is_compressed != NOT_COMPRESSED {
            return Err(Status::unimplemented("a message is compressed"));
        }
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.max_bytes {
            return Err(Status::out_of_range(format!(
                "a message has {length} bytes, of at most {}",
                self.max_bytes
            )));
        }
        let missing = HEADER_BYTES + length - self.begun.len();
        if self.frame.len() < missing {
            self.begin_up_to(HEADER_BYTES + length);
            return Ok(None);
        }
        let end = self.frame.split_to(missing);
        let message = M::decode(self.begun[HEADER_BYTES..].chain(end));
        self.begun.clear();
        let malformed = |error| Status::internal(format!("a message is malformed: {error}"));
        message.map(Some).map_err(malformed)
    }

    /// Moves what there is of the first so many bytes of a message out of the frame.
    fn begin_up_to(&mut self, bytes: usize) {
        let missing = bytes.saturating_sub(self.begun.len());
        let part = self.frame.split_to(missing.min(self.frame.len()));
        self.begun.extend_from_slice(&part);
    }

    fn end(&self, trailers: Option<HeaderMap>) -> Result<Option<M>, Status> {
        if self.end == End::WithStatus {
            let status = trailers.as_ref().and_then(Status::from_header_map);
            match status {
                Some(status) if status.code() == Code::Ok => {}
                Some(status) => return Err(status),
                None => return Err(Status::unavailable("the answer breaks off")),
            }
        }
        match self.begun.is_empty() {
            true => Ok(None),
            false => Err(Status::internal("the last message breaks off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use proptest::prelude::*;

    use super::*;

    const MAX_BYTES: usize = 1000;

    fn push_part(gradients: &[u8]) -> pb::PushRequest {
        pb::PushRequest {
            global_step: 300,
            state_digest: Bytes::from_static(&[7; 16]),
            gradients: Bytes::copy_from_slice(gradients),
            ..pb::PushRequest::default()
        }
    }

    fn answer_part(variables: Bytes) -> pb::PushReply {
        pb::PushReply {
            outcome: Some(pb::push_reply::Outcome::Accepted(pb::Accepted {})),
            next: Some(pb::PullReply {
                outcome: None,
                variables,
            }),
        }
    }

    /// A body of these frames, and `end` after them.
    fn body_of(frames: Vec<Bytes>, end: Option<HeaderMap>) -> Body {
        let frames = frames.into_iter().map(Frame::data);
        let frames: Vec<_> = frames
            .chain(end.map(Frame::trailers))
            .map(Ok::<_, Status>)
            .collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn status(code: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static(code))])
    }

    fn all<M: Message + Default>(mut messages: Messages<M>) -> Result<Vec<M>, Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime
            .expect("a thread can have a runtime")
            .block_on(async {
                let mut all = Vec::new();
                while let Some(message) = messages.next().await? {
                    all.push(message);
                }
                Ok(all)
            })
    }

    fn in_request(frames: Vec<Bytes>) -> Result<Vec<pb::PushRequest>, Status> {
        all(Messages::of_request(body_of(frames, None), MAX_BYTES))
    }

    #[test]
    fn tensors_are_shared_from_the_message_to_the_frame_and_to_the_message_again() {
        let tensor = Bytes::from(vec![1; 300]);
        let frames = pieces(answer_part(tensor.clone())).to_vec();
        assert_eq!(frames[1].as_ptr(), tensor.as_ptr());
        let body = body_of(frames, Some(status("0")));
        let messages = Messages::<pb::PushReply>::of_answer(Response::new(body), MAX_BYTES);
        let arrived = all(messages.unwrap()).unwrap();
        assert_eq!(arrived, [answer_part(tensor.clone())]);
        let variables = &arrived[0].next.as_ref().unwrap().variables;
        assert_eq!(variables.as_ptr(), tensor.as_ptr());
    }

    #[test]
    fn what_is_written_is_what_protobuf_says() {
        for tensor in [Bytes::new(), Bytes::from(vec![3; 20_000])] {
            let message = answer_part(tensor);
            let written = pieces(message.clone()).concat();
            let (header, body) = written.split_at(HEADER_BYTES);
            assert_eq!(header[0], NOT_COMPRESSED);
            assert_eq!(header[1..], (body.len() as u32).to_be_bytes());
            assert_eq!(pb::PushReply::decode(body), Ok(message));
        }
    }

    #[test]
    fn a_body_that_is_none_of_grpc_is_refused() {
        let frame = |bytes: &'static [u8]| in_request(vec![Bytes::from_static(bytes)]);
        let cases: [(&[u8], &str); 5] = [
            (&[1, 0, 0, 0, 0], "compressed"),
            (&[0, 0, 0, 3, 233], "1001 bytes, of at most 1000"),
            (&[0, 0, 0], "breaks off"),
            (&[0, 0, 0, 0, 2, 8], "breaks off"),
            (&[0, 0, 0, 0, 1, 8], "malformed"),
        ];
        for (bytes, expected) in cases {
            let status = frame(bytes).unwrap_err();
            assert!(status.message().contains(expected), "{status}");
        }
        assert_eq!(
            frame(&[0, 0, 0, 0, 0]).unwrap(),
            [pb::PushRequest::default()]
        );
    }

    #[test]
    fn an_answer_ends_with_its_status() {
        let answer = |frames, end| {
            let messages = Messages::<pb::PullReply>::of_answer(
                Response::new(body_of(frames, end)),
                MAX_BYTES,
            );
            all(messages.unwrap()).map_err(|status| status.code())
        };
        assert_eq!(answer(vec![], Some(status("0"))), Ok(vec![]));
        assert_eq!(answer(vec![], Some(status("5"))), Err(Code::NotFound));
        assert_eq!(answer(vec![], None), Err(Code::Unavailable));
        let cut = vec![Bytes::from_static(&[0, 0])];
        assert_eq!(answer(cut, Some(status("0"))), Err(Code::Internal));
    }

    #[test]
    fn an_answer_without_messages_is_its_status() {
        let code = |answer| {
            let messages = Messages::<pb::PullReply>::of_answer(answer, MAX_BYTES);
            messages.unwrap_err().code()
        };
        let denied = Status::permission_denied("no").into_http();
        assert_eq!(code(denied), Code::PermissionDenied);
        let mut of_something_else = Response::new(Body::new(Full::new(Bytes::from_static(b"<p>"))));
        *of_something_else.status_mut() = StatusCode::BAD_GATEWAY;
        assert_eq!(code(of_something_else), Code::Unavailable);
    }

    proptest! {
        #[test]
        fn messages_arrive_however_the_body_is_cut(
            tensors in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..6),
            cuts in prop::collection::vec(0_usize..700, 0..12),
        ) {
            let sent: Vec<_> = tensors.iter().map(|tensor| push_part(tensor)).collect();
            let mut rest: Bytes = sent.iter().flat_map(|part| pieces(part.clone())).flatten().collect();
            let mut frames = Vec::new();
            for cut in cuts {
                frames.push(rest.split_to(cut.min(rest.len())));
            }
            frames.push(rest);
            prop_assert_eq!(in_request(frames).unwrap(), sent);
        }
    }
}
