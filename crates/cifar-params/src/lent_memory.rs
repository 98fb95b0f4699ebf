//! Memory of a file, lent to one user at a time.
//!
//! A place keeps its mapping for as long as the file is open: to map it anew for every state would cost
//! more than to fill it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapOptions};

/// A place in a file.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Empty while it is lent.
    home: Arc<Mutex<Option<MmapMut>>>,
}

impl Place {
    /// Maps `len` bytes of `file` from `offset` on, which is that of a page.
    ///
    /// # Safety
    ///
    /// As long as the place or its memory is there, nobody else may write to those bytes, map them a second
    /// time in this process, or cut the file before their end. Other processes may read them.
    #[expect(unsafe_code, reason = "memory of a file is a slice only by a promise")]
    pub(crate) unsafe fn map(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len).populate();
        // SAFETY: the caller's promise is what makes a mapping memory like any other.
        let mapping = unsafe { options.map_mut(file) }?;
        Ok(Place {
            home: Arc::new(Mutex::new(Some(mapping))),
        })
    }

    /// Whether nobody has it.
    pub(crate) fn is_free(&self) -> bool {
        self.mapping().is_some()
    }

    /// The memory, with anything in it; `None` if somebody has it.
    pub(crate) fn lend(&self) -> Option<LentMemory> {
        let mapping = self.mapping().take();
        mapping.map(|mapping| LentMemory {
            mapping: Some(mapping),
            place: self.clone(),
        })
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

    use super::*;

    #[test]
    fn a_place_has_one_user_at_a_time_and_what_is_written_is_in_the_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        #[expect(unsafe_code, reason = "a promise about the file")]
        // SAFETY: nobody else knows the file.
        let place = unsafe { Place::map(&file, 4096, 4096) }.unwrap();
        let mut memory = place.lend().unwrap();
        assert!(!place.is_free() && place.lend().is_none());
        memory[1] = 7;
        let mut found = [0; 2];
        file.read_exact_at(&mut found, 4096).unwrap();
        assert_eq!(found, [0, 7]);
        drop(memory);
        assert!(place.is_free());
        assert_eq!(place.lend().unwrap()[..2], [0, 7]);
    }
}
