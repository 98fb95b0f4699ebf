//! Memory of a file, lent to one user at a time.
//!
//! A place keeps its mapping: to map it anew for every user would cost more than to fill it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

use crate::values::Values;

/// A place in a file.
#[derive(Clone, Debug)]
pub struct Place {
    /// Empty while it is lent.
    home: Arc<Mutex<Option<MmapMut>>>,
}

impl Place {
    /// The place that is mapped.
    ///
    /// # Panics
    ///
    /// If it does not begin on a 64-byte boundary, as [`Values`] do.
    #[must_use]
    pub fn new(mapping: MmapMut) -> Self {
        let begin = mapping.as_ptr().addr();
        assert!(begin.is_multiple_of(64), "begins with a cache line");
        Place {
            home: Arc::new(Mutex::new(Some(mapping))),
        }
    }

    /// Whether nobody has it.
    pub(crate) fn is_free(&self) -> bool {
        self.mapping().is_some()
    }

    /// The `len` numbers at its beginning, whatever they are; `None` if somebody has them. They go back when
    /// they are dropped.
    ///
    /// # Panics
    ///
    /// If the place has no room for so many.
    #[must_use]
    pub fn lend(&self, len: usize) -> Option<Values> {
        let mapping = self.mapping().take()?;
        assert!(len * size_of::<f32>() <= mapping.len(), "there is room");
        let memory = LentMemory {
            mapping: Some(mapping),
            place: self.clone(),
        };
        Some(Values::lent(memory, len))
    }

    fn mapping(&self) -> MutexGuard<'_, Option<MmapMut>> {
        // One assignment is all that happens under this lock.
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of a place; it goes back there when it is dropped.
pub(crate) struct LentMemory {
    /// There until it is dropped.
    mapping: Option<MmapMut>,
    place: Place,
}

impl Deref for LentMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.as_deref().unwrap_or_default()
    }
}

impl DerefMut for LentMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for LentMemory {
    fn drop(&mut self) {
        *self.place.mapping() = self.mapping.take();
    }
}

impl fmt::Debug for LentMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LentMemory({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use memmap2::MmapOptions;

    use super::*;

    #[test]
    fn a_place_has_one_user_at_a_time_and_what_is_written_is_in_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mut options = MmapOptions::new();
        #[expect(unsafe_code, reason = "a promise about the file")]
        // SAFETY: nobody else knows the file.
        let mapping = unsafe { options.offset(4096).len(4096).map_mut(&file) }.unwrap();
        let place = Place::new(mapping);
        let mut numbers = place.lend(2).unwrap();
        assert!(!place.is_free() && place.lend(2).is_none());
        numbers[1] = 7.0;
        let mut found = [0; 8];
        file.read_exact_at(&mut found, 4096).unwrap();
        assert_eq!(found, *numbers.as_bytes());
        drop(numbers);
        assert!(place.is_free());
        assert_eq!(place.lend(2).unwrap()[..], [0.0, 7.0]);
    }
}
