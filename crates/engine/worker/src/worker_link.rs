//! A worker's conversation with the server, which outlives connections and servers.
//!
//! Calls block, so that the training loop reads as a loop; underneath, a thread keeps the
//! connection and the heartbeat going while gradients are computed. A request that gets no answer
//! is repeated, with growing pauses, until the retry window is over: every request may be, because
//! a tower step has a key and counts once.
//!
//! Variables and gradients take the way that the [`DataPlane`] says, which is agreed with the server
//! at each registration; the training loop sees no difference.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pserver_cli::exit::Exit;
use pserver_cli::host::host_name;
use pserver_cli::signals;
use pserver_guard::Credentials;
use pserver_run::{Layout, Numerics, RunConfig};
use pserver_state::Copied;
use pserver_wire::client::Client;
use pserver_wire::data_plane::DataPlane;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts};
use pserver_wire::messages::{
    Assignment, Goodbye, Losses, Member, PROTOCOL_VERSION, Push, Registration, TowerSummary,
    Verdict, Work,
};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{SetOnce, oneshot};
use tracing::{debug, info, warn};

use crate::link::{Link, LinkError};
use crate::session::{Session, Terms};

/// How long the goodbye of a worker that leaves may take; the lease ends its membership otherwise.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a summary may be on its way; it is not worth more.
const SUMMARY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a pull brings.
#[derive(Debug)]
pub enum Pulled {
    /// Compute this, at [`WorkerLink::variables`].
    Work(Work),
    /// The run is over for good.
    Over(Goodbye),
}

/// What came of a tower step besides its gradients.
#[derive(Clone, Copy, Debug)]
pub struct Computed {
    /// The losses.
    pub losses: Losses,
    /// Digest of the examples that were decoded.
    pub examples_digest: [u8; 16],
    /// Time it took to compute, without waiting.
    pub compute_time: Duration,
}

/// The conversation of one that is no worker yet.
#[derive(Debug)]
pub struct ServerLink {
    runtime: Runtime,
    link: Link,
    layout: Layout,
    /// Set when a signal asks the worker to leave.
    leaving: Arc<SetOnce<Exit>>,
}

impl ServerLink {
    /// A link to the server at `address`, which need not be up yet.
    ///
    /// From here on SIGINT and SIGTERM end the next request with [`LinkError::Leaving`].
    ///
    /// # Errors
    ///
    /// [`LinkError::Address`] or [`LinkError::Start`].
    pub fn new(
        address: &str,
        layout: &Layout,
        credentials: &Credentials,
        retry_window: Duration,
    ) -> Result<Self, LinkError> {
        let (runtime, link) = Link::start(address, layout, credentials, retry_window)?;
        let signal = {
            let _context = runtime.enter();
            signals::asked_to_leave()?
        };
        let leaving = Arc::new(SetOnce::new());
        let asked = leaving.clone();
        runtime.spawn(async move { asked.set(signal.await) });
        Ok(ServerLink {
            runtime,
            link,
            layout: layout.clone(),
            leaving,
        })
    }

    /// The run's configuration; waits for the server to come up.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn run(&mut self) -> Result<RunConfig, LinkError> {
        self.until_leaving(async |link| link.run().await)
    }

    /// Does something long that has nothing to do with the server, on a thread of its own, so that a
    /// signal ends the wait for it.
    ///
    /// # Errors
    ///
    /// [`LinkError::Leaving`] or [`LinkError::Start`].
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn meanwhile<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LinkError> {
        let (done, result) = oneshot::channel();
        // It ends with the process if nobody waits for it any more.
        thread::Builder::new().spawn(move || drop(done.send(work())))?;
        self.until_leaving(async |_| Ok(result.await.expect("the work does not panic")))
    }

    /// Becomes a worker of the run. `data_digest` and `numerics` are what the server compares with the run's, and
    /// the layout.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] if they differ, or another [`LinkError`].
    pub fn register(
        mut self,
        data_plane: DataPlane,
        data_digest: [u8; 32],
        numerics: Numerics,
    ) -> Result<WorkerLink, LinkError> {
        let terms = Terms {
            layout: self.layout.clone(),
            data_plane,
            registration: Registration {
                protocol_version: PROTOCOL_VERSION,
                layout_fingerprint: self.layout.fingerprint(),
                data_digest,
                numerics,
                name: format!("{}/{}", host_name(), std::process::id()),
            },
        };
        let session = self.until_leaving(async |link| Session::open(link, &terms).await)?;
        Ok(WorkerLink {
            session,
            terms,
            server: self,
        })
    }

    fn until_leaving<T>(
        &mut self,
        talk: impl AsyncFnOnce(&mut Link) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                result = talk(&mut self.link) => result,
                exit = self.leaving.wait() => Err(LinkError::Leaving(*exit)),
            }
        })
    }
}

/// The conversation of a worker.
#[derive(Debug)]
pub struct WorkerLink {
    // Its heartbeat ends before the runtime does.
    session: Session,
    terms: Terms,
    server: ServerLink,
}

impl WorkerLink {
    /// The run's configuration.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn run(&mut self) -> Result<RunConfig, LinkError> {
        self.server.run()
    }

    /// Waits for the next tower step.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn pull(&mut self) -> Result<Pulled, LinkError> {
        self.server.until_leaving(async |link| {
            loop {
                match self.session.assignment(link).await? {
                    Assignment::Work(work) => match self.session.take_variables(link, &work)? {
                        Copied::Whole => return Ok(Pulled::Work(work)),
                        Copied::Overtaken => {
                            info!(tower_step = %work.tower_step, "was overtaken while it read the variables; pulls again");
                        }
                    },
                    Assignment::Wait => debug!("no work yet"),
                    // It may be started again within the retry window.
                    Assignment::Goodbye(Goodbye::Stopping) => link.wait_for_another_start().await?,
                    Assignment::Goodbye(goodbye) => return Ok(Pulled::Over(goodbye)),
                    Assignment::Unregistered => {
                        warn!("the server does not know this worker any more; registers again");
                        link.run().await?;
                        self.session = Session::open(link, &self.terms).await?;
                    }
                }
            }
        })
    }

    /// The variables of the work that was pulled last, end to end in the layout's order; none before the first.
    #[must_use]
    pub fn variables(&self) -> &[f32] {
        self.session.variables()
    }

    /// Where to compute the gradients of a tower step. It is to be [pushed](Self::push) before the next pull, or
    /// dropped, and what was sent of it ahead is forgotten then.
    ///
    /// # Panics
    ///
    /// If what was taken before is still there.
    pub fn gradient_buffer(&mut self, parts: &Parts) -> GradientBuffer {
        let ServerLink { runtime, link, .. } = &self.server;
        self.session
            .gradient_buffer(parts, link.client(), runtime.handle())
    }

    /// Hands in the gradients of a tower step.
    ///
    /// The answer comes together with that to the next [`pull`](Self::pull), so that it takes as
    /// long as that one would, and the pull no time.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn push(
        &mut self,
        work: &Work,
        computed: Computed,
        gradients: GradientBuffer,
    ) -> Result<Verdict, LinkError> {
        let push = Push {
            member: self.session.member(),
            tower_step: work.tower_step,
            state_digest: work.state_digest,
            losses: computed.losses,
            examples_digest: computed.examples_digest,
            compute_time: computed.compute_time,
            attempt: work.attempt,
        };
        let session = &mut self.session;
        self.server
            .until_leaving(async |link| session.push(link, push, gradients).await)
    }

    /// This worker's membership.
    #[must_use]
    pub fn member(&self) -> Member {
        self.session.member()
    }

    /// Sends summaries from another thread, over the connection of this link. To be dropped before it.
    #[must_use]
    pub fn summary_sender(&self) -> SummarySender {
        SummarySender {
            runtime: self.server.runtime.handle().clone(),
            client: self.server.link.client(),
        }
    }

    /// Tells the server that this worker leaves, if it listens.
    pub fn leave(self) {
        let member = self.session.member();
        // With it the heartbeat.
        drop(self.session);
        let mut client = self.server.link.client();
        let goodbye = async { tokio::time::timeout(LEAVE_TIMEOUT, client.leave(member)).await };
        let _ = self.server.runtime.block_on(goodbye);
    }
}

/// Sends summaries beside a [`WorkerLink`].
#[derive(Debug)]
pub struct SummarySender {
    runtime: Handle,
    client: Client,
}

impl SummarySender {
    /// Sends a summary once, and waits for its answer a short while.
    pub fn send(&self, member: Member, summary: TowerSummary) {
        let global_step = summary.summary_step.0;
        let mut client = self.client.clone();
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(SUMMARY_TIMEOUT, client.summarize(member, summary)).await
        });
        match answer {
            Ok(Ok(is_taken)) => debug!(global_step, is_taken, "summary is sent"),
            Ok(Err(error)) => debug!(global_step, %error, "summary is lost"),
            Err(_) => debug!(global_step, "summary is lost: no answer in time"),
        }
    }
}
