//! The memory that the server shares with the workers on its host: a slot for each, from the offer
//! to the end of the membership.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pserver_wire::gradient_slot::{Nonce, ServerSlot};
use pserver_wire::messages::{Attachment, WorkerId};

/// The slots of the workers, by number: who asks has shown that it is the worker.
#[derive(Debug)]
pub(crate) struct Slots {
    num_values: usize,
    slots: BTreeMap<WorkerId, Slot>,
}

#[derive(Debug)]
struct Slot {
    memory: Arc<ServerSlot>,
    /// Only then is it used.
    is_attached: bool,
}

impl Slots {
    /// No slots yet, for gradients of `num_values` numbers.
    pub(crate) fn new(num_values: usize) -> Self {
        Slots {
            num_values,
            slots: BTreeMap::new(),
        }
    }

    /// Where the worker can open its slot, which is made at the first call.
    ///
    /// # Errors
    ///
    /// If the system gives no memory.
    pub(crate) fn offer(&mut self, worker: WorkerId) -> io::Result<PathBuf> {
        if let Some(slot) = self.slots.get(&worker) {
            return Ok(slot.memory.path());
        }
        let memory = Arc::new(ServerSlot::create(self.num_values)?);
        let path = memory.path();
        let slot = Slot {
            memory,
            is_attached: false,
        };
        self.slots.insert(worker, slot);
        Ok(path)
    }

    /// Uses the slot from here on, if `nonce` shows that the worker has it open. Else it is given
    /// up.
    pub(crate) fn attach(&mut self, worker: WorkerId, nonce: Nonce) -> Attachment {
        let attachment = self.check(worker, nonce);
        if let Some(slot) = self.slots.get_mut(&worker) {
            slot.is_attached = attachment == Attachment::Attached;
        }
        self.slots
            .retain(|of, slot| *of != worker || slot.is_attached);
        attachment
    }

    fn check(&self, worker: WorkerId, nonce: Nonce) -> Attachment {
        let refused = |reason: String| Attachment::Refused { reason };
        match self.slots.get(&worker) {
            Some(slot) if slot.memory.nonce() == nonce => match slot.memory.reserve() {
                Ok(()) => Attachment::Attached,
                Err(error) => refused(format!("the server's host is short of memory: {error}")),
            },
            Some(_) => refused("the worker has opened something else".to_owned()),
            None => refused("nothing was offered".to_owned()),
        }
    }

    /// The slot of a worker that shares memory.
    pub(crate) fn slot(&self, worker: WorkerId) -> Option<Arc<ServerSlot>> {
        let slot = self.slots.get(&worker).filter(|slot| slot.is_attached)?;
        Some(Arc::clone(&slot.memory))
    }

    /// Gives up the slots of those that have left.
    pub(crate) fn retain(&mut self, is_there: impl Fn(WorkerId) -> bool) {
        self.slots.retain(|worker, _| is_there(*worker));
    }
}

#[cfg(test)]
mod tests {
    use pserver_wire::gradient_slot::WorkerSlot;

    use super::*;

    const NUM_VALUES: usize = 8;

    fn attach(memory: &mut Slots, worker: WorkerId) -> WorkerSlot {
        let path = memory.offer(worker).unwrap();
        let slot = WorkerSlot::open(&path, NUM_VALUES).unwrap();
        assert_eq!(memory.attach(worker, slot.nonce()), Attachment::Attached);
        slot
    }

    #[test]
    fn a_slot_is_used_once_its_worker_has_shown_that_it_has_it() {
        let mut memory = Slots::new(NUM_VALUES);
        let path = memory.offer(WorkerId(0)).unwrap();
        assert!(memory.slot(WorkerId(0)).is_none());
        assert_eq!(
            memory.offer(WorkerId(0)).unwrap(),
            path,
            "an offer repeated"
        );
        let slot = attach(&mut memory, WorkerId(0));
        let nonce = memory.slot(WorkerId(0)).unwrap().nonce();
        assert_eq!(nonce, slot.nonce());
        memory.retain(|of| of != WorkerId(0));
        assert!(memory.slot(WorkerId(0)).is_none());
    }

    #[test]
    fn a_worker_that_has_opened_something_else_is_refused() {
        let mut memory = Slots::new(NUM_VALUES);
        let refused = |attachment| matches!(attachment, Attachment::Refused { .. });
        let other = attach(&mut memory, WorkerId(0)).nonce();
        memory.offer(WorkerId(1)).unwrap();
        assert!(refused(memory.attach(WorkerId(1), other)));
        assert!(memory.slot(WorkerId(1)).is_none());
        assert!(refused(memory.attach(WorkerId(2), other)), "not offered");
        assert!(memory.slot(WorkerId(0)).is_some());
    }
}
