//! What the server's end makes of any request of one message.

use crate::in_memory::{Ends, framed, with_ends};
use crate::recorder::Asked;

/// The methods, in an order that seeds know.
pub const METHODS: [&str; 13] = [
    "GetRun",
    "Register",
    "ShareMemory",
    "Attach",
    "Pull",
    "Summarize",
    "Heartbeat",
    "Leave",
    "GetStatus",
    "GetCheckpoint",
    "Follow",
    "ReportScore",
    "Administer",
];

/// A request: the number of its method, and its message.
///
/// Either the server is asked, or the client is told in words why not. What the server is asked, it is
/// asked again if a client sends it: nothing that is let in is outside of what can be said.
pub fn wire_request(bytes: &[u8]) {
    let Some((method, message)) = bytes.split_first() else {
        return;
    };
    let method = METHODS[usize::from(*method) % METHODS.len()];
    with_ends(|ends| {
        let status = ends.answer_to(method, framed([message]));
        if let Some(asked) = ends.recorder.take() {
            assert_is_asked_again(ends, asked);
        } else {
            assert!(!status.message().is_empty(), "{method}: {status:?}");
        }
    });
}

/// A client asks what the server was asked, and the server is asked the same.
pub(crate) fn assert_is_asked_again(ends: &mut Ends, asked: Asked) {
    // A loss may be NaN, which is not equal to itself; of a zero the wire leaves the sign out.
    let text = |asked: &Asked| {
        format!("{asked:?}")
            .replace("-0.0,", "0.0,")
            .replace("-0.0 ", "0.0 ")
    };
    let expected = text(&asked);
    let mut client = ends.client.clone();
    let answer = ends.wait_for(asked.ask(&mut client));
    let again = ends.recorder.take();
    let again = again.unwrap_or_else(|| panic!("{expected} is refused: {answer:?}"));
    assert_eq!(text(&again), expected);
}
