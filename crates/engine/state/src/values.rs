//! One f32 for each element of a layout: variables, moving averages or gradients.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

use crate::pool::Pool;

/// A cache line of numbers: the unit of allocation, so that every buffer begins on one.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; 16]);

/// A flat buffer of f32 that begins on a 64-byte boundary.
///
/// The alignment is part of the numbers: a matrix product may sum in another order when its input
/// begins elsewhere, and two workers would then disagree in the last bits.
pub struct Values {
    memory: Memory,
    len: usize,
    /// Where the memory goes when it is dropped.
    pool: Option<Pool>,
}

/// From so many bytes on a buffer has pages of its own, which the system has back as soon as it is dropped: of
/// memory that is freed among smaller pieces much stays with the process.
const OWN_PAGES_FROM: usize = 1 << 20;

/// Where the numbers are.
pub(crate) enum Memory {
    Heap(Vec<Line>),
    /// Of nobody else's, or of a file.
    Pages(MmapMut),
}

impl Memory {
    /// Of `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let num_lines = len.div_ceil(16);
        let num_bytes = num_lines * size_of::<Line>();
        let pages = (num_bytes >= OWN_PAGES_FROM).then(|| MmapMut::map_anon(num_bytes));
        match pages {
            Some(Ok(pages)) => Memory::Pages(pages),
            // Where the system gives none, the allocator says what there is to say.
            Some(Err(_)) | None => Memory::Heap(vec![Line::zeroed(); num_lines]),
        }
    }
}

impl Values {
    /// `len` zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Values {
            memory: Memory::zeros(len),
            len,
            pool: None,
        }
    }

    /// The `len` numbers that `memory`, which is long enough for them, happens to hold. It goes back to `pool`.
    pub(crate) fn of_pool(memory: Memory, len: usize, pool: Pool) -> Self {
        Values {
            memory,
            len,
            pool: Some(pool),
        }
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
            Memory::Heap(lines) => bytemuck::cast_slice(lines),
            Memory::Pages(pages) => bytemuck::cast_slice(pages),
        };
        &numbers[..self.len]
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        let numbers = match &mut self.memory {
            Memory::Heap(lines) => bytemuck::cast_slice_mut(lines),
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages),
        };
        &mut numbers[..self.len]
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let memory = mem::replace(&mut self.memory, Memory::Heap(Vec::new()));
            pool.give_back(memory);
        }
    }
}

/// Their bytes, as a connection takes them.
impl AsRef<[u8]> for Values {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// A copy has memory of its own, and of no pool.
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
        fn numbers_are_aligned_and_their_bytes_are_theirs(numbers in prop::collection::vec(any::<f32>(), 0..100)) {
            let values = Values::from(numbers.as_slice());
            prop_assert_eq!(values.as_ptr() as usize % 64, 0);
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            prop_assert_eq!(values.as_bytes(), &bytes);
        }
    }
}
