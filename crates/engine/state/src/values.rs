//! One f32 for each element of a layout: variables, moving averages or gradients.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use crate::lent_memory::LentMemory;

/// A cache line of numbers: the unit of allocation, so that every buffer begins on one.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A flat buffer of f32 that begins on a 64-byte boundary.
///
/// The alignment is part of the numbers: a matrix product may sum in another order when its input
/// begins elsewhere, and two workers would then disagree in the last bits.
pub struct Values {
    memory: Memory,
    len: usize,
}

/// From so many bytes on a buffer has pages of its own, which the system has back as soon as it is dropped: of
/// memory that is freed among smaller pieces much stays with the process.
const OWN_PAGES_FROM: usize = 1 << 20;

/// Where the numbers are.
enum Memory {
    Own(Vec<Line>),
    /// Of nobody else's and no file's.
    Pages(MmapMut),
    /// In a file, at a place that gets it back.
    Lent(LentMemory),
}

impl Values {
    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        let num_lines = len.div_ceil(16);
        let num_bytes = num_lines * size_of::<Line>();
        let pages = (num_bytes >= OWN_PAGES_FROM).then(|| MmapMut::map_anon(num_bytes));
        let memory = match pages {
            Some(Ok(pages)) => Memory::Pages(pages),
            // Where the system gives none, the allocator says what there is to say.
            Some(Err(_)) | None => Memory::Own(vec![Line::zeroed(); num_lines]),
        };
        Values { memory, len }
    }

    /// The `len` numbers that `memory`, which is long enough for them, happens to hold.
    pub(crate) fn lent(memory: LentMemory, len: usize) -> Self {
        Values {
            memory: Memory::Lent(memory),
            len,
        }
    }

    /// The numbers in `bytes`, little-endian f32 at any alignment; `None` if these are not exactly
    /// `len` numbers.
    #[must_use]
    pub fn from_le_bytes(bytes: &[u8], len: usize) -> Option<Self> {
        if bytes.len() != len * size_of::<f32>() {
            return None;
        }
        let mut values = Values::zeros(len);
        values.as_bytes_mut().copy_from_slice(bytes);
        Some(values)
    }

    /// The numbers as little-endian bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    /// The numbers as little-endian bytes, to be overwritten.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let numbers = match &self.memory {
            Memory::Own(lines) => bytemuck::cast_slice(lines),
            Memory::Pages(pages) => bytemuck::cast_slice(pages),
            Memory::Lent(memory) => bytemuck::cast_slice(memory),
        };
        &numbers[..self.len]
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        let numbers = match &mut self.memory {
            Memory::Own(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages),
            Memory::Lent(memory) => bytemuck::cast_slice_mut(memory),
        };
        &mut numbers[..self.len]
    }
}

/// A copy has memory of its own.
impl Clone for Values {
    fn clone(&self) -> Self {
        Values::from(&**self)
    }
}

impl From<&[f32]> for Values {
    fn from(numbers: &[f32]) -> Self {
        let mut values = Values::zeros(numbers.len());
        values.copy_from_slice(numbers);
        values
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({} numbers)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_survive_a_round_trip(numbers in prop::collection::vec(any::<f32>(), 0..100)) {
            let values = Values::from(numbers.as_slice());
            prop_assert_eq!(values.as_ptr() as usize % 64, 0);
            let mut shifted = vec![0];
            shifted.extend_from_slice(values.as_bytes());
            let back = Values::from_le_bytes(&shifted[1..], numbers.len()).unwrap();
            prop_assert_eq!(back.as_bytes(), values.as_bytes());
        }

        #[test]
        fn another_number_of_bytes_is_refused(len in 0_usize..50, num_bytes in 0_usize..250) {
            let bytes = vec![0; num_bytes];
            prop_assert_eq!(Values::from_le_bytes(&bytes, len).is_some(), num_bytes == 4 * len);
        }
    }
}
