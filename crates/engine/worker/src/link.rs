//! A server and the run that it serves, across its restarts. Retries are here and nowhere else.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use pserver_cli::exit::Exit;
use pserver_run::RunConfig;
use pserver_state::StateFileError;
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient_slot::SlotError;
use pserver_wire::transport::BadAddress;
use tracing::info;

use crate::backoff;

/// Why the conversation with the server is over.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address makes no sense.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The server stayed away for the whole retry window.
    #[error("the server at {address} stayed away for {} s: {last}", window.as_secs())]
    Away {
        /// Where it should be.
        address: String,
        /// How long was tried.
        window: Duration,
        /// The last failure.
        last: ClientError,
    },
    /// The server refuses this program.
    #[error("the server at {address} refuses this program")]
    Refused {
        /// Where it is.
        address: String,
        /// Its words.
        #[source]
        source: ClientError,
    },
    /// Another run is served at the address now.
    #[error(
        "the server at {address} now serves another run ({differences}); start this program anew for it"
    )]
    AnotherRun {
        /// Where it is.
        address: String,
        /// What differs.
        differences: String,
    },
    /// Shared memory was asked for and cannot be had.
    #[error(
        "cannot share memory with the server at {address}, as --data-plane shm asks: {source}; \
         without that flag variables and gradients travel over the wire"
    )]
    NotShared {
        /// Where the server is.
        address: String,
        /// Why not.
        source: NotShared,
    },
    /// Variables in shared memory cannot be read.
    #[error("cannot read the variables that the server shares")]
    Variables(#[from] StateFileError),
    /// A signal asked the worker to leave.
    #[error("asked to leave")]
    Leaving(Exit),
    /// The system gives no threads or signals.
    #[error("cannot start the worker's network thread")]
    Start(#[from] std::io::Error),
}

impl LinkError {
    /// The exit code that it means.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            LinkError::Address(_) => Exit::Usage,
            LinkError::Away { .. } => Exit::TryAgain,
            LinkError::Refused { .. }
            | LinkError::AnotherRun { .. }
            | LinkError::NotShared { .. } => Exit::Permanent,
            LinkError::Leaving(exit) => *exit,
            LinkError::Start(_) | LinkError::Variables(_) => Exit::Unexpected,
        }
    }
}

/// Memory that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NotShared {
    /// The slot.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The server says no.
    #[error("the server says: {0}")]
    Refused(String),
}

/// A server that may be away for a while, and the run that it has to serve when it is back.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    address: String,
    retry_window: Duration,
    jitter: Jitter,
    run: Option<RunConfig>,
}

impl Link {
    pub(crate) fn new(client: Client, address: &str, retry_window: Duration) -> Self {
        Link {
            client,
            address: address.to_owned(),
            retry_window,
            jitter: Jitter::default(),
            run: None,
        }
    }

    /// A client over the same connection.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Repeats a request, with growing pauses, until it is answered, refused, or the retry window is over.
    pub(crate) async fn ask<T>(
        &mut self,
        mut request: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, LinkError> {
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let error = match request(&mut self.client).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(self.refused(error));
            }
            if started.elapsed() >= self.retry_window {
                return Err(LinkError::Away {
                    address: self.address.clone(),
                    window: self.retry_window,
                    last: error,
                });
            }
            if attempt == 0 {
                info!(server = self.address, %error, "waits for the server");
            }
            tokio::time::sleep(backoff::delay(attempt, self.jitter.next())).await;
            attempt += 1;
        }
    }

    /// The run that is served, which has to be the same each time.
    pub(crate) async fn run(&mut self) -> Result<RunConfig, LinkError> {
        let run = self.ask(async |client| client.run().await).await?;
        let differences = self
            .run
            .get_or_insert_with(|| run.clone())
            .differences(&run);
        if !differences.is_empty() {
            return Err(LinkError::AnotherRun {
                address: self.address.clone(),
                differences: differences.join("; "),
            });
        }
        self.run = Some(run.clone());
        Ok(run)
    }

    /// The server stops, and may be started again within the retry window.
    pub(crate) async fn wait_for_another_start(&mut self) -> Result<(), LinkError> {
        info!("the server stops; waits for it to be started again");
        tokio::time::sleep(backoff::delay(3, self.jitter.next())).await;
        self.run().await.map(drop)
    }

    /// The server says something that makes no sense here.
    pub(crate) fn not_understood(&self, reason: &str) -> LinkError {
        self.refused(ClientError::Protocol {
            reason: reason.to_owned(),
        })
    }

    fn refused(&self, source: ClientError) -> LinkError {
        LinkError::Refused {
            address: self.address.clone(),
            source,
        }
    }
}

/// Numbers in `0..1` that differ from process to process. They spread retries and touch no result.
#[derive(Debug, Default)]
struct Jitter {
    state: RandomState,
    drawn: u64,
}

impl Jitter {
    fn next(&mut self) -> f64 {
        self.drawn += 1;
        (self.state.hash_one(self.drawn) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
