//! What a client asks, by name.

use pserver_run::{GlobalStep, Numerics, StateDigest, Tower, TowerStep};
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient_slot::Nonce;
use pserver_wire::messages::{
    CheckpointRequest, FollowerId, Gradients, LedgerPosition, Losses, Member, Pull, Push,
    Registration, SECRET_BYTES, Secret, Then, WorkerId,
};

use crate::layout::layout;
use crate::recorder::{Answer, IN_SLOT};

/// Asks a server, and gives its answer; `None` where it is that there is none.
pub(crate) async fn ask(
    question: &str,
    client: &mut Client,
) -> Result<Option<Answer>, ClientError> {
    let member = Member {
        secret: Secret([1; SECRET_BYTES]),
        worker: WorkerId(0),
    };
    Ok(Some(match question {
        "run" => Answer::Run(client.run().await?),
        "register" => Answer::Registered(client.register(registration()).await?),
        "share_memory" => Answer::SharedMemory(client.share_memory(member).await?),
        "attach" => Answer::Attachment(client.attach(member, Nonce([7; 16])).await?),
        "pull" => Answer::Assignment(client.pull(Pull { member, held: None }).await?),
        "push_and_pull" => {
            let in_slot = Gradients::InSlot(IN_SLOT.0);
            Answer::Pushed(client.push(push(member), in_slot, Then::Pull).await?)
        }
        "status" => Answer::Status(client.status().await?),
        "checkpoint" => {
            let request = CheckpointRequest {
                follower: FollowerId(1),
                newer_than: None,
            };
            Answer::Checkpoint(client.checkpoint(request).await?)
        }
        _ => {
            let mut parts = client.follow(LedgerPosition::default()).await?;
            let Some(first) = parts.next().await? else {
                return Ok(None);
            };
            // To the end, so that nothing of it goes on in the background.
            while let Ok(Some(_)) = parts.next().await {}
            Answer::LedgerPart(first)
        }
    }))
}

/// A registration that the server's end lets in.
fn registration() -> Registration {
    Registration {
        protocol_version: pserver_wire::messages::PROTOCOL_VERSION,
        layout_fingerprint: layout().fingerprint(),
        data_digest: [3; 32],
        numerics: Numerics::example(1),
        name: "host/1".to_owned(),
    }
}

fn push(member: Member) -> Push {
    Push {
        member,
        tower_step: TowerStep {
            global_step: GlobalStep(1),
            tower: Tower(0),
        },
        state_digest: StateDigest(1),
        losses: Losses::default(),
        examples_digest: [7; 16],
        compute_time: std::time::Duration::ZERO,
        attempt: 0,
    }
}
