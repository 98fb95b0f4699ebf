//! An evaluator's conversation with the server: checkpoints in, scores out, across restarts of the
//! server.
//!
//! Calls block; underneath, a thread sends heartbeats while checkpoints are scored, so that a run
//! that is over waits for the last score.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use pserver_guard::Credentials;
use pserver_run::member::FOLLOWER_LEASE;
use pserver_run::{GlobalStep, Layout, Score};
use pserver_state::{Checkpoint, checkpoint};
use pserver_wire::client::Client;
use pserver_wire::messages::{CheckpointReply, CheckpointRequest, FollowerId, Goodbye};
use tokio::runtime::Runtime;

use crate::link::{Link, LinkError, keep_alive};

/// What comes next.
#[derive(Debug)]
pub enum Followed {
    /// The newest checkpoint, of this step.
    Checkpoint(GlobalStep, Box<Checkpoint>),
    /// The run is over, and every checkpoint was fetched that was to be.
    Over(Goodbye),
}

/// The conversation of an evaluator.
#[derive(Debug)]
pub struct FollowerLink {
    runtime: Runtime,
    link: Link,
    layout: Layout,
    follower: FollowerId,
}

impl FollowerLink {
    /// A link to the server at `address`, which need not be up yet.
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
        let follower = FollowerId(RandomState::new().hash_one(std::process::id()));
        let heartbeat = async move |client: &mut Client| client.follower_heartbeat(follower).await;
        runtime.spawn(keep_alive(link.client(), FOLLOWER_LEASE, heartbeat));
        Ok(FollowerLink {
            runtime,
            link,
            layout: layout.clone(),
            follower,
        })
    }

    /// Waits for a checkpoint of a higher step, or for the end of the run. A server that stops, or is
    /// away, may come back within the retry window.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn next(&mut self, newer_than: Option<GlobalStep>) -> Result<Followed, LinkError> {
        let request = CheckpointRequest {
            follower: self.follower,
            newer_than,
        };
        let link = &mut self.link;
        self.runtime.block_on(async {
            loop {
                // That of the one before, or this is no follower of it.
                link.run().await?;
                let reply = link.ask(async |client| client.checkpoint(request).await);
                match reply.await? {
                    CheckpointReply::Wait => {}
                    CheckpointReply::Goodbye(Goodbye::Stopping) => {
                        link.wait_for_another_start().await?;
                    }
                    CheckpointReply::Goodbye(goodbye) => return Ok(Followed::Over(goodbye)),
                    CheckpointReply::Checkpoint { global_step, file } => {
                        let name = checkpoint::name_of(global_step);
                        let found = checkpoint::load_bytes(Path::new(&name), &file, &self.layout)?;
                        return Ok(Followed::Checkpoint(global_step, Box::new(found)));
                    }
                }
            }
        })
    }

    /// Tells the server a score.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    pub fn report(&mut self, score: &Score) -> Result<(), LinkError> {
        let follower = self.follower;
        let report = async |client: &mut Client| client.report_score(follower, score).await;
        self.runtime.block_on(self.link.ask(report))
    }
}
