//! The worker's side of the protocol: one conversation that outlives connections and servers.
//!
//! Calls block, so that the training loop reads as a loop; underneath, a thread keeps the
//! connection and the heartbeat going while gradients are computed. A request that gets no answer
//! is repeated, with growing pauses, until the retry window is over: every request may be, because
//! a tower step has a key and counts once.
//!
//! Variables and gradients take the way that the [`DataPlane`] says, which is agreed with the server
//! at each registration; whoever pulls and pushes sees no difference.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use pserver_cli::exit::Exit;
use pserver_cli::host::host_name;
use pserver_cli::signals;
use pserver_guard::Credentials;
use pserver_run::{Layout, Numerics, RunConfig, StateDigest};
use pserver_state::{Copied, StateFileError, Values};
use pserver_wire::client::{Client, ClientError};
use pserver_wire::data_plane::DataPlane;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts, Sender};
use pserver_wire::messages::{
    self, Assignment, Attachment, Goodbye, Losses, Member, PROTOCOL_VERSION, Pull, Push, Pushed,
    Registration, TowerSummary, Variables, Verdict, Work,
};
use pserver_wire::transport::BadAddress;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};

use crate::backoff;
use crate::persistence::{Jitter, persist};
use crate::shared_memory::{NotShared, SharedMemory};

/// Heartbeats per lease: two may be lost before the worker is.
const HEARTBEATS_PER_LEASE: u32 = 3;

/// How long the goodbye of a worker that leaves may take; the lease ends its membership otherwise.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a summary may be on its way; it is not worth more.
const SUMMARY_TIMEOUT: Duration = Duration::from_secs(2);

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

/// What a pull brings.
#[derive(Debug)]
pub enum Pulled {
    /// Compute this, at [`ServerLink::variables`].
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

/// The conversation with a parameter server.
#[derive(Debug)]
pub struct ServerLink {
    runtime: Runtime,
    conversation: Conversation,
    /// Set when a signal asks the worker to leave.
    leaving: watch::Receiver<Option<Exit>>,
    /// The membership that the heartbeat keeps up.
    heartbeat: watch::Sender<Option<(Member, Duration)>>,
}

/// The part of the link that its requests change.
#[derive(Debug)]
struct Conversation {
    client: Client,
    address: String,
    layout: Layout,
    data_plane: DataPlane,
    retry_window: Duration,
    jitter: Jitter,
    run: Option<RunConfig>,
    registration: Option<Registration>,
    member: Option<Member>,
    /// Where variables and gradients need not travel.
    shared: Option<SharedMemory>,
    /// The newest variables, if they came over the wire: little-endian f32 at the alignment of numbers.
    sent: Option<Bytes>,
    /// The newest variables otherwise, read from shared memory.
    read: Values,
    /// The digest of their state; none while they are being replaced.
    held: Option<StateDigest>,
    /// What the answer to the last push brought along for the next pull.
    next: Option<Assignment>,
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
        data_plane: DataPlane,
        retry_window: Duration,
    ) -> Result<Self, LinkError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let _context = runtime.enter();
        let client = Client::new(address, layout, credentials)?;

        let (asked, leaving) = watch::channel(None);
        let signal = signals::asked_to_leave()?;
        runtime.spawn(async move { asked.send_replace(Some(signal.await)) });

        let (heartbeat, member) = watch::channel(None);
        runtime.spawn(keep_alive(client.clone(), member));

        let address = address.to_owned();
        let jitter = Jitter::default();
        let conversation = Conversation {
            client,
            address,
            layout: layout.clone(),
            data_plane,
            retry_window,
            jitter,
            run: None,
            registration: None,
            member: None,
            shared: None,
            sent: None,
            read: Values::zeros(layout.num_values()),
            held: None,
            next: None,
        };
        Ok(ServerLink {
            runtime,
            conversation,
            leaving,
            heartbeat,
        })
    }

    /// The run's configuration; waits for the server to come up.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn run(&mut self) -> Result<RunConfig, LinkError> {
        self.until_leaving(async |conversation| conversation.fetch_run().await)
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

    /// Becomes a worker of the run. `layout_fingerprint`, `data_digest` and `numerics` are what the
    /// server compares with the run's.
    ///
    /// # Errors
    ///
    /// [`LinkError::Refused`] if they differ, or another [`LinkError`].
    pub fn register(
        &mut self,
        layout_fingerprint: u64,
        data_digest: [u8; 32],
        numerics: Numerics,
    ) -> Result<(), LinkError> {
        let name = format!("{}/{}", host_name(), std::process::id());
        let registration = Registration {
            protocol_version: PROTOCOL_VERSION,
            layout_fingerprint,
            data_digest,
            numerics,
            name,
        };
        self.conversation.registration = Some(registration);
        let heartbeat = self.heartbeat.clone();
        self.until_leaving(async move |conversation| conversation.register(&heartbeat).await)
    }

    /// Waits for the next tower step.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn pull(&mut self) -> Result<Pulled, LinkError> {
        let heartbeat = self.heartbeat.clone();
        self.until_leaving(async move |conversation| conversation.pull(&heartbeat).await)
    }

    /// The variables of the work that was pulled last, end to end in the layout's order; zeros before the first.
    #[must_use]
    pub fn variables(&self) -> &[f32] {
        match &self.conversation.sent {
            Some(sent) => bytemuck::cast_slice(sent),
            None => &self.conversation.read,
        }
    }

    /// Where to compute the gradients of a tower step. It is to be [pushed](Self::push) before the next pull, or
    /// dropped, and what was sent of it ahead is forgotten then.
    ///
    /// # Panics
    ///
    /// If what was taken before is still there, or [`register`](Self::register) was not called.
    pub fn gradient_buffer(&mut self, parts: &Parts) -> GradientBuffer {
        let member = self.conversation.member();
        match &mut self.conversation.shared {
            Some(shared) => GradientBuffer::in_slot(parts, &mut shared.slot),
            None => {
                let sender = Sender {
                    client: self.conversation.client.clone(),
                    member,
                    runtime: self.runtime.handle().clone(),
                };
                GradientBuffer::to_send(parts, sender)
            }
        }
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
        self.until_leaving(async move |conversation| {
            conversation.push(work, computed, gradients).await
        })
    }

    /// This worker's membership.
    ///
    /// # Panics
    ///
    /// Before [`register`](Self::register).
    #[must_use]
    pub fn member(&self) -> Member {
        self.conversation.member()
    }

    /// Sends summaries from another thread, over the connection of this link. To be dropped before it.
    #[must_use]
    pub fn summary_sender(&self) -> SummarySender {
        SummarySender {
            runtime: self.runtime.handle().clone(),
            client: self.conversation.client.clone(),
        }
    }

    /// Tells the server that this worker leaves, if it listens.
    pub fn leave(mut self) {
        self.heartbeat.send_replace(None);
        if let Some(member) = self.conversation.member {
            let goodbye = self.conversation.client.leave(member);
            let _ = self
                .runtime
                .block_on(async { tokio::time::timeout(LEAVE_TIMEOUT, goodbye).await });
        }
    }

    fn until_leaving<T>(
        &mut self,
        talk: impl AsyncFnOnce(&mut Conversation) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let ServerLink {
            runtime,
            conversation,
            leaving,
            ..
        } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                result = talk(conversation) => result,
                exit = asked_to_leave(leaving) => Err(LinkError::Leaving(exit)),
            }
        })
    }
}

async fn asked_to_leave(leaving: &mut watch::Receiver<Option<Exit>>) -> Exit {
    match leaving.wait_for(Option::is_some).await {
        Ok(exit) => exit.unwrap_or(Exit::Terminated),
        // The task that waits for signals is gone only when the runtime is.
        Err(_) => std::future::pending().await,
    }
}

impl Conversation {
    async fn fetch_run(&mut self) -> Result<RunConfig, LinkError> {
        let run = self.persist(async |client| client.run().await).await?;
        let differences = self
            .run
            .as_ref()
            .map_or(Vec::new(), |before| before.differences(&run));
        if !differences.is_empty() {
            let address = self.address.clone();
            return Err(LinkError::AnotherRun {
                address,
                differences: differences.join("; "),
            });
        }
        self.run = Some(run.clone());
        Ok(run)
    }

    async fn register(
        &mut self,
        heartbeat: &watch::Sender<Option<(Member, Duration)>>,
    ) -> Result<(), LinkError> {
        let registration = self
            .registration
            .clone()
            .expect("the worker registers before it works");
        let registered = self
            .persist(async |client| client.register(registration.clone()).await)
            .await?;
        info!(
            worker = registered.member.worker.0,
            server = self.address,
            "registered"
        );
        self.member = Some(registered.member);
        heartbeat.send_replace(Some((registered.member, registered.lease)));
        self.choose_data_plane().await
    }

    /// Shares memory with the server if that is wanted and works out.
    async fn choose_data_plane(&mut self) -> Result<(), LinkError> {
        self.shared = None;
        if self.data_plane == DataPlane::Wire {
            return Ok(());
        }
        match self.share_memory().await? {
            Ok(shared) => {
                if shared.is_some() {
                    info!("shares memory with the server");
                }
                self.shared = shared;
            }
            Err(reason) if self.data_plane == DataPlane::SharedMemory => {
                return Err(LinkError::NotShared {
                    address: self.address.clone(),
                    source: reason,
                });
            }
            Err(reason) => info!(%reason, "variables and gradients travel over the wire"),
        }
        Ok(())
    }

    /// Opens the memory that the server offers; `None` if the server has just been started again
    /// and wants a registration first.
    async fn share_memory(&mut self) -> Result<Result<Option<SharedMemory>, NotShared>, LinkError> {
        let member = self.member();
        let offer = self
            .persist(async |client| client.share_memory(member).await)
            .await?;
        let shared = match offer {
            messages::SharedMemory::Offered {
                state_path,
                slot_path,
            } => SharedMemory::open(&state_path, &slot_path, &self.layout),
            messages::SharedMemory::Refused { reason } => Err(NotShared::Refused(reason)),
            messages::SharedMemory::Unregistered => return Ok(Ok(None)),
        };
        let shared = match shared {
            Ok(shared) => shared,
            Err(reason) => return Ok(Err(reason)),
        };
        let nonce = shared.slot.nonce();
        let attachment = self
            .persist(async |client| client.attach(member, nonce).await)
            .await?;
        Ok(match attachment {
            Attachment::Attached => Ok(Some(shared)),
            Attachment::Refused { reason } => Err(NotShared::Refused(reason)),
            Attachment::Unregistered => Ok(None),
        })
    }

    async fn pull(
        &mut self,
        heartbeat: &watch::Sender<Option<(Member, Duration)>>,
    ) -> Result<Pulled, LinkError> {
        loop {
            match self.assignment().await? {
                Assignment::Work(work) => match self.take_variables(&work)? {
                    Copied::Whole => return Ok(Pulled::Work(work)),
                    Copied::Overtaken => {
                        info!(tower_step = %work.tower_step, "was overtaken while it read the variables; pulls again");
                    }
                },
                Assignment::Wait => debug!("no work yet"),
                // It may be started again within the retry window.
                Assignment::Goodbye(Goodbye::Stopping) => self.wait_for_another_start().await?,
                Assignment::Goodbye(goodbye) => return Ok(Pulled::Over(goodbye)),
                Assignment::Unregistered => {
                    warn!("the server does not know this worker any more; registers again");
                    self.fetch_run().await?;
                    self.register(heartbeat).await?;
                }
            }
        }
    }

    /// The answer to a pull, which may have come already.
    async fn assignment(&mut self) -> Result<Assignment, LinkError> {
        if let Some(next) = self.next.take() {
            return Ok(next);
        }
        let pull = Pull {
            member: self.member(),
            held: self.held,
        };
        self.persist(async |client| client.pull(pull).await).await
    }

    /// Sees to it that the variables are those of `work`.
    fn take_variables(&mut self, work: &Work) -> Result<Copied, LinkError> {
        let sent = match &work.variables {
            Variables::Held if self.held == Some(work.state_digest) => return Ok(Copied::Whole),
            Variables::Held => return Err(self.not_understood("it sends no variables")),
            Variables::InStateFile { sequence } => {
                return self.read_variables(*sequence, work.state_digest);
            }
            Variables::Sent(sent) => sent,
        };
        if sent.len() != self.layout.size_bytes() {
            return Err(self.not_understood("its variables are of another size"));
        }
        self.sent = Some(sent.clone());
        self.held = Some(work.state_digest);
        Ok(Copied::Whole)
    }

    fn read_variables(&mut self, sequence: u64, digest: StateDigest) -> Result<Copied, LinkError> {
        let Some(shared) = &self.shared else {
            return Err(self.not_understood("it shares no memory"));
        };
        self.held = None;
        self.sent = None;
        let variables = &mut self.read;
        let copied = shared.state.read_variables(sequence, digest, variables)?;
        self.held = (copied == Copied::Whole).then_some(digest);
        Ok(copied)
    }

    fn not_understood(&self, reason: &str) -> LinkError {
        LinkError::Refused {
            address: self.address.clone(),
            source: ClientError::Protocol {
                reason: reason.to_owned(),
            },
        }
    }

    async fn push(
        &mut self,
        work: &Work,
        computed: Computed,
        mut gradients: GradientBuffer,
    ) -> Result<Verdict, LinkError> {
        let push = Push {
            member: self.member(),
            tower_step: work.tower_step,
            state_digest: work.state_digest,
            losses: computed.losses,
            examples_digest: computed.examples_digest,
            compute_time: computed.compute_time,
            attempt: work.attempt,
        };
        let Pushed { verdict, next } = self
            .persist(async |client| gradients.push(client, push).await)
            .await?;
        self.next = next;
        Ok(verdict)
    }

    fn member(&self) -> Member {
        self.member.expect("the worker registers before it works")
    }

    async fn wait_for_another_start(&mut self) -> Result<(), LinkError> {
        info!("the server stops; waits for it to be started again");
        tokio::time::sleep(backoff::delay(3, self.jitter.next())).await;
        self.persist(async |client| client.run().await)
            .await
            .map(drop)
    }

    /// Repeats a request until it is answered, refused, or the retry window is over.
    async fn persist<T>(
        &mut self,
        request: impl AsyncFnMut(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, LinkError> {
        let Conversation {
            client,
            address,
            retry_window,
            jitter,
            ..
        } = self;
        persist(client, address, *retry_window, jitter, request).await
    }
}

/// Sends summaries beside a [`ServerLink`].
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

/// Keeps the membership alive, whatever the training loop is doing.
async fn keep_alive(mut client: Client, mut member: watch::Receiver<Option<(Member, Duration)>>) {
    loop {
        let Ok(known) = member.wait_for(Option::is_some).await.map(|member| *member) else {
            return;
        };
        let Some((current, lease)) = known else {
            continue;
        };
        if let Err(error) = client.heartbeat(current).await {
            debug!(%error, "a heartbeat got no answer");
        }
        tokio::time::sleep(lease / HEARTBEATS_PER_LEASE).await;
    }
}
