//! What the client's end makes of any answer.

use pserver_run::{GlobalStep, StateDigest, Tower, TowerStep};
use pserver_wire::client::{Client, ClientError};
use pserver_wire::gradient_slot::Nonce;
use pserver_wire::messages::{
    Assignment, CheckpointRequest, FollowerId, Gradients, LedgerPosition, Losses, Member, Pull,
    Push, Registration, SECRET_BYTES, Secret, Then, Variables, WorkerId,
};

use crate::in_memory::{framed, layout, with_ends};
use crate::pieces::pieces;
use crate::recorder::{Answer, IN_SLOT};

/// What a client asks for, in an order that seeds know.
pub const QUESTIONS: [&str; 9] = [
    "run",
    "register",
    "share_memory",
    "attach",
    "pull",
    "push_and_pull",
    "status",
    "checkpoint",
    "follow",
];

/// An answer: the number of the question, and the messages in pieces.
///
/// The client understands it, or says why not. What it understands is within its limits, and it
/// understands the same if a server of this release answers so.
pub fn wire_reply(bytes: &[u8]) {
    let Some((question, messages)) = bytes.split_first() else {
        return;
    };
    let question = QUESTIONS[usize::from(*question) % QUESTIONS.len()];
    with_ends(|ends| {
        ends.puppet.says(framed(pieces(messages)));
        let mut client = ends.puppets_client.clone();
        let answer = match ends.wait_for(ask(question, &mut client)) {
            Ok(Some(answer)) => answer,
            Ok(None) => return,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        assert_within_limits(&answer);
        // Of a zero the wire leaves the sign out.
        let text = |answer: &Answer| {
            format!("{answer:?}")
                .replace("-0.0,", "0.0,")
                .replace("-0.0)", "0.0)")
        };
        let expected = text(&answer);
        ends.recorder.answer(answer);
        let mut client = ends.client.clone();
        match ends.wait_for(ask(question, &mut client)) {
            Ok(Some(again)) => assert_eq!(text(&again), expected),
            other => panic!("{expected} is not understood again: {other:?}"),
        }
    });
}

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
        numerics: pserver_run::Numerics {
            device: "cpu".to_owned(),
            instruction_set: "avx2".to_owned(),
            kernels: pserver_run::Kernels::Torch,
            threads: 1,
            libtorch: "2.11.0".to_owned(),
        },
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

fn assert_within_limits(answer: &Answer) {
    let assignment = match answer {
        Answer::Assignment(assignment) => assignment,
        Answer::Pushed(pushed) => match &pushed.next {
            Some(assignment) => assignment,
            None => return,
        },
        Answer::Run(run) => return crate::run_config::assert_in_range(run),
        Answer::Status(status) => return crate::run_config::assert_in_range(&status.run),
        _ => return,
    };
    if let Assignment::Work(work) = assignment
        && let Variables::Sent(variables) = &work.variables
    {
        assert_eq!(variables.len(), layout().size_bytes());
    }
}
