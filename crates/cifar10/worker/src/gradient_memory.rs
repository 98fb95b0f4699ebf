//! Where a worker computes the gradients of a tower step, so that they need not be copied from there.
//!
//! With shared memory that is the worker's slot, which the server reads. Over the wire the trunk and the head have
//! memory of their own each, because the head's is lent to the connection while the trunk is still computed.

use std::sync::Arc;

use bytes::Bytes;
use pserver_state::Values;
use pserver_wire::gradient_slot::GradientsUnderWay;

use crate::engine::NUM_TRUNK_VALUES;

/// Memory for the gradients of one tower step, with anything in it at first.
#[derive(Debug)]
pub enum GradientMemory {
    /// They travel from here.
    Own(OwnMemory),
    /// The server reads them here.
    Slot(GradientsUnderWay),
}

impl GradientMemory {
    /// The gradients of the trunk: the first [`NUM_TRUNK_VALUES`].
    pub fn trunk_mut(&mut self) -> &mut [f32] {
        match self {
            GradientMemory::Own(memory) => &mut Arc::make_mut(&mut memory.trunk)[..],
            GradientMemory::Slot(gradients) => &mut gradients[..NUM_TRUNK_VALUES],
        }
    }

    /// The gradients of the head: all others.
    pub fn head_mut(&mut self) -> &mut [f32] {
        match self {
            GradientMemory::Own(memory) => &mut Arc::make_mut(&mut memory.head)[..],
            GradientMemory::Slot(gradients) => &mut gradients[NUM_TRUNK_VALUES..],
        }
    }
}

/// Memory of this process, lent to the connection while they travel.
#[derive(Debug)]
pub struct OwnMemory {
    trunk: Arc<Values>,
    head: Arc<Values>,
}

impl OwnMemory {
    pub(crate) fn new(num_values: usize) -> Self {
        let num_head_values = num_values
            .checked_sub(NUM_TRUNK_VALUES)
            .expect("the layout is the model's");
        OwnMemory {
            trunk: Arc::new(Values::zeros(NUM_TRUNK_VALUES)),
            head: Arc::new(Values::zeros(num_head_values)),
        }
    }

    /// The memory for the next tower step: this, where the connection has done with it.
    pub(crate) fn renewed(mut self) -> Self {
        for part in [&mut self.trunk, &mut self.head] {
            if Arc::get_mut(part).is_none() {
                *part = Arc::new(Values::zeros(part.len()));
            }
        }
        self
    }

    pub(crate) fn trunk(&self) -> Bytes {
        lent(&self.trunk)
    }

    pub(crate) fn head(&self) -> Bytes {
        lent(&self.head)
    }
}

fn lent(values: &Arc<Values>) -> Bytes {
    Bytes::from_owner(Lent(Arc::clone(values)))
}

struct Lent(Arc<Values>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels_is_not_written_to() {
        let mut memory = GradientMemory::Own(OwnMemory::new(NUM_TRUNK_VALUES + 2));
        memory.head_mut().copy_from_slice(&[1.0, 2.0]);
        let GradientMemory::Own(own) = &memory else {
            panic!("it is its own");
        };
        let travels = own.head();
        memory.head_mut()[0] = 7.0;
        memory.trunk_mut()[0] = 7.0;
        assert_eq!(
            travels,
            [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat()
        );
    }

    #[test]
    fn memory_is_used_again_unless_the_connection_still_has_it() {
        let memory = OwnMemory::new(NUM_TRUNK_VALUES + 3);
        let place = memory.head.as_ptr();
        let lent = memory.head();
        assert_eq!(lent.as_ptr(), place.cast::<u8>(), "it is not copied");
        let trunk = memory.trunk.as_ptr();
        let memory = memory.renewed();
        assert_ne!(memory.head.as_ptr(), place);
        assert_eq!(memory.trunk.as_ptr(), trunk);
        drop(lent);
        let place = memory.head.as_ptr();
        assert_eq!(memory.renewed().head.as_ptr(), place);
    }
}
