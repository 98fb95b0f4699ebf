//! Answers of many messages, which are in memory until a peer reads them, but not for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::vec;

use pserver_guard::limits::ANSWER_DEADLINE;
use tokio::task::AbortHandle;
use tokio_stream::Stream;
use tonic::Status;

use crate::in_flight::UnderWay;

/// The messages of an answer, one by one as the connection takes them. What is left at
/// [`ANSWER_DEADLINE`] is forgotten, whether the peer reads on or not.
#[derive(Debug)]
pub(crate) struct Unread<M> {
    rest: Arc<Mutex<Option<Rest<M>>>>,
    /// Only of an answer that counts.
    deadline: Option<AbortHandle>,
}

#[derive(Debug)]
struct Rest<M> {
    messages: vec::IntoIter<M>,
    /// Counted as long as there is something to send.
    _under_way: Option<UnderWay<String>>,
}

impl<M: Send + 'static> Unread<M> {
    /// An answer of `messages`, with a deadline if it is one that counts.
    pub(crate) fn new(messages: Vec<M>, under_way: Option<UnderWay<String>>) -> Self {
        let counts = under_way.is_some();
        let rest = Arc::new(Mutex::new(Some(Rest {
            messages: messages.into_iter(),
            _under_way: under_way,
        })));
        let deadline = counts.then(|| {
            let rest = Arc::clone(&rest);
            let forget = async move {
                tokio::time::sleep(ANSWER_DEADLINE).await;
                drop(lock(&rest).take());
            };
            tokio::spawn(forget).abort_handle()
        });
        Unread { rest, deadline }
    }
}

impl<M> Stream for Unread<M> {
    type Item = Result<M, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match &mut *lock(&self.rest) {
            Some(rest) => rest.messages.next().map(Ok),
            None => Some(Err(Status::deadline_exceeded(format!(
                "the answer was not read within {} s",
                ANSWER_DEADLINE.as_secs()
            )))),
        })
    }
}

impl<M> Drop for Unread<M> {
    fn drop(&mut self) {
        if let Some(deadline) = &self.deadline {
            deadline.abort();
        }
    }
}

fn lock<T>(rest: &Mutex<T>) -> MutexGuard<'_, T> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::in_flight::Counts;

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_an_answer_that_is_not_read_is_given_back() {
        let counts = Counts::default();
        let message = Bytes::from(vec![1; 100]);
        let messages = vec![message.clone(), message.clone()];
        let mut answer = Unread::new(messages, counts.begin("peer".to_owned(), 1));
        assert!(answer.next().await.unwrap().is_ok());
        assert!(!message.is_unique() && counts.begin("peer".to_owned(), 1).is_none());
        tokio::time::sleep(ANSWER_DEADLINE * 2).await;
        assert!(message.is_unique() && counts.begin("peer".to_owned(), 1).is_some());
        assert!(answer.next().await.unwrap().is_err());
    }
}
