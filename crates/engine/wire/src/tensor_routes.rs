//! Pull and Push at the server: the requests whose bodies carry tensors, which go around the generated service.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pserver_run::Layout;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::{Extensions, Status};

use crate::client::REQUEST_TIMEOUT;
use crate::convert;
use crate::framing::{Carrier, Messages, answer};
use crate::gradient::Gradient;
use crate::in_flight::{InFlight, UnderWay};
use crate::messages::{Assignment, Delivery, Pull, Push, Pushed, Then, Verdict};
use crate::method::{self, PULL, PUSH};
use crate::pb;
use crate::server::{Landing, ParameterServer};
use crate::transport::MAX_REQUEST_BYTES;
use crate::unread::Unread;

/// A service that answers Pull and Push itself, and has `R` answer the other requests.
#[derive(Debug)]
pub struct TensorRoutes<S, R> {
    tensors: Arc<Tensors<S>>,
    others: R,
}

#[derive(Debug)]
struct Tensors<S> {
    server: Arc<S>,
    gradient_bytes: usize,
    in_flight: Arc<InFlight>,
}

impl<S, R> TensorRoutes<S, R> {
    pub(crate) fn new(
        server: Arc<S>,
        layout: &Layout,
        in_flight: Arc<InFlight>,
        others: R,
    ) -> Self {
        let tensors = Arc::new(Tensors {
            server,
            gradient_bytes: layout.size_bytes(),
            in_flight,
        });
        TensorRoutes { tensors, others }
    }
}

impl<S, R: Clone> Clone for TensorRoutes<S, R> {
    fn clone(&self) -> Self {
        TensorRoutes {
            tensors: Arc::clone(&self.tensors),
            others: self.others.clone(),
        }
    }
}

impl<S, R: NamedService> NamedService for TensorRoutes<S, R> {
    const NAME: &'static str = R::NAME;
}

impl<S, R> Service<Request<Body>> for TensorRoutes<S, R>
where
    S: ParameterServer,
    R: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    R::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.others.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let tensors = Arc::clone(&self.tensors);
        match method::named_by(request.uri().path()) {
            Some(PULL) => Box::pin(async move {
                let answer = tensors.pull(request).await;
                Ok(answer.unwrap_or_else(Status::into_http))
            }),
            Some(PUSH) => Box::pin(async move {
                let answer = tensors.push(request).await;
                Ok(answer.unwrap_or_else(Status::into_http))
            }),
            _ => Box::pin(self.others.call(request)),
        }
    }
}

impl<S: ParameterServer> Tensors<S> {
    async fn pull(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let request = Messages::<pb::PullRequest>::of_request(body, MAX_REQUEST_BYTES)
            .next()
            .await?
            .ok_or_else(|| Status::invalid_argument("a pull without a message"))?;
        let assignment = self.server.pull(Pull::try_from(request)?).await?;
        let under_way = self.begin_assignment(&head.extensions, &assignment)?;
        Ok(replies(convert::pull_replies(assignment), under_way))
    }

    async fn push(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let extensions = head.extensions;
        let messages = Messages::of_request(body, MAX_REQUEST_BYTES);
        let whole = tokio::time::timeout(REQUEST_TIMEOUT, self.collect(messages));
        let whole = whole.await.map_err(|_| {
            Status::deadline_exceeded("the last part of the gradients did not come in time")
        })??;
        let Pushed { verdict, next } = match whole {
            Ok((push, gradient, then)) => self.server.push(push, gradient, then).await?,
            Err(verdict) => Pushed {
                verdict,
                next: None,
            },
        };
        // The verdict stands; a peer that may not have its next work now can pull it later.
        let begun = next.map(|next| (self.begin_assignment(&extensions, &next), next));
        let (next, under_way) = match begun {
            Some((Ok(under_way), next)) => (Some(next), under_way),
            _ => (None, None),
        };
        let pushed = Pushed { verdict, next };
        Ok(replies(convert::push_replies(pushed), under_way))
    }

    /// All messages of a push as one, and its gradient in the server's own memory; or the answer to it, whatever is in
    /// it. What is cut short is forgotten here, and for what comes from no worker of the run no memory is taken.
    async fn collect(
        &self,
        mut messages: Messages<pb::PushRequest>,
    ) -> Result<Result<(Push, Gradient, Then), Verdict>, Status> {
        let without_end = || Status::invalid_argument("a push without its last part");
        let mut message = messages.next().await?.ok_or_else(without_end)?;
        let sender = convert::member(message.sender.take().or(message.member.clone()))?;
        let _under_way = self.in_flight.begin_push(sender)?;
        let mut landing = self.server.land(sender)?;
        let mut found = 0;
        loop {
            // Given back before the next is waited for, so that the connection can use its memory again.
            let part = mem::take(&mut message.gradients);
            found += part.len();
            let is_last = message.member.is_some();
            // Parts of nothing could come for ever.
            if found > self.gradient_bytes || (part.is_empty() && !is_last) {
                return Err(self.of_another_size(found));
            }
            if let Ok(Landing { memory, .. }) = &mut landing {
                let from = self.gradient_bytes - found;
                memory.as_bytes_mut()[from..][..part.len()].copy_from_slice(&part);
            }
            drop(part);
            if is_last {
                break;
            }
            message = messages.next().await?.ok_or_else(without_end)?;
        }
        let (push, in_slot, then) = convert::push(&message)?;
        if push.member != sender {
            return Err(Status::invalid_argument("a push of two workers"));
        }
        let Landing { memory, slot } = match landing {
            Ok(landing) => landing,
            Err(verdict) => return Ok(Err(verdict)),
        };
        let gradient = match in_slot {
            Some(generation) if found == 0 => {
                let gradient = slot.and_then(|slot| Gradient::out_of(&slot, generation, memory));
                gradient.ok_or_else(|| {
                    let what = "the gradients of this push are not in the worker's slot";
                    Status::invalid_argument(what)
                })?
            }
            None if found == self.gradient_bytes => Gradient::new(memory),
            _ => return Err(self.of_another_size(found)),
        };
        Ok(Ok((push, gradient, then)))
    }

    /// An answer with work begins, which counts if variables travel with it.
    fn begin_assignment(
        &self,
        extensions: &Extensions,
        assignment: &Assignment,
    ) -> Result<Option<UnderWay<String>>, Status> {
        match assignment {
            Assignment::Work(work) if matches!(work.variables, Delivery::Sent(_)) => {
                self.in_flight.begin_answer(extensions)
            }
            _ => Ok(None),
        }
    }

    fn of_another_size(&self, found: usize) -> Status {
        let expected = self.gradient_bytes;
        Status::invalid_argument(format!("gradients have {found} bytes, expected {expected}"))
    }
}

/// An answer of messages that are all there, and are encoded one by one as the connection takes them. It is under way
/// as long as there is something to send.
fn replies<M: Carrier + Send>(
    messages: Vec<M>,
    under_way: Option<UnderWay<String>>,
) -> Response<Body> {
    answer(Unread::new(messages, under_way))
}
