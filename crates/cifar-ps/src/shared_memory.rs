//! The memory that the server shares with the workers on its host: a slot for each, from the offer
//! to the end of the membership.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use cifar_wire::gradient_slot::{Nonce, ServerSlot};
use cifar_wire::messages::{Attachment, Member};

/// The slots of the members.
#[derive(Debug)]
pub struct SharedMemory {
    num_values: usize,
    slots: BTreeMap<Member, Slot>,
}

#[derive(Debug)]
struct Slot {
    memory: Arc<ServerSlot>,
    /// Only then is it used.
    is_attached: bool,
}

impl SharedMemory {
    /// No slots yet, for gradients of `num_values` numbers.
    #[must_use]
    pub fn new(num_values: usize) -> Self {
        SharedMemory {
            num_values,
            slots: BTreeMap::new(),
        }
    }

    /// Where the member can open its slot, which is made at the first call.
    ///
    /// # Errors
    ///
    /// If the system gives no memory.
    pub fn offer(&mut self, member: Member) -> io::Result<PathBuf> {
        if let Some(slot) = self.slots.get(&member) {
            return Ok(slot.memory.path());
        }
        let memory = Arc::new(ServerSlot::create(self.num_values)?);
        let path = memory.path();
        let slot = Slot {
            memory,
            is_attached: false,
        };
        self.slots.insert(member, slot);
        Ok(path)
    }

    /// Uses the slot from here on, if `nonce` shows that the member has it open. Else it is given
    /// up.
    pub fn attach(&mut self, member: Member, nonce: Nonce) -> Attachment {
        let attachment = self.check(member, nonce);
        if let Some(slot) = self.slots.get_mut(&member) {
            slot.is_attached = attachment == Attachment::Attached;
        }
        self.slots
            .retain(|of, slot| *of != member || slot.is_attached);
        attachment
    }

    fn check(&self, member: Member, nonce: Nonce) -> Attachment {
        let refused = |reason: String| Attachment::Refused { reason };
        match self.slots.get(&member) {
            Some(slot) if slot.memory.nonce() == nonce => match slot.memory.reserve() {
                Ok(()) => Attachment::Attached,
                Err(error) => refused(format!("the server's host is short of memory: {error}")),
            },
            Some(_) => refused("the worker has opened something else".to_owned()),
            None => refused("nothing was offered".to_owned()),
        }
    }

    /// The slot of a member that shares memory.
    #[must_use]
    pub fn slot(&self, member: Member) -> Option<Arc<ServerSlot>> {
        let slot = self.slots.get(&member).filter(|slot| slot.is_attached)?;
        Some(Arc::clone(&slot.memory))
    }

    /// Gives up the slots of those that are no members any more.
    pub fn retain(&mut self, is_member: impl Fn(Member) -> bool) {
        self.slots.retain(|member, _| is_member(*member));
    }
}

#[cfg(test)]
mod tests {
    use cifar_wire::gradient_slot::WorkerSlot;
    use cifar_wire::messages::{Session, WorkerId};

    use super::*;

    const NUM_VALUES: usize = 8;

    fn member(session: u64, worker: u32) -> Member {
        Member {
            session: Session(session),
            worker: WorkerId(worker),
        }
    }

    fn attach(memory: &mut SharedMemory, member: Member) -> WorkerSlot {
        let path = memory.offer(member).unwrap();
        let slot = WorkerSlot::open(&path, NUM_VALUES).unwrap();
        assert_eq!(memory.attach(member, slot.nonce()), Attachment::Attached);
        slot
    }

    #[test]
    fn a_slot_is_used_once_its_worker_has_shown_that_it_has_it() {
        let mut memory = SharedMemory::new(NUM_VALUES);
        let path = memory.offer(member(1, 0)).unwrap();
        assert!(memory.slot(member(1, 0)).is_none());
        assert_eq!(
            memory.offer(member(1, 0)).unwrap(),
            path,
            "an offer repeated"
        );
        let slot = attach(&mut memory, member(1, 0));
        let nonce = memory.slot(member(1, 0)).unwrap().nonce();
        assert_eq!(nonce, slot.nonce());
        assert!(memory.slot(member(2, 0)).is_none(), "of another session");
        memory.retain(|of| of != member(1, 0));
        assert!(memory.slot(member(1, 0)).is_none());
    }

    #[test]
    fn whoever_has_opened_something_else_is_refused() {
        let mut memory = SharedMemory::new(NUM_VALUES);
        let refused = |attachment| matches!(attachment, Attachment::Refused { .. });
        let other = attach(&mut memory, member(1, 0)).nonce();
        memory.offer(member(1, 1)).unwrap();
        assert!(refused(memory.attach(member(1, 1), other)));
        assert!(memory.slot(member(1, 1)).is_none());
        assert!(refused(memory.attach(member(1, 2), other)), "not offered");
        assert!(memory.slot(member(1, 0)).is_some());
    }
}
