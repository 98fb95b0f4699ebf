//! The state file: the newest state of a run, whole at every instant whatever happens to the server.
//!
//! ```text
//!   0      header    magic, version, fingerprint and numbers of the layout | pages of a note | sequence number
//!   4096   slot 0    sequence number, step, digest, note, checksum; variables; averages
//!          slot 1    the same; every part begins on a page
//! ```
//!
//! Slot `n % 2` holds the state with sequence number `n`. A commit writes the slot that is not in
//! use ([`StateFile::write`]) and then, as the last thing, the one number in the header that says
//! which is ([`StateFile::flip`]). Whoever is killed before that has changed nothing.
//!
//! Written with plain `write`s at offsets: what the kernel has taken survives the death of the
//! process, and a full disk is an error like any other, where a mapping would end the process with
//! a signal. It need not survive a power cut; the digest in a slot tells, and then there are
//! checkpoints.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cifar_sequence::GlobalStep;
use twox_hash::XxHash3_64;

use crate::layout::Layout;
use crate::state::{StateDigest, TrainingState};
use crate::values::Values;

const MAGIC: [u8; 8] = *b"cifar-ps";
const VERSION: u64 = 2;

/// Every part begins on a page, so that it can be mapped by itself.
const PAGE: usize = 4096;

/// Where the number of pages of a slot's header stands.
const HEADER_PAGES_OFFSET: u64 = 48;

/// Where the sequence number stands: on a cache line of its own.
const SEQUENCE_OFFSET: u64 = 64;

/// Sequence number, step, digest, length of the note, and the checksum after the note.
const SLOT_HEADER_BYTES: usize = 8 + 8 + 16 + 8 + 8;

/// More pages than this before a slot's variables are taken for damage.
const MAX_HEADER_PAGES: u64 = 1 << 20;

/// A state file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no state file of this version and layout.
    #[error("{path} is no state file of this release and model")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Neither slot holds what was written: the machine went down while it was.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The state.
    pub state: TrainingState,
    /// Its digest.
    pub digest: StateDigest,
    /// Whatever was kept with it.
    pub note: Vec<u8>,
}

/// The state file of a run, open for commits.
#[derive(Debug)]
pub struct StateFile {
    file: File,
    path: PathBuf,
    places: Places,
    sequence: u64,
}

/// Where the parts of a slot lie.
#[derive(Clone, Copy, Debug)]
struct Places {
    num_values: usize,
    /// Pages of a slot before its variables: its header and a note.
    header_pages: usize,
}

impl Places {
    /// Bytes of the variables, or the averages, up to the next page.
    fn part_bytes(self) -> usize {
        (self.num_values * size_of::<f32>()).next_multiple_of(PAGE)
    }

    fn slot(self, sequence: u64) -> u64 {
        let slot_bytes = self.header_bytes() + 2 * self.part_bytes();
        (PAGE + (sequence % 2) as usize * slot_bytes) as u64
    }

    fn header_bytes(self) -> usize {
        self.header_pages * PAGE
    }

    fn variables(self, sequence: u64) -> u64 {
        self.slot(sequence) + self.header_bytes() as u64
    }

    fn averages(self, sequence: u64) -> u64 {
        self.variables(sequence) + self.part_bytes() as u64
    }

    fn file_bytes(self) -> u64 {
        self.averages(1) + self.part_bytes() as u64
    }
}

impl StateFile {
    /// Makes a state file that holds `stored`, in the place of whatever `path` named before, with
    /// room for notes of `max_note_bytes`.
    ///
    /// It appears under its name when it is whole.
    ///
    /// # Errors
    ///
    /// [`StateFileError::Write`] if the disk is full or cannot be written.
    ///
    /// # Panics
    ///
    /// As [`write`](Self::write).
    pub fn create(
        path: &Path,
        layout: &Layout,
        max_note_bytes: usize,
        stored: &Stored,
    ) -> Result<Self, StateFileError> {
        let error = |source| StateFileError::Write {
            path: path.to_owned(),
            source,
        };
        let unfinished = path.with_extension("unfinished");
        let write = || {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&unfinished)?;
            let places = Places {
                num_values: layout.num_values(),
                header_pages: (SLOT_HEADER_BYTES + max_note_bytes).div_ceil(PAGE),
            };
            // All its room is taken now, not at some commit in the middle of the night.
            rustix::fs::fallocate(
                &file,
                rustix::fs::FallocateFlags::empty(),
                0,
                places.file_bytes(),
            )?;
            file.write_all_at(&header(layout), 0)?;
            let header_pages = places.header_pages as u64;
            file.write_all_at(&header_pages.to_le_bytes(), HEADER_PAGES_OFFSET)?;
            let mut state_file = StateFile {
                file,
                path: path.to_owned(),
                places,
                sequence: 0,
            };
            state_file.write_slot(&stored.state, stored.digest, &stored.note)?;
            state_file.write_sequence()?;
            fs::rename(&unfinished, path)?;
            Ok(state_file)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&unfinished);
            error(source)
        })
    }

    /// Opens the state file at `path` and reads the newest state that is whole; `None` if there is
    /// no such file.
    ///
    /// # Errors
    ///
    /// [`StateFileError`] if it cannot be read, is another model's, or holds no whole state.
    pub fn open(path: &Path, layout: &Layout) -> Result<Option<(Self, Stored)>, StateFileError> {
        let read_error = |source| StateFileError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(error)),
        };
        let foreign = || StateFileError::Foreign {
            path: path.to_owned(),
        };
        let header_pages = header_pages(&file, layout).ok_or_else(foreign)?;
        let places = Places {
            num_values: layout.num_values(),
            header_pages,
        };
        if file.metadata().map_err(read_error)?.len() != places.file_bytes() {
            return Err(foreign());
        }
        let mut state_file = StateFile {
            file,
            path: path.to_owned(),
            places,
            sequence: 0,
        };
        let newest = read_u64(&state_file.file, SEQUENCE_OFFSET).map_err(read_error)?;
        // After a power cut the slot before may be whole where the newest is not.
        for sequence in [newest, newest.wrapping_sub(1)] {
            if let Some(stored) = state_file.read_slot(sequence).map_err(read_error)? {
                state_file.sequence = sequence;
                return Ok(Some((state_file, stored)));
            }
        }
        Err(StateFileError::Damaged {
            path: path.to_owned(),
        })
    }

    /// Writes `state` beside the one that the file holds, which stays as it is.
    ///
    /// # Errors
    ///
    /// [`StateFileError::Write`]; what the file holds is what it held before.
    ///
    /// # Panics
    ///
    /// If `state` is of another layout, or `note` longer than what the file was made for.
    pub fn write(
        &mut self,
        state: &TrainingState,
        digest: StateDigest,
        note: &[u8],
    ) -> Result<(), StateFileError> {
        self.write_slot(state, digest, note)
            .map_err(|source| self.write_error(source))
    }

    /// Makes the state that was written last the one that the file holds.
    ///
    /// # Errors
    ///
    /// [`StateFileError::Write`]; the file then holds the state before.
    pub fn flip(&mut self) -> Result<(), StateFileError> {
        self.write_sequence()
            .map_err(|source| self.write_error(source))
    }

    fn write_error(&self, source: io::Error) -> StateFileError {
        StateFileError::Write {
            path: self.path.clone(),
            source,
        }
    }

    fn write_slot(
        &mut self,
        state: &TrainingState,
        digest: StateDigest,
        note: &[u8],
    ) -> io::Result<()> {
        assert_eq!(
            state.variables.len(),
            self.places.num_values,
            "the state is of this layout"
        );
        let next = self.sequence + 1;
        let header = slot_header(next, state, digest, note);
        assert!(
            header.len() <= self.places.header_bytes(),
            "a note of {} bytes is too long",
            note.len()
        );
        self.file
            .write_all_at(state.variables.as_bytes(), self.places.variables(next))?;
        self.file
            .write_all_at(state.averages.as_bytes(), self.places.averages(next))?;
        self.file.write_all_at(&header, self.places.slot(next))
    }

    fn write_sequence(&mut self) -> io::Result<()> {
        let next = self.sequence + 1;
        self.file
            .write_all_at(&next.to_le_bytes(), SEQUENCE_OFFSET)?;
        self.sequence = next;
        Ok(())
    }

    /// What slot `sequence` holds, if that is what was written to it.
    fn read_slot(&self, sequence: u64) -> io::Result<Option<Stored>> {
        let mut header = vec![0; self.places.header_bytes()];
        self.file
            .read_exact_at(&mut header, self.places.slot(sequence))?;
        let Some((global_step, digest, note)) = parse_slot_header(&header, sequence) else {
            return Ok(None);
        };
        let mut variables = Values::zeros(self.places.num_values);
        let mut averages = Values::zeros(self.places.num_values);
        self.file
            .read_exact_at(variables.as_bytes_mut(), self.places.variables(sequence))?;
        self.file
            .read_exact_at(averages.as_bytes_mut(), self.places.averages(sequence))?;
        let state = TrainingState {
            global_step,
            variables,
            averages,
        };
        let whole = state.digest() == digest;
        Ok(whole.then(|| Stored {
            state,
            digest,
            note: note.to_vec(),
        }))
    }
}

/// Pages of a slot's header in a file that begins as one of this release and `layout` does.
fn header_pages(file: &File, layout: &Layout) -> Option<usize> {
    let mut found = vec![0; header(layout).len()];
    file.read_exact_at(&mut found, 0).ok()?;
    let pages = read_u64(file, HEADER_PAGES_OFFSET).ok()?;
    let is_ours = found == header(layout) && (1..=MAX_HEADER_PAGES).contains(&pages);
    is_ours.then_some(pages as usize)
}

fn read_u64(file: &File, offset: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The header's part that is the same for every file of this release and layout.
fn header(layout: &Layout) -> Vec<u8> {
    let numbers = [VERSION, layout.fingerprint(), layout.num_values() as u64];
    MAGIC
        .into_iter()
        .chain(numbers.into_iter().flat_map(u64::to_le_bytes))
        .collect()
}

fn slot_header(sequence: u64, state: &TrainingState, digest: StateDigest, note: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(SLOT_HEADER_BYTES + note.len());
    header.extend(sequence.to_le_bytes());
    header.extend(state.global_step.0.to_le_bytes());
    header.extend(digest.0.to_le_bytes());
    header.extend((note.len() as u64).to_le_bytes());
    header.extend(note);
    header.extend(XxHash3_64::oneshot(&header).to_le_bytes());
    header
}

fn parse_slot_header(
    header: &[u8],
    expected_sequence: u64,
) -> Option<(GlobalStep, StateDigest, &[u8])> {
    let (sequence, rest) = header.split_first_chunk()?;
    let (global_step, rest) = rest.split_first_chunk()?;
    let (digest, rest) = rest.split_first_chunk()?;
    let (note_bytes, rest) = rest.split_first_chunk()?;
    let note_bytes = usize::try_from(u64::from_le_bytes(*note_bytes)).ok()?;
    let (note, rest) = rest.split_at_checked(note_bytes)?;
    let (checksum, _) = rest.split_first_chunk()?;
    let summed = &header[..SLOT_HEADER_BYTES - size_of::<u64>() + note_bytes];
    let is_whole = u64::from_le_bytes(*sequence) == expected_sequence
        && u64::from_le_bytes(*checksum) == XxHash3_64::oneshot(summed);
    let global_step = GlobalStep(u64::from_le_bytes(*global_step));
    is_whole.then(|| (global_step, StateDigest(u128::from_le_bytes(*digest)), note))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{Initializer, VariableSpec};

    fn layout() -> Layout {
        Layout::new(vec![VariableSpec {
            name: "a".to_owned(),
            shape: vec![1500],
            initializer: Initializer::Constant(0.0),
            weight_decay: None,
        }])
    }

    fn stored(step: u64) -> Stored {
        let mut state = TrainingState::initial(Values::from(vec![step as f32; 1500].as_slice()));
        state.global_step = GlobalStep(step);
        let digest = state.digest();
        Stored {
            state,
            digest,
            note: format!("note of step {step}").into_bytes(),
        }
    }

    fn commit(file: &mut StateFile, step: u64) {
        let Stored {
            state,
            digest,
            note,
        } = stored(step);
        file.write(&state, digest, &note).unwrap();
        file.flip().unwrap();
    }

    fn open(path: &Path) -> Result<Stored, StateFileError> {
        StateFile::open(path, &layout()).map(|opened| opened.unwrap().1)
    }

    #[test]
    fn the_last_commit_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(StateFile::open(&path, &layout()).unwrap().is_none());
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        for step in 1..5 {
            commit(&mut file, step);
            assert_eq!(open(&path).unwrap(), stored(step));
        }
        drop(file);
        let (mut file, _) = StateFile::open(&path, &layout()).unwrap().unwrap();
        commit(&mut file, 5);
        assert_eq!(open(&path).unwrap(), stored(5));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_another_model_or_none_at_all_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let other = StateFile::open(&path, &Layout::cifar10()).unwrap_err();
        assert!(matches!(other, StateFileError::Foreign { .. }));
        fs::write(&path, "no state").unwrap();
        assert!(matches!(
            open(&path).unwrap_err(),
            StateFileError::Foreign { .. }
        ));
    }

    proptest! {
        /// Any prefix of the writes of a commit, in their order, leaves the state before or, with
        /// all of them, the new one.
        #[test]
        fn a_commit_cut_short_leaves_the_state_before(written in 0_usize..30_000) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state");
            let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
            commit(&mut file, 1);
            let before = fs::read(&path).unwrap();
            commit(&mut file, 2);
            let after = fs::read(&path).unwrap();

            let places = file.places;
            let (sequence, part) = (file.sequence, layout().size_bytes() as u64);
            let header = slot_header(sequence, &stored(2).state, stored(2).digest, &stored(2).note).len() as u64;
            let writes = [
                (places.variables(sequence), part),
                (places.averages(sequence), part),
                (places.slot(sequence), header),
            ];
            let in_order = writes.into_iter().flat_map(|(start, len)| start..start + len);
            let mut cut = before;
            for offset in in_order.take(written) {
                cut[offset as usize] = after[offset as usize];
            }
            fs::write(&path, &cut).unwrap();
            prop_assert_eq!(open(&path).unwrap(), stored(1));
            cut[SEQUENCE_OFFSET as usize..][..8].copy_from_slice(&after[SEQUENCE_OFFSET as usize..][..8]);
            fs::write(&path, &cut).unwrap();
            let all: u64 = writes.iter().map(|(_, len)| len).sum();
            let expected = if written as u64 >= all { stored(2) } else { stored(1) };
            prop_assert_eq!(open(&path).unwrap(), expected, "a flip that overtook its slot, as after a power cut");
        }

        #[test]
        fn a_damaged_file_is_an_error_or_an_earlier_state_and_never_a_panic(
            at: prop::sample::Index, with in 1_u8..,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state");
            let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
            commit(&mut file, 1);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            fs::write(&path, bytes).unwrap();
            if let Ok(found) = open(&path) {
                prop_assert!(found == stored(1) || found == stored(0));
            }
        }
    }
}
