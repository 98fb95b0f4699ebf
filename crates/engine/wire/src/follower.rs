//! What followers ask and tell, from and to the generated types: a checkpoint in parts, and the
//! ledger.

use pserver_run::GlobalStep;

use crate::convert::present;
use crate::messages::{
    CheckpointReply, CheckpointRequest, FollowerId, LedgerPart, LedgerPosition, Malformed,
};
use crate::pb;
use crate::transport::PART_BYTES;

impl From<CheckpointRequest> for pb::GetCheckpointRequest {
    fn from(request: CheckpointRequest) -> Self {
        pb::GetCheckpointRequest {
            follower: request.follower.0,
            newer_than: request.newer_than.map(|step| step.0),
        }
    }
}

impl From<pb::GetCheckpointRequest> for CheckpointRequest {
    fn from(request: pb::GetCheckpointRequest) -> Self {
        CheckpointRequest {
            follower: FollowerId(request.follower),
            newer_than: request.newer_than.map(GlobalStep),
        }
    }
}

/// The messages of an answer, in their order.
pub(crate) fn checkpoint_messages(reply: CheckpointReply) -> Vec<pb::GetCheckpointReply> {
    use pb::get_checkpoint_reply::Part;
    let parts = match reply {
        CheckpointReply::Wait => vec![Part::Wait(pb::Wait {})],
        CheckpointReply::Goodbye(goodbye) => vec![Part::Goodbye(goodbye.into())],
        CheckpointReply::Checkpoint { global_step, file } => {
            let header = Part::Header(pb::CheckpointHeader {
                global_step: global_step.0,
                size_bytes: file.len() as u64,
            });
            let starts = (0..file.len()).step_by(PART_BYTES);
            let part =
                |start: usize| Part::File(file.slice(start..file.len().min(start + PART_BYTES)));
            std::iter::once(header).chain(starts.map(part)).collect()
        }
    };
    let message = |part| pb::GetCheckpointReply { part: Some(part) };
    parts.into_iter().map(message).collect()
}

/// A file of which not all parts have come.
#[derive(Debug)]
pub(crate) struct FileUnderWay {
    global_step: GlobalStep,
    size_bytes: usize,
    file: Vec<u8>,
}

/// What the first message of an answer says: all of it, or that parts of a file of at most `max_bytes`
/// will come.
pub(crate) fn first_of_checkpoint(
    message: pb::GetCheckpointReply,
    max_bytes: usize,
) -> Result<Result<CheckpointReply, FileUnderWay>, Malformed> {
    use pb::get_checkpoint_reply::Part;
    match present("part", message.part)? {
        Part::Wait(pb::Wait {}) => Ok(Ok(CheckpointReply::Wait)),
        Part::Goodbye(goodbye) => Ok(Ok(CheckpointReply::Goodbye(goodbye.try_into()?))),
        Part::File(_) => Err(Malformed::Missing("header")),
        Part::Header(header) => {
            let size_bytes = usize::try_from(header.size_bytes).unwrap_or(usize::MAX);
            if size_bytes > max_bytes {
                return Err(Malformed::Value {
                    field: "header.size_bytes",
                    reason: format!("{size_bytes}, at most {max_bytes} are taken"),
                });
            }
            Ok(Err(FileUnderWay {
                global_step: GlobalStep(header.global_step),
                size_bytes,
                file: Vec::with_capacity(size_bytes),
            }))
        }
    }
}

impl FileUnderWay {
    /// Takes in a message after the first.
    pub(crate) fn add(&mut self, message: pb::GetCheckpointReply) -> Result<(), Malformed> {
        use pb::get_checkpoint_reply::Part;
        let Part::File(part) = present("part", message.part)? else {
            return Err(Malformed::Missing("file"));
        };
        self.file.extend_from_slice(&part);
        match self.file.len() > self.size_bytes {
            true => Err(self.of_another_size()),
            false => Ok(()),
        }
    }

    /// The whole, when the last message has come.
    pub(crate) fn finish(self) -> Result<CheckpointReply, Malformed> {
        if self.file.len() != self.size_bytes {
            return Err(self.of_another_size());
        }
        Ok(CheckpointReply::Checkpoint {
            global_step: self.global_step,
            file: self.file.into(),
        })
    }

    fn of_another_size(&self) -> Malformed {
        Malformed::Size {
            field: "file",
            found: self.file.len(),
            expected: self.size_bytes,
        }
    }
}

impl From<LedgerPosition> for pb::FollowRequest {
    fn from(position: LedgerPosition) -> Self {
        pb::FollowRequest {
            ledger: position.ledger,
            offset: position.offset,
        }
    }
}

impl From<pb::FollowRequest> for LedgerPosition {
    fn from(request: pb::FollowRequest) -> Self {
        LedgerPosition {
            ledger: request.ledger,
            offset: request.offset,
        }
    }
}

impl From<LedgerPart> for pb::FollowReply {
    fn from(part: LedgerPart) -> Self {
        pb::FollowReply {
            ledger: part.ledger,
            offset: part.offset,
            bytes: part.bytes,
            size_bytes: part.size_bytes,
        }
    }
}

impl From<pb::FollowReply> for LedgerPart {
    fn from(reply: pb::FollowReply) -> Self {
        LedgerPart {
            ledger: reply.ledger,
            offset: reply.offset,
            bytes: reply.bytes,
            size_bytes: reply.size_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::messages::Goodbye;

    const MAX_BYTES: usize = 10 << 20;

    fn received(messages: Vec<pb::GetCheckpointReply>) -> Result<CheckpointReply, Malformed> {
        let mut messages = messages.into_iter();
        let first = messages.next().expect("there is a first message");
        let mut under_way = match first_of_checkpoint(first, MAX_BYTES)? {
            Ok(reply) => return Ok(reply),
            Err(under_way) => under_way,
        };
        messages.try_for_each(|message| under_way.add(message))?;
        under_way.finish()
    }

    fn checkpoint(size_bytes: usize) -> CheckpointReply {
        let file: Vec<u8> = (0..size_bytes).map(|index| index as u8).collect();
        CheckpointReply::Checkpoint {
            global_step: GlobalStep(7),
            file: Bytes::from(file),
        }
    }

    #[test]
    fn a_checkpoint_travels_in_parts_and_arrives_whole() {
        for size_bytes in [0, 1, PART_BYTES, PART_BYTES + 1, MAX_BYTES] {
            let messages = checkpoint_messages(checkpoint(size_bytes));
            assert_eq!(messages.len(), 1 + size_bytes.div_ceil(PART_BYTES));
            assert_eq!(received(messages), Ok(checkpoint(size_bytes)));
        }
        for reply in [
            CheckpointReply::Wait,
            CheckpointReply::Goodbye(Goodbye::Complete),
        ] {
            assert_eq!(received(checkpoint_messages(reply.clone())), Ok(reply));
        }
    }

    #[test]
    fn a_checkpoint_that_is_cut_short_or_too_long_is_refused() {
        let messages = checkpoint_messages(checkpoint(3 * PART_BYTES));
        let mut cut = messages.clone();
        cut.pop();
        let mut longer = messages.clone();
        longer.push(messages[1].clone());
        let without_header = messages[1..].to_vec();
        let too_large = checkpoint_messages(checkpoint(MAX_BYTES + 1));
        for wrong in [cut, longer, without_header, too_large] {
            assert!(received(wrong).is_err());
        }
    }
}
