//! What a worker has from one registration to the next: its membership, its way to variables and gradients, and the
//! variables that it holds.

use std::path::Path;

use bytes::Bytes;
use pserver_run::{Layout, StateDigest};
use pserver_state::{Copied, Pool, StateReader};
use pserver_wire::client::Client;
use pserver_wire::data_plane::DataPlane;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts, Sender};
use pserver_wire::gradient_slot::WorkerSlot;
use pserver_wire::messages::{
    Assignment, Attachment, Delivery, Member, Pull, Push, Pushed, Registered, Registration,
    SharedMemory, Verdict, Work,
};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::info;

use crate::link::{Link, LinkError, NotShared, keep_alive};

/// With what a worker registers, each time.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) layout: Layout,
    pub(crate) data_plane: DataPlane,
    pub(crate) registration: Registration,
}

/// What a registration gives.
#[derive(Debug)]
pub(crate) struct Session {
    member: Member,
    /// `None` if variables and gradients travel.
    shared: Option<Shared>,
    num_bytes: usize,
    held: Option<Held>,
    /// What the answer to the last push brought along for the next pull.
    next: Option<Assignment>,
    /// Keeps the membership alive, whatever the training loop is doing, as long as this is there.
    _heartbeat: JoinSet<()>,
}

/// What a worker has open of its server's memory, where both are on one host.
#[derive(Debug)]
struct Shared {
    /// The server's state file, from which variables are copied.
    state: StateReader,
    /// The slot of this worker, in which gradients are computed.
    slot: WorkerSlot,
    /// Where the variables are copied to.
    memory: Pool,
}

/// Variables of a state: little-endian f32 at the alignment of numbers.
#[derive(Debug)]
struct Held {
    digest: StateDigest,
    bytes: Bytes,
}

impl Session {
    /// Registers, and shares memory with the server if that is wanted and works out.
    pub(crate) async fn open(link: &mut Link, terms: &Terms) -> Result<Self, LinkError> {
        let registration = &terms.registration;
        let registered = link
            .ask(async |client| client.register(registration.clone()).await)
            .await?;
        let Registered { member, lease } = registered;
        info!(
            worker = member.worker.0,
            server = link.address(),
            "registered"
        );
        let mut heartbeat = JoinSet::new();
        let beat = async move |client: &mut Client| client.heartbeat(member).await;
        heartbeat.spawn(keep_alive(link.client(), lease, beat));
        Ok(Session {
            member,
            shared: Shared::open(link, terms, member).await?,
            num_bytes: terms.layout.size_bytes(),
            held: None,
            next: None,
            _heartbeat: heartbeat,
        })
    }

    pub(crate) fn member(&self) -> Member {
        self.member
    }

    /// The answer to a pull, which may have come already.
    pub(crate) async fn assignment(&mut self, link: &mut Link) -> Result<Assignment, LinkError> {
        if let Some(next) = self.next.take() {
            return Ok(next);
        }
        let pull = Pull {
            member: self.member,
            held: self.held.as_ref().map(|held| held.digest),
        };
        link.ask(async |client| client.pull(pull).await).await
    }

    /// Sees to it that the variables are those of `work`.
    pub(crate) fn take_variables(&mut self, link: &Link, work: &Work) -> Result<Copied, LinkError> {
        let digest = work.state_digest;
        let bytes = match (&work.variables, &self.shared) {
            (Delivery::Held, _) if self.holds(digest) => return Ok(Copied::Whole),
            (Delivery::Held, _) => return Err(link.not_understood("it sends no variables")),
            (Delivery::Sent(bytes), _) if bytes.len() == self.num_bytes => bytes.clone(),
            (Delivery::Sent(_), _) => {
                return Err(link.not_understood("its variables are of another size"));
            }
            (Delivery::InStateFile { .. }, None) => {
                return Err(link.not_understood("it shares no memory"));
            }
            (Delivery::InStateFile { sequence }, Some(shared)) => {
                // What is held lies where these are copied to.
                self.held = None;
                let mut values = shared.memory.take();
                let copied = shared
                    .state
                    .read_variables(*sequence, digest, &mut values)?;
                if copied != Copied::Whole {
                    return Ok(copied);
                }
                Bytes::from_owner(values)
            }
        };
        self.held = Some(Held { digest, bytes });
        Ok(Copied::Whole)
    }

    fn holds(&self, digest: StateDigest) -> bool {
        self.held.as_ref().is_some_and(|held| held.digest == digest)
    }

    /// The variables that were taken last; none before the first.
    pub(crate) fn variables(&self) -> &[f32] {
        let bytes = self.held.as_ref().map_or(&[][..], |held| &held.bytes);
        bytemuck::cast_slice(bytes)
    }

    /// Where to compute gradients, which are sent in the background of `runtime` if they travel.
    pub(crate) fn gradient_buffer(
        &mut self,
        parts: &Parts,
        client: Client,
        runtime: &Handle,
    ) -> GradientBuffer {
        match &mut self.shared {
            Some(shared) => GradientBuffer::in_slot(parts, &mut shared.slot),
            None => {
                let sender = Sender {
                    client,
                    member: self.member,
                    runtime: runtime.clone(),
                };
                GradientBuffer::to_send(parts, sender)
            }
        }
    }

    /// Hands gradients in, until that is answered; what comes with the answer is there for the next pull.
    pub(crate) async fn push(
        &mut self,
        link: &mut Link,
        push: Push,
        mut gradients: GradientBuffer,
    ) -> Result<Verdict, LinkError> {
        let pushed = link.ask(async |client| gradients.push(client, push).await);
        let Pushed { verdict, next } = pushed.await?;
        self.next = next;
        Ok(verdict)
    }
}

impl Shared {
    /// Opens the memory that the server offers, if `terms` want it and it works out. `None` also if the server has
    /// just been started again and wants a registration first.
    async fn open(
        link: &mut Link,
        terms: &Terms,
        member: Member,
    ) -> Result<Option<Self>, LinkError> {
        if terms.data_plane == DataPlane::Wire {
            return Ok(None);
        }
        let offer = link.ask(async |client| client.share_memory(member).await);
        let offered = match offer.await? {
            SharedMemory::Offered {
                state_path,
                slot_path,
            } => Shared::at(&state_path, &slot_path, &terms.layout),
            SharedMemory::Refused { reason } => Err(NotShared::Refused(reason)),
            SharedMemory::Unregistered => return Ok(None),
        };
        let reason = match offered {
            Ok(shared) => {
                let nonce = shared.slot.nonce();
                let attachment = link.ask(async |client| client.attach(member, nonce).await);
                match attachment.await? {
                    Attachment::Attached => {
                        info!("shares memory with the server");
                        return Ok(Some(shared));
                    }
                    Attachment::Refused { reason } => NotShared::Refused(reason),
                    Attachment::Unregistered => return Ok(None),
                }
            }
            Err(reason) => reason,
        };
        if terms.data_plane == DataPlane::SharedMemory {
            return Err(LinkError::NotShared {
                address: link.address().to_owned(),
                source: reason,
            });
        }
        info!(%reason, "variables and gradients travel over the wire");
        Ok(None)
    }

    /// Fails if the server is not on this host, or not this user's.
    fn at(state_path: &Path, slot_path: &Path, layout: &Layout) -> Result<Self, NotShared> {
        Ok(Shared {
            state: StateReader::open(state_path, layout)?,
            slot: WorkerSlot::open(slot_path, layout.num_values())?,
            memory: Pool::new(layout.num_values(), 1),
        })
    }
}
