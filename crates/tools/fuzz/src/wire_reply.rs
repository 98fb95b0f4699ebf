//! What the client's end makes of any answer.

use pserver_wire::messages::{Assignment, Delivery};

use crate::in_memory::{framed, with_ends};
use crate::layout::layout;
use crate::pieces::pieces;
use crate::question::ask;
use crate::recorder::Answer;

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
        let expected = format!("{answer:?}");
        ends.recorder.answer(answer);
        let mut client = ends.client.clone();
        match ends.wait_for(ask(question, &mut client)) {
            Ok(Some(again)) => assert_eq!(format!("{again:?}"), expected),
            other => panic!("{expected} is not understood again: {other:?}"),
        }
    });
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
        && let Delivery::Sent(variables) = &work.variables
    {
        assert_eq!(variables.len(), layout().size_bytes());
    }
}
