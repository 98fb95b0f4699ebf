//! What the server's end makes of any sequence of messages that is to be a push.

use prost::Message;
use pserver_wire::gradient_slot::Generation;

use crate::in_memory::{framed, with_ends};
use crate::pieces::pieces;
use crate::recorder::{Asked, IN_SLOT};
use crate::wire_request::assert_is_asked_again;

/// What of a message decides where its part of the gradients goes.
#[derive(Clone, PartialEq, Message)]
struct Part {
    #[prost(message, optional, tag = "1")]
    member: Option<Anything>,
    #[prost(bytes = "vec", tag = "8")]
    gradients: Vec<u8>,
    #[prost(uint64, optional, tag = "10")]
    slot_generation: Option<u64>,
}

/// A message whose fields do not matter.
#[derive(Clone, PartialEq, Message)]
struct Anything {}

/// The messages of a push, in pieces.
///
/// If the server takes the push, its gradients are those of the messages up to the first with a member,
/// the last part first, and of the layout's size; or there are none, and they are in the slot that the
/// message names. It is taken as well if a client sends it.
pub fn wire_push(bytes: &[u8]) {
    with_ends(|ends| {
        let status = ends.answer_to("Push", framed(pieces(bytes)));
        let Some(asked) = ends.recorder.take() else {
            assert!(!status.message().is_empty(), "{status:?}");
            return;
        };
        let Asked::Push(_, values, _) = &asked else {
            panic!("{asked:?} is no push");
        };
        let sent = Sent::of(bytes);
        match sent.slot_generation {
            None => assert_eq!(values.as_bytes(), sent.gradients),
            Some(generation) => {
                assert!(sent.gradients.is_empty());
                assert_eq!(
                    (Generation(generation), &values[..]),
                    (IN_SLOT.0, &IN_SLOT.1[..])
                );
            }
        }
        assert_is_asked_again(ends, asked);
    });
}

/// What the messages of a push come to, by another hand.
struct Sent {
    gradients: Vec<u8>,
    slot_generation: Option<u64>,
}

impl Sent {
    fn of(bytes: &[u8]) -> Self {
        let mut gradients = Vec::new();
        for message in pieces(bytes) {
            let part = Part::decode(message).expect("the server has decoded it");
            gradients.splice(..0, part.gradients);
            if part.member.is_some() {
                let slot_generation = part.slot_generation;
                return Sent {
                    gradients,
                    slot_generation,
                };
            }
        }
        panic!("a push without its last part was taken");
    }
}
