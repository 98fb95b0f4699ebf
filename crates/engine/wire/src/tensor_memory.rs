//! Memory for the variables that arrive at a client: the same for those of the next step as for these.
//!
//! Fresh memory for each step would cost more than what is copied into it: the system clears a page at a time,
//! the first time that something is written there.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use pserver_state::Values;

/// Memory for one tensor, which its clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct TensorMemory(Arc<Mutex<Option<Values>>>);

impl TensorMemory {
    /// Memory of so many numbers, with anything in it: what was [shared](Self::share) and is looked at no more, or
    /// fresh.
    pub(crate) fn take(&self, num_values: usize) -> Values {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let spare = spare.filter(|values| values.len() == num_values);
        spare.unwrap_or_else(|| Values::zeros(num_values))
    }

    /// The bytes of such memory, which is there to be taken again when the last share of them is dropped.
    pub(crate) fn share(&self, values: Values) -> Bytes {
        let home = self.clone();
        Bytes::from_owner(Shared { values, home })
    }
}

struct Shared {
    values: Values,
    home: TensorMemory,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.values.as_bytes()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let values = mem::replace(&mut self.values, Values::zeros(0));
        let spare = &mut *self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        *spare = Some(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_when_the_last_share_is_gone() {
        let memory = TensorMemory::default();
        let mut first = memory.take(3);
        first.fill(7.0);
        let place = first.as_ptr();
        let bytes = memory.share(first);
        let part = bytes.slice(4..);
        drop(bytes);
        let meanwhile = memory.take(3);
        assert_ne!(meanwhile.as_ptr(), place);
        assert_eq!(part, [7.0_f32.to_le_bytes(); 2].concat());
        drop(part);
        assert_eq!(memory.clone().take(3).as_ptr(), place);
        assert_eq!(memory.take(2).len(), 2);
    }
}
