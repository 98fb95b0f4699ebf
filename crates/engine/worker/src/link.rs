//! A server and the run that it serves, across its restarts. Retries are here and nowhere else.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use pserver_cli::exit::Exit;
use pserver_guard::Credentials;
use pserver_run::{Layout, RunConfig};
use pserver_state::{CheckpointError, StateFileError};
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient_slot::SlotError;
use pserver_wire::transport::BadAddress;
use tokio::runtime::Runtime;
use tracing::{debug, info};

/// The first pause before a request is repeated; each one after is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Heartbeats per lease: two may be lost before it ends.
const HEARTBEATS_PER_LEASE: u32 = 3;

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
    /// The server sent something that is no checkpoint of this model.
    #[error("the server sent no sound checkpoint")]
    Checkpoint(#[from] CheckpointError),
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
            | LinkError::NotShared { .. }
            | LinkError::Checkpoint(_) => Exit::Permanent,
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
    run: Option<RunConfig>,
}

impl Link {
    /// A link to the server at `address`, which need not be up yet, and the thread that it talks on.
    pub(crate) fn start(
        address: &str,
        layout: &Layout,
        credentials: &Credentials,
        retry_window: Duration,
    ) -> Result<(Runtime, Self), LinkError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let client = {
            let _context = runtime.enter();
            Client::new(address, layout, credentials)?
        };
        let link = Link {
            client,
            address: address.to_owned(),
            retry_window,
            run: None,
        };
        Ok((runtime, link))
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
            tokio::time::sleep(pause_before(attempt, jitter())).await;
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
        tokio::time::sleep(pause_before(3, jitter())).await;
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

/// Sends heartbeats, whatever else goes on, as long as it is polled.
pub(crate) async fn keep_alive<T>(
    mut client: Client,
    lease: Duration,
    mut heartbeat: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
) {
    loop {
        if let Err(error) = heartbeat(&mut client).await {
            debug!(%error, "a heartbeat got no answer");
        }
        tokio::time::sleep(lease / HEARTBEATS_PER_LEASE).await;
    }
}

/// The wait before retry number `attempt`, counted from 0: doubling from 0.1 s up to 5 s, of which
/// between half and all is waited, as `jitter` in `0..1` says, so that workers that lost their
/// server together do not all come back at the same moment.
fn pause_before(attempt: u32, jitter: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << attempt.min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * jitter)
}

/// A number in `0..1` that differs from call to call and from process to process. It touches no result.
fn jitter() -> f64 {
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        assert_eq!(pause_before(0, 1.0), FIRST_PAUSE);
        assert_eq!(pause_before(1, 1.0), 2 * FIRST_PAUSE);
        assert_eq!(pause_before(1000, 1.0), LONGEST_PAUSE);
        assert_eq!(pause_before(3, 0.0), pause_before(3, 1.0) / 2);
    }
}
