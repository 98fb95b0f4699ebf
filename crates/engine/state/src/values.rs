//! One f32 for each element of a layout: variables, moving averages or gradients; and memory for them that is used
//! again: a buffer goes back to the pool that it came from when it is dropped.
//!
//! Fresh memory for each step would cost more than what is written to it: the system clears a page at a time, the first
//! time that something is written there.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;

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
    /// Where the memory goes when it is dropped.
    pool: Option<Pool>,
}

/// From so many bytes on a buffer has pages of its own, which the system has back as soon as it is dropped: of
/// memory that is freed among smaller pieces much stays with the process.
const OWN_PAGES_FROM: usize = 1 << 20;

/// Where the numbers are.
enum Memory {
    Heap(Vec<Line>),
    /// Of nobody else's, or of a file.
    Pages(MmapMut),
}

impl Memory {
    /// Of `len` zeros.
    fn zeros(len: usize) -> Self {
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
    fn of_pool(memory: Memory, len: usize, pool: Pool) -> Self {
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

/// Buffers of one size. Its clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Inner>);

struct Inner {
    len: usize,
    /// As many as are kept here.
    most: usize,
    shelf: Mutex<Vec<Memory>>,
}

impl Pool {
    /// Buffers of `len` numbers, of which `most` at most are kept while nobody uses them.
    #[must_use]
    pub fn new(len: usize, most: usize) -> Self {
        Pool(Arc::new(Inner {
            len,
            most,
            shelf: Mutex::default(),
        }))
    }

    /// A buffer with anything in it: one that came back, or fresh memory.
    #[must_use]
    pub fn take(&self) -> Values {
        let spare = self.shelf().pop();
        let memory = spare.unwrap_or_else(|| Memory::zeros(self.0.len));
        Values::of_pool(memory, self.0.len, self.clone())
    }

    /// Takes memory back that came from here.
    fn give_back(&self, memory: Memory) {
        let shelf = &mut *self.shelf();
        if shelf.len() < self.0.most {
            shelf.push(memory);
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Vec<Memory>> {
        // One change is all that happens under this lock.
        let shelf = self.0.shelf.lock();
        shelf.unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers, {} kept at most", self.len, self.most)
    }
}

/// Memory of a file, lent to one user at a time: to map it anew for each would cost more than to fill it.
#[derive(Clone, Debug)]
pub struct Place(Pool);

impl Place {
    /// The first `len` numbers of what is mapped.
    ///
    /// # Panics
    ///
    /// If it does not begin on a 64-byte boundary, as [`Values`] do, or has no room for so many.
    #[must_use]
    pub fn new(mapping: MmapMut, len: usize) -> Self {
        let begin = mapping.as_ptr().addr();
        assert!(begin.is_multiple_of(64), "begins with a cache line");
        assert!(len * size_of::<f32>() <= mapping.len(), "there is room");
        let pool = Pool::new(len, 1);
        pool.give_back(Memory::Pages(mapping));
        Place(pool)
    }

    /// Whether nobody has it.
    pub(crate) fn is_free(&self) -> bool {
        !self.0.shelf().is_empty()
    }

    /// The numbers that are there, whatever they are; `None` if somebody has them.
    #[must_use]
    pub fn lend(&self) -> Option<Values> {
        let memory = self.0.shelf().pop()?;
        Some(Values::of_pool(memory, self.0.0.len, self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use bytes::Bytes;
    use memmap2::MmapOptions;

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

    #[test]
    fn memory_is_used_again_when_it_is_looked_at_no_more() {
        let pool = Pool::new(3, 1);
        let mut first = pool.take();
        first.fill(7.0);
        let place = first.as_ptr();
        let shared = Bytes::from_owner(first);
        let part = shared.slice(4..);
        drop(shared);
        let meanwhile = pool.take();
        assert_ne!(meanwhile.as_ptr(), place);
        assert_eq!(part, [7.0_f32.to_le_bytes(); 2].concat());
        drop(part);
        drop(meanwhile);
        assert_eq!(pool.shelf().len(), 1, "no more than one is kept");
        assert_eq!(pool.clone().take().as_ptr(), place);
    }

    #[test]
    fn a_place_has_one_user_at_a_time_and_what_is_written_is_in_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mut options = MmapOptions::new();
        #[expect(unsafe_code, reason = "a promise about the file")]
        // SAFETY: nobody else knows the file.
        let mapping = unsafe { options.offset(4096).len(4096).map_mut(&file) }.unwrap();
        let place = Place::new(mapping, 2);
        let mut numbers = place.lend().unwrap();
        assert!(!place.is_free() && place.lend().is_none());
        numbers[1] = 7.0;
        let mut found = [0; 8];
        file.read_exact_at(&mut found, 4096).unwrap();
        assert_eq!(found, *numbers.as_bytes());
        drop(numbers);
        assert!(place.is_free());
        assert_eq!(place.lend().unwrap()[..], [0.0, 7.0]);
    }
}
