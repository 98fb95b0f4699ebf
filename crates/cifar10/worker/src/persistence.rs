//! Repeats a request until it is answered. Retries are here and nowhere else.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use pserver_wire::client::{Client, ClientError};
use tracing::info;

use crate::backoff;
use crate::server_link::LinkError;

/// Numbers in `0..1` that differ from process to process. They spread retries and touch no result.
#[derive(Debug, Default)]
pub(crate) struct Jitter {
    state: RandomState,
    drawn: u64,
}

impl Jitter {
    pub(crate) fn next(&mut self) -> f64 {
        self.drawn += 1;
        (self.state.hash_one(self.drawn) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Repeats a request, with growing pauses, until it is answered, refused, or the window is over.
pub(crate) async fn persist<T>(
    client: &mut Client,
    server: &str,
    retry_window: Duration,
    jitter: &mut Jitter,
    mut request: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
) -> Result<T, LinkError> {
    let started = Instant::now();
    let mut attempt = 0;
    loop {
        let error = match request(client).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let address = || server.to_owned();
        if !error.is_transient() {
            return Err(LinkError::Refused {
                address: address(),
                source: error,
            });
        }
        if started.elapsed() >= retry_window {
            return Err(LinkError::Away {
                address: address(),
                window: retry_window,
                last: error,
            });
        }
        if attempt == 0 {
            info!(server, %error, "waits for the server");
        }
        tokio::time::sleep(backoff::delay(attempt, jitter.next())).await;
        attempt += 1;
    }
}
