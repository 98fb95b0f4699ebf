//! Where a worker computes the gradients of a tower step and from where it hands them in, so that they need not be
//! copied on the way.
//!
//! With shared memory that is its slot, which the server reads. Over the wire the buffer is cut into parts, each of
//! which may travel while those before it are still computed.

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use pserver_state::{Pool, Values};
use tokio::runtime::Handle;

use crate::client::{Client, ClientError, PushStream};
use crate::gradient_slot::{Generation, GradientsUnderWay, WorkerSlot};
use crate::messages::{Gradients, Member, Push, Pushed, Then};

/// Buffers of one part are at hand for this many tower steps: one is computed while the one before may still be on its
/// way.
const BUFFERS_OF_PART: usize = 2;

/// Where a buffer of gradients is cut, and memory for its parts.
///
/// The cuts change no bit and no message; nobody but what computes knows of them.
#[derive(Clone, Debug)]
pub struct Parts(Arc<[(Range<usize>, Pool)]>);

impl Parts {
    /// Buffers of `num_values` numbers, cut at these, which ascend.
    ///
    /// # Panics
    ///
    /// If the cuts do not ascend, or go beyond the buffer.
    #[must_use]
    pub fn new(num_values: usize, cuts: &[usize]) -> Self {
        let begins = [0].into_iter().chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([num_values]);
        let part = |(begin, end): (usize, usize)| {
            assert!(begin <= end, "cuts ascend");
            (begin..end, Pool::new(end - begin, BUFFERS_OF_PART))
        };
        Parts(begins.zip(ends).map(part).collect())
    }
}

/// The gradients of one tower step, with anything in them at first.
#[derive(Debug)]
pub struct GradientBuffer {
    parts: Parts,
    memory: Memory,
    /// Who sends parts as soon as they are ready, if they travel.
    sender: Option<Sender>,
    stream: Option<PushStream>,
    /// The first of the parts that are ready.
    ready: usize,
}

#[derive(Debug)]
enum Memory {
    /// The worker's slot, which the server reads.
    Slot(GradientsUnderWay),
    /// The same, where they are all there.
    Finished(Generation),
    /// Memory of this process, for each part by itself.
    Parts(Vec<Part>),
}

#[derive(Debug)]
enum Part {
    Mine(Values),
    /// It is on its way; kept to be sent again.
    Lent(Bytes),
}

/// A worker, and its connection.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The connection.
    pub client: Client,
    /// The worker.
    pub member: Member,
    /// What sends in the background.
    pub runtime: Handle,
}

impl GradientBuffer {
    /// The numbers of a slot.
    ///
    /// # Panics
    ///
    /// If the gradients before are still under way there.
    #[must_use]
    pub fn in_slot(parts: &Parts, slot: &mut WorkerSlot) -> Self {
        Self::of(parts, Memory::Slot(slot.begin()), None)
    }

    /// Memory of this process, whose parts `sender` sends as soon as they are ready.
    #[must_use]
    pub fn to_send(parts: &Parts, sender: Sender) -> Self {
        Self::of(parts, Self::own_memory(parts), Some(sender))
    }

    /// Memory of this process, to be computed in and looked at.
    #[must_use]
    pub fn to_keep(parts: &Parts) -> Self {
        Self::of(parts, Self::own_memory(parts), None)
    }

    fn own_memory(parts: &Parts) -> Memory {
        let part = |(_, pool): &(_, Pool)| Part::Mine(pool.take());
        Memory::Parts(parts.0.iter().map(part).collect())
    }

    fn of(parts: &Parts, memory: Memory, sender: Option<Sender>) -> Self {
        GradientBuffer {
            parts: parts.clone(),
            memory,
            sender,
            stream: None,
            ready: parts.0.len(),
        }
    }

    /// A part, to be overwritten.
    ///
    /// # Panics
    ///
    /// If it is [ready](Self::ready), or there is no such part.
    pub fn part(&mut self, part: usize) -> &mut [f32] {
        match &mut self.memory {
            Memory::Slot(gradients) => &mut gradients[self.parts.0[part].0.clone()],
            Memory::Finished(_) => panic!("part {part} is handed in"),
            Memory::Parts(parts) => match &mut parts[part] {
                Part::Mine(values) => values,
                Part::Lent(_) => panic!("part {part} is on its way"),
            },
        }
    }

    /// A part is final, and may travel while those before it are computed. What is not said to be ready is so when
    /// it is handed in.
    ///
    /// # Panics
    ///
    /// If a part after it is not ready: they travel from the last to the first.
    pub fn ready(&mut self, part: usize) {
        assert_eq!(part + 1, self.ready, "from the last to the first");
        self.ready = part;
        let (Memory::Parts(parts), Some(sender)) = (&mut self.memory, &self.sender) else {
            return;
        };
        let bytes = parts[part].lend();
        if bytes.is_empty() {
            return;
        }
        let begin = || {
            let _context = sender.runtime.enter();
            sender.client.begin_push(sender.member)
        };
        self.stream.get_or_insert_with(begin).send(bytes);
    }

    /// Hands the gradients in, and asks for the next tower step. To be tried again if there is no answer: then nothing
    /// of them counted.
    ///
    /// # Errors
    ///
    /// [`ClientError`], as [`Client::push`].
    pub async fn push(&mut self, client: &mut Client, push: Push) -> Result<Pushed, ClientError> {
        match (&mut self.memory, self.stream.take()) {
            (Memory::Parts(parts), Some(stream)) => {
                let rest = lend_all(&mut parts[..self.ready]);
                stream.finish(push, rest).await
            }
            _ => client.push(push, self.gradients(), Then::Pull).await,
        }
    }

    /// All gradients, which nobody writes to from here on.
    pub fn gradients(&mut self) -> Gradients {
        let memory = match mem::replace(&mut self.memory, Memory::Parts(Vec::new())) {
            Memory::Slot(gradients) => Memory::Finished(gradients.finish()),
            other => other,
        };
        self.memory = memory;
        match &mut self.memory {
            Memory::Finished(generation) => Gradients::InSlot(*generation),
            Memory::Parts(parts) => Gradients::Sent(lend_all(parts)),
            Memory::Slot(_) => unreachable!("it was finished just now"),
        }
    }
}

/// The bytes of these parts, without those that are empty: nothing of a push travels in them.
fn lend_all(parts: &mut [Part]) -> Vec<Bytes> {
    let lent = parts.iter_mut().map(Part::lend);
    lent.filter(|bytes| !bytes.is_empty()).collect()
}

impl Part {
    /// Its bytes, which nobody writes to from here on.
    fn lend(&mut self) -> Bytes {
        if let Part::Mine(values) = self {
            let values = mem::replace(values, Values::zeros(0));
            *self = Part::Lent(Bytes::from_owner(values));
        }
        match self {
            Part::Lent(bytes) => bytes.clone(),
            Part::Mine(_) => unreachable!("it was lent just now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(mut buffer: GradientBuffer) -> Vec<Bytes> {
        match buffer.gradients() {
            Gradients::Sent(parts) => parts,
            other => panic!("{other:?}"),
        }
    }

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    #[test]
    fn the_parts_are_the_buffer_end_to_end() {
        let parts = Parts::new(5, &[2, 2]);
        let mut buffer = GradientBuffer::to_keep(&parts);
        buffer.part(2).copy_from_slice(&[3.0, 4.0, 5.0]);
        assert!(buffer.part(1).is_empty());
        buffer.part(0).copy_from_slice(&[1.0, 2.0]);
        assert_eq!(sent(buffer).concat(), bytes(&[1.0, 2.0, 3.0, 4.0, 5.0]));
    }

    #[test]
    fn memory_is_used_again_unless_the_connection_still_has_it() {
        let parts = Parts::new(3, &[]);
        let mut first = GradientBuffer::to_keep(&parts);
        first.part(0).fill(1.0);
        let travels = sent(first);
        let mut second = GradientBuffer::to_keep(&parts);
        second.part(0).fill(2.0);
        assert_eq!(travels.concat(), bytes(&[1.0; 3]));
        let place = travels[0].as_ptr();
        drop(travels);
        let mut third = GradientBuffer::to_keep(&parts);
        assert_eq!(third.part(0).as_ptr().cast(), place);
    }

    #[test]
    #[should_panic(expected = "from the last to the first")]
    fn parts_are_ready_from_the_last_to_the_first() {
        GradientBuffer::to_keep(&Parts::new(3, &[1])).ready(0);
    }

    #[test]
    fn in_a_slot_they_are_where_they_belong() {
        let server = crate::gradient_slot::ServerSlot::create(3).unwrap();
        server.reserve().unwrap();
        let mut slot = WorkerSlot::open(&server.path(), 3).unwrap();
        let parts = Parts::new(3, &[1]);
        let mut buffer = GradientBuffer::in_slot(&parts, &mut slot);
        buffer.part(1).copy_from_slice(&[2.0, 3.0]);
        buffer.ready(1);
        buffer.part(0).copy_from_slice(&[1.0]);
        let Gradients::InSlot(generation) = buffer.gradients() else {
            panic!("they are in the slot");
        };
        let mut found = [0.0; 3];
        assert!(server.read(generation, &mut found, |_| {}));
        assert_eq!(found, [1.0, 2.0, 3.0]);
    }
}
