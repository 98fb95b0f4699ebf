//! The state file: where the states of a run live, the newest whole at every instant whatever happens to
//! the server.
//!
//! ```text
//!   0      header    magic, version, fingerprint and numbers of the layout | pages of a note | sequence number
//!   4096   slot 0    sequence number, step, digest, note, checksum; variables; averages
//!          slot 1    the same; every part begins on a page
//!          ...
//! ```
//!
//! The memory of a state is a slot, mapped. A commit computes the next state in a slot that nobody uses
//! ([`StateFile::begin`]), says in the slot's header what it is ([`StateFile::write`]) and then, as the
//! last thing, writes the one number in the file's header that tells which slot is the newest
//! ([`StateFile::flip`]). A server that is killed before that has changed nothing. Two slots take turns; there
//! are more where somebody still reads an old state, such as a checkpoint that is being written. Once that is
//! over, those that were not needed for a while are cut off at the end of the file.
//!
//! Other processes may read along ([`StateReader`]). A slot carries its sequence number only while
//! its data are whole: the number is taken away before the data are overwritten and
//! comes back after them. A reader that finds the number before and after its copy has copied one
//! state; one that was overtaken does not find it again.
//!
//! What is written to a mapping is the kernel's and survives the death of the process. The room is taken
//! on the disk beforehand, because a disk that is full when a mapping is written ends the process with a
//! signal. It need not survive a power cut; the digest in a slot tells, and then there are
//! checkpoints.
//!
//! A state is one of two buffers, written in turn: a commit reads one and writes the other; a pull shares the readable
//! one without a copy. Who reads for long, such as a checkpoint that is being written, costs a third buffer.
//!
//! This file is where states live: a commit computes the next one in a mapped slot that nobody reads, and flips one
//! number. What is stored to a mapping is the kernel's when the process dies, as with a `write`, and a fifth of the
//! server's time, the copy into the file, is gone. The room is taken on the disk when a slot is made, because a full
//! disk would end the process with a signal; so would somebody who cuts the file. It is not synced at each step; after
//! a power cut the digest of a slot tells whether it is whole, and otherwise the newest checkpoint, which is synced, is
//! taken. Workers read variables with `read`s at offsets, not through a mapping: 0.2 to 0.4 ms, no unsafe code, and a
//! file that somebody cuts is an error instead of a signal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{Ordering, fence};

use memmap2::MmapOptions;
use pserver_run::GlobalStep;
use pserver_run::{StateDigest, layout::Layout};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use twox_hash::XxHash3_64;

use crate::folder::AboutPath;
use crate::shared_path::{Access, open_shared, shared_path};
use crate::state::TrainingState;
use crate::values::Place;
use crate::values::Values;

const MAGIC: [u8; 8] = *b"cifar-ps";
const VERSION: u64 = 3;

/// One is written while the other is read.
const MIN_SLOTS: usize = 2;

/// Slots that were not needed by any of so many commits are given back. To take one again costs milliseconds.
const COMMITS_OBSERVED: u32 = 128;

/// Every part begins on a page, so that it can be mapped by itself.
const PAGE: usize = 4096;

/// Where the number of pages of a slot's header stands.
const HEADER_PAGES_OFFSET: u64 = 48;

/// Where the sequence number stands: on a cache line of its own.
const SEQUENCE_OFFSET: u64 = 64;

/// Stands in place of its sequence number while a slot is written. Real ones begin at 1.
const NO_SEQUENCE: u64 = 0;

/// Sequence number, step, digest, length of the note, and the checksum after the note.
const SLOT_HEADER_BYTES: usize = 8 + 8 + 16 + 8 + 8;

/// More pages than this before a slot's variables are taken for damage: 16 MiB, where the note of the most towers
/// that there can be takes two.
const MAX_HEADER_PAGES: u64 = 1 << 12;

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
    /// It is a state file of another version or layout.
    #[error("{path} is a state file of another release or model")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is no whole state file, or no slot holds what was written: the machine went down while it was.
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
    slots: Vec<Slot>,
    demand: Demand,
    sequence: u64,
}

/// How many slots commits can do without.
#[derive(Debug, Default)]
struct Demand {
    /// Free slots beyond the one that is needed, as each of the last commits began: the fewest.
    least_excess: Option<usize>,
    observed: u32,
    /// Of so many slots it is known that they were not needed.
    excess: usize,
}

impl Demand {
    /// A state is begun, and `free` slots could hold it.
    fn observe(&mut self, free: usize) {
        let excess = free.saturating_sub(1);
        let least = self.least_excess.map_or(excess, |least| least.min(excess));
        self.least_excess = Some(least);
        self.observed += 1;
        if self.observed == COMMITS_OBSERVED {
            *self = Demand {
                excess: least,
                ..Demand::default()
            };
        }
    }
}

/// A slot of the file, as memory of this process.
#[derive(Debug)]
struct Slot {
    variables: Place,
    averages: Place,
    /// Of the state that it holds whole.
    sequence: u64,
}

impl Slot {
    /// Whether nobody reads it, and it is not the state to go on from.
    fn may_be_overwritten(&self, newest: u64) -> bool {
        let is_old = self.sequence == NO_SEQUENCE || self.sequence < newest;
        is_old && self.variables.is_free() && self.averages.is_free()
    }
}

/// A state that is being made, in a slot of the file.
#[derive(Debug)]
pub struct NextState {
    /// It begins with whatever the slot held.
    pub state: TrainingState,
    slot: usize,
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

    fn header_bytes(self) -> usize {
        self.header_pages * PAGE
    }

    fn slot_bytes(self) -> usize {
        self.header_bytes() + 2 * self.part_bytes()
    }

    fn slot(self, slot: usize) -> u64 {
        (PAGE + slot * self.slot_bytes()) as u64
    }

    fn variables(self, slot: usize) -> u64 {
        self.slot(slot) + self.header_bytes() as u64
    }

    fn averages(self, slot: usize) -> u64 {
        self.variables(slot) + self.part_bytes() as u64
    }

    /// Slots in a file of so many bytes.
    fn num_slots(self, file_bytes: u64) -> usize {
        (file_bytes as usize).saturating_sub(PAGE) / self.slot_bytes()
    }
}

impl AboutPath for StateFileError {
    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            StateFileError::Read { path, .. }
            | StateFileError::Write { path, .. }
            | StateFileError::Foreign { path }
            | StateFileError::Damaged { path } => path,
        }
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
    /// If `stored` is of another layout, or its note too long.
    pub fn create(
        path: &Path,
        layout: &Layout,
        max_note_bytes: usize,
        stored: &Stored,
    ) -> Result<Self, StateFileError> {
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
            file.write_all_at(&header(layout), 0)?;
            let header_pages = places.header_pages as u64;
            file.write_all_at(&header_pages.to_le_bytes(), HEADER_PAGES_OFFSET)?;
            let mut state_file = StateFile {
                file,
                path: path.to_owned(),
                places,
                slots: Vec::new(),
                demand: Demand::default(),
                sequence: 0,
            };
            for _ in 0..MIN_SLOTS {
                state_file.add_slot()?;
            }
            let mut first = state_file.begin_slot()?;
            first.state.global_step = stored.state.global_step;
            let (variables, averages) = (&stored.state.variables, &stored.state.averages);
            first.state.variables.copy_from_slice(variables);
            first.state.averages.copy_from_slice(averages);
            state_file.write_header(&first, stored.digest, &stored.note)?;
            state_file.write_sequence()?;
            fs::rename(&unfinished, path)?;
            Ok(state_file)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&unfinished);
            StateFileError::Write {
                path: path.to_owned(),
                source,
            }
        })
    }

    /// The same file, called `path` in errors.
    #[must_use]
    pub fn called(self, path: PathBuf) -> Self {
        StateFile { path, ..self }
    }

    /// The newest state that is whole in the state file at `path`; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// [`StateFileError`] if it cannot be read, is another model's, or holds no whole state.
    pub fn read(path: &Path, layout: &Layout) -> Result<Option<Stored>, StateFileError> {
        let (file, places) = match check(File::open(path), path, layout) {
            Ok(opened) => opened,
            Err(StateFileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let newest = newest_whole(&file, places).map_err(|source| StateFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let damaged = || StateFileError::Damaged {
            path: path.to_owned(),
        };
        newest.ok_or_else(damaged).map(Some)
    }

    /// A slot for the state that comes next. What the file holds stays as it is; a state that is begun
    /// and dropped leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`StateFileError::Write`] if others read all slots and there is no room for one more.
    pub fn begin(&mut self) -> Result<NextState, StateFileError> {
        self.begin_slot().map_err(|source| self.write_error(source))
    }

    /// Says what the state is that was made in a slot. What the file holds is still the one before.
    ///
    /// # Errors
    ///
    /// [`StateFileError::Write`].
    ///
    /// # Panics
    ///
    /// If `note` is longer than what the file was made for.
    pub fn write(
        &mut self,
        next: &NextState,
        digest: StateDigest,
        note: &[u8],
    ) -> Result<(), StateFileError> {
        self.write_header(next, digest, note)
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

    /// Sequence number of the state that the file holds.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where a [`StateReader`] of this machine and user can open the file while this one is open,
    /// whatever becomes of its name.
    #[must_use]
    pub fn shared_path(&self) -> PathBuf {
        shared_path(&self.file)
    }

    fn write_error(&self, source: io::Error) -> StateFileError {
        StateFileError::Write {
            path: self.path.clone(),
            source,
        }
    }

    fn begin_slot(&mut self) -> io::Result<NextState> {
        let newest = self.sequence;
        self.give_back();
        let is_free = |slot: &&Slot| slot.may_be_overwritten(newest);
        self.demand
            .observe(self.slots.iter().filter(is_free).count());
        let slots = self.slots.iter().enumerate();
        // The oldest, so that readers have the longest time for the others.
        let oldest = slots
            .filter(|(_, slot)| slot.may_be_overwritten(newest))
            .min_by_key(|(_, slot)| slot.sequence)
            .map(|(index, _)| index);
        let index = match oldest {
            Some(index) => index,
            None => self.add_slot()?,
        };
        let slot = &mut self.slots[index];
        slot.sequence = NO_SEQUENCE;
        // Nobody is to believe what is written over its data.
        self.file
            .write_all_at(&NO_SEQUENCE.to_le_bytes(), self.places.slot(index))?;
        fence(Ordering::Release);
        let lend = |place: &Place| place.lend().expect("it is free, and nobody else lends it");
        Ok(NextState {
            state: TrainingState {
                global_step: GlobalStep(0),
                variables: lend(&slot.variables),
                averages: lend(&slot.averages),
            },
            slot: index,
        })
    }

    /// Cuts slots that are not needed off at the end of the file, as far as nobody reads them. A reader of
    /// another process finds the end of the file there, and reads anew.
    fn give_back(&mut self) {
        let num_slots = self.slots.len();
        while self.demand.excess > 0
            && self.slots.len() > MIN_SLOTS
            && let Some(_cut) = self
                .slots
                .pop_if(|slot| slot.may_be_overwritten(self.sequence))
        {
            self.demand.excess -= 1;
        }
        if self.slots.len() < num_slots {
            // Nothing of this process is mapped there any more. Where the file cannot be cut, the room is
            // used again when it is needed.
            let _ = self.file.set_len(self.places.slot(self.slots.len()));
        }
    }

    /// Takes the room of a slot, all of it: not at some commit in the middle of the night.
    fn add_slot(&mut self) -> io::Result<usize> {
        let index = self.slots.len();
        let room = self.places.slot(index)..self.places.slot(index + 1);
        take_room(&self.file, room, |file, begin, bytes| {
            rustix::fs::fallocate(file, FallocateFlags::empty(), begin, bytes)
        })?;
        let map = |offset| {
            let mut options = MmapOptions::new();
            options.offset(offset).len(self.places.part_bytes());
            #[expect(unsafe_code, reason = "a promise about the file")]
            // SAFETY: parts of slots do not overlap, and this one's room was just taken. The file is the
            // run's own: its server, which alone may write to it, holds a lock on its folder, puts another
            // file in its place instead of changing it, and cuts off only what it has no mapping of.
            let mapping = unsafe { options.populate().map_mut(&self.file) }?;
            io::Result::Ok(Place::new(mapping, self.places.num_values))
        };
        self.slots.push(Slot {
            variables: map(self.places.variables(index))?,
            averages: map(self.places.averages(index))?,
            sequence: NO_SEQUENCE,
        });
        Ok(index)
    }

    fn write_header(
        &mut self,
        next: &NextState,
        digest: StateDigest,
        note: &[u8],
    ) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let header = slot_header(sequence, next.state.global_step, digest, note);
        assert!(
            header.len() <= self.places.header_bytes(),
            "a note of {} bytes is too long",
            note.len()
        );
        // Who sees the number sees the data that were written before it.
        fence(Ordering::Release);
        self.file
            .write_all_at(&header, self.places.slot(next.slot))?;
        self.slots[next.slot].sequence = sequence;
        Ok(())
    }

    fn write_sequence(&mut self) -> io::Result<()> {
        let next = self.sequence + 1;
        self.file
            .write_all_at(&next.to_le_bytes(), SEQUENCE_OFFSET)?;
        self.sequence = next;
        Ok(())
    }
}

/// Takes room of the disk for a part of a file: with one call, `allocate`, where the file system has it.
///
/// ext3, NFS before 4.2, 9p and many file systems in user space do not. There zeros are written, which
/// takes the room just as well.
fn take_room(
    file: &File,
    room: Range<u64>,
    allocate: impl FnOnce(&File, u64, u64) -> Result<(), Errno>,
) -> io::Result<()> {
    match allocate(file, room.start, room.end - room.start) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(file, room),
        Err(error) => Err(error.into()),
    }
}

fn write_zeros(file: &File, room: Range<u64>) -> io::Result<()> {
    let piece = vec![0; 1 << 16];
    let mut begin = room.start;
    while begin < room.end {
        let bytes = piece.len().min((room.end - begin) as usize);
        file.write_all_at(&piece[..bytes], begin)?;
        begin += bytes as u64;
    }
    Ok(())
}

/// The newest state that is whole. After a power cut the one before may be where the newest is not.
fn newest_whole(file: &File, places: Places) -> io::Result<Option<Stored>> {
    let newest = read_u64(file, SEQUENCE_OFFSET)?;
    let mut slots = Vec::new();
    for slot in 0..places.num_slots(file.metadata()?.len()) {
        let sequence = read_u64(file, places.slot(slot))?;
        if sequence != NO_SEQUENCE && sequence <= newest {
            slots.push((sequence, slot));
        }
    }
    slots.sort_unstable_by(|a, b| b.cmp(a));
    for (_, slot) in slots {
        if let Some(stored) = read_slot(file, places, slot)? {
            return Ok(Some(stored));
        }
    }
    Ok(None)
}

/// What a slot holds, if that is what was written to it.
fn read_slot(file: &File, places: Places, slot: usize) -> io::Result<Option<Stored>> {
    let mut header = vec![0; places.header_bytes()];
    file.read_exact_at(&mut header, places.slot(slot))?;
    let Some((global_step, digest, note)) = parse_slot_header(&header) else {
        return Ok(None);
    };
    let mut variables = Values::zeros(places.num_values);
    let mut averages = Values::zeros(places.num_values);
    file.read_exact_at(variables.as_bytes_mut(), places.variables(slot))?;
    file.read_exact_at(averages.as_bytes_mut(), places.averages(slot))?;
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

/// Reads variables out of the state file of another process while that one writes.
#[derive(Debug)]
pub struct StateReader {
    file: File,
    path: PathBuf,
    places: Places,
}

/// What became of reading variables that another process may overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Copied {
    /// They are the variables of the state that was asked for.
    Whole,
    /// That state is not in the file any more; what was copied means nothing.
    Overtaken,
}

impl StateReader {
    /// Opens the state file that a server offers at its [`shared_path`](StateFile::shared_path).
    ///
    /// # Errors
    ///
    /// [`StateFileError`] if it is no such path, or the file cannot be read or is another model's.
    pub fn open(path: &Path, layout: &Layout) -> Result<Self, StateFileError> {
        let (file, places) = check(open_shared(path, Access::Read), path, layout)?;
        Ok(StateReader {
            file,
            path: path.to_owned(),
            places,
        })
    }

    /// Copies the variables of the state with this sequence number and digest.
    ///
    /// # Errors
    ///
    /// [`StateFileError::Read`] if the file cannot be read.
    ///
    /// # Panics
    ///
    /// If `variables` is not of the layout that the reader was opened with.
    pub fn read_variables(
        &self,
        sequence: u64,
        digest: StateDigest,
        variables: &mut Values,
    ) -> Result<Copied, StateFileError> {
        self.copy_variables(sequence, digest, variables, || {})
            .map_err(|source| StateFileError::Read {
                path: self.path.clone(),
                source,
            })
    }

    /// `between` is called with half of the variables copied.
    ///
    /// The sequence number, read last, tells about all that was read before it: the writer took it away
    /// before it wrote over the data, and both keep that order.
    fn copy_variables(
        &self,
        sequence: u64,
        digest: StateDigest,
        variables: &mut Values,
        between: impl FnOnce(),
    ) -> io::Result<Copied> {
        assert_eq!(variables.len(), self.places.num_values, "of this layout");
        match self.copy_from_slot(sequence, digest, variables, between) {
            // The slot was cut off meanwhile.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Copied::Overtaken),
            result => result,
        }
    }

    fn copy_from_slot(
        &self,
        sequence: u64,
        digest: StateDigest,
        variables: &mut Values,
        between: impl FnOnce(),
    ) -> io::Result<Copied> {
        let Some(slot) = self.slot_of(sequence, digest)? else {
            return Ok(Copied::Overtaken);
        };
        fence(Ordering::Acquire);
        let bytes = variables.as_bytes_mut();
        let (first, second) = bytes.split_at_mut(bytes.len() / 2);
        let offset = self.places.variables(slot);
        self.file.read_exact_at(first, offset)?;
        between();
        self.file
            .read_exact_at(second, offset + first.len() as u64)?;
        fence(Ordering::Acquire);
        Ok(if self.holds(slot, sequence, digest)? {
            Copied::Whole
        } else {
            Copied::Overtaken
        })
    }

    fn slot_of(&self, sequence: u64, digest: StateDigest) -> io::Result<Option<usize>> {
        for slot in 0..self.places.num_slots(self.file.metadata()?.len()) {
            if self.holds(slot, sequence, digest)? {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    fn holds(&self, slot: usize, sequence: u64, digest: StateDigest) -> io::Result<bool> {
        let mut header = [0; SLOT_HEADER_BYTES];
        self.file
            .read_exact_at(&mut header, self.places.slot(slot))?;
        let found = parse_slot_numbers(&header).map(|(numbers, _)| numbers);
        Ok(found.is_some_and(|found| found.sequence == sequence && found.digest == digest))
    }
}

/// A file that was opened at `path`, if it is one of this release and `layout`, and where its parts lie.
fn check(
    file: io::Result<File>,
    path: &Path,
    layout: &Layout,
) -> Result<(File, Places), StateFileError> {
    let read_error = |source| StateFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = file.map_err(read_error)?;
    let places = match places_in(&file, layout).map_err(read_error)? {
        Ok(places) => places,
        Err(Unfit::Foreign) => {
            return Err(StateFileError::Foreign {
                path: path.to_owned(),
            });
        }
        Err(Unfit::Damaged) => {
            return Err(StateFileError::Damaged {
                path: path.to_owned(),
            });
        }
    };
    Ok((file, places))
}

/// Why no state of this release and layout is looked for in a file.
enum Unfit {
    /// It begins as a state file does, and is of another release or layout.
    Foreign,
    /// It does not begin as a state file does, or is too short for one.
    Damaged,
}

/// Where the parts lie in a file of this release and `layout`.
fn places_in(file: &File, layout: &Layout) -> io::Result<Result<Places, Unfit>> {
    let expected = header(layout);
    let mut found = vec![0; expected.len()];
    if let Err(error) = file.read_exact_at(&mut found, 0) {
        return match error.kind() {
            ErrorKind::UnexpectedEof => Ok(Err(Unfit::Damaged)),
            _ => Err(error),
        };
    }
    if !found.starts_with(&MAGIC) {
        return Ok(Err(Unfit::Damaged));
    }
    if found != expected {
        return Ok(Err(Unfit::Foreign));
    }
    let bytes = file.metadata()?.len();
    if bytes < PAGE as u64 {
        return Ok(Err(Unfit::Damaged));
    }
    let header_pages = read_u64(file, HEADER_PAGES_OFFSET)?;
    if !(1..=MAX_HEADER_PAGES).contains(&header_pages) {
        return Ok(Err(Unfit::Damaged));
    }
    let places = Places {
        num_values: layout.num_values(),
        header_pages: header_pages as usize,
    };
    let has_slots = places.num_slots(bytes) >= MIN_SLOTS;
    Ok(has_slots.then_some(places).ok_or(Unfit::Damaged))
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

fn slot_header(
    sequence: u64,
    global_step: GlobalStep,
    digest: StateDigest,
    note: &[u8],
) -> Vec<u8> {
    let mut header = Vec::with_capacity(SLOT_HEADER_BYTES + note.len());
    header.extend(sequence.to_le_bytes());
    header.extend(global_step.0.to_le_bytes());
    header.extend(digest.0.to_le_bytes());
    header.extend((note.len() as u64).to_le_bytes());
    header.extend(note);
    header.extend(XxHash3_64::oneshot(&header).to_le_bytes());
    header
}

/// The numbers that a slot begins with.
struct SlotNumbers {
    sequence: u64,
    global_step: GlobalStep,
    digest: StateDigest,
    note_bytes: u64,
}

/// The numbers, and what follows them.
fn parse_slot_numbers(header: &[u8]) -> Option<(SlotNumbers, &[u8])> {
    let (sequence, rest) = header.split_first_chunk()?;
    let (global_step, rest) = rest.split_first_chunk()?;
    let (digest, rest) = rest.split_first_chunk()?;
    let (note_bytes, rest) = rest.split_first_chunk()?;
    let numbers = SlotNumbers {
        sequence: u64::from_le_bytes(*sequence),
        global_step: GlobalStep(u64::from_le_bytes(*global_step)),
        digest: StateDigest(u128::from_le_bytes(*digest)),
        note_bytes: u64::from_le_bytes(*note_bytes),
    };
    Some((numbers, rest))
}

fn parse_slot_header(header: &[u8]) -> Option<(GlobalStep, StateDigest, &[u8])> {
    let (numbers, rest) = parse_slot_numbers(header)?;
    let note_bytes = usize::try_from(numbers.note_bytes).ok()?;
    let (note, rest) = rest.split_at_checked(note_bytes)?;
    let (checksum, _) = rest.split_first_chunk()?;
    let summed = &header[..SLOT_HEADER_BYTES - size_of::<u64>() + note_bytes];
    let is_whole = u64::from_le_bytes(*checksum) == XxHash3_64::oneshot(summed);
    is_whole.then_some((numbers.global_step, numbers.digest, note))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;
    use pserver_run::layout::{Initializer, VariableSpec};

    fn layout() -> Layout {
        Layout::new(vec![VariableSpec {
            name: "a".to_owned(),
            shape: vec![1500],
            initializer: Initializer::Constant(0.0),
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

    /// The state after `step` commits, as it stands in the slot.
    fn begin(file: &mut StateFile, step: u64) -> NextState {
        let mut next = file.begin().unwrap();
        let state = stored(step).state;
        next.state.global_step = state.global_step;
        next.state.variables.copy_from_slice(&state.variables);
        next.state.averages.copy_from_slice(&state.averages);
        next
    }

    fn commit(file: &mut StateFile, step: u64) -> TrainingState {
        let next = begin(file, step);
        let Stored { digest, note, .. } = stored(step);
        file.write(&next, digest, &note).unwrap();
        file.flip().unwrap();
        next.state
    }

    fn open(path: &Path) -> Result<Stored, StateFileError> {
        StateFile::read(path, &layout()).map(Option::unwrap)
    }

    #[test]
    fn the_last_commit_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(StateFile::read(&path, &layout()).unwrap().is_none());
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        for step in 1..5 {
            commit(&mut file, step);
            assert_eq!(open(&path).unwrap(), stored(step));
        }
        assert_eq!(file.slots.len(), MIN_SLOTS);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_state_that_somebody_reads_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let kept = [1, 2, 3].map(|step| commit(&mut file, step));
        for (state, step) in kept.iter().zip(1..) {
            assert_eq!(*state, stored(step).state);
        }
        // One of the three did not fit.
        assert_eq!(file.slots.len(), 3);
        drop(kept);
        let reader = StateReader::open(&file.shared_path(), &layout()).unwrap();
        for step in 4..10 {
            commit(&mut file, step);
            assert_eq!(open(&path).unwrap(), stored(step));
            assert_eq!(
                read(&reader, file.sequence(), step),
                Some(variables_of(step))
            );
        }
        assert_eq!(file.slots.len(), 3);
    }

    #[test]
    fn slots_that_are_not_needed_any_more_are_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let bytes = || fs::metadata(&path).unwrap().len();
        let at_first = bytes();
        let mut step = 0;
        let mut commit_next = |file: &mut StateFile| {
            step += 1;
            commit(file, step)
        };
        let kept: Vec<_> = (0..20).map(|_| commit_next(&mut file)).collect();
        let reader = StateReader::open(&file.shared_path(), &layout()).unwrap();
        assert_eq!(file.slots.len(), 20);
        for _ in 0..2 * COMMITS_OBSERVED {
            commit_next(&mut file);
        }
        assert_eq!(file.slots.len(), 22, "nothing is free");
        // One that is still read keeps those before it.
        let last_read = kept.into_iter().nth(9);
        for _ in 0..2 * COMMITS_OBSERVED {
            commit_next(&mut file);
        }
        assert_eq!(file.slots.len(), 10);
        drop(last_read);
        for _ in 0..2 * COMMITS_OBSERVED {
            commit_next(&mut file);
        }
        assert_eq!(bytes(), at_first);
        assert_eq!(open(&path).unwrap(), stored(step));
        assert_eq!(
            read(&reader, file.sequence(), step),
            Some(variables_of(step))
        );
    }

    /// A third slot that is in use from time to time is not made anew each time.
    #[test]
    fn a_slot_that_is_needed_now_and_then_stays() {
        let mut demand = Demand::default();
        for commit in 0..10 * COMMITS_OBSERVED {
            let free = if commit % (COMMITS_OBSERVED / 2) == 0 {
                1
            } else {
                2
            };
            demand.observe(free);
            assert_eq!(demand.excess, 0);
        }
    }

    #[test]
    fn a_reader_whose_slot_is_cut_off_reads_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let kept = [1, 2, 3].map(|step| commit(&mut file, step));
        let reader = StateReader::open(&file.shared_path(), &layout()).unwrap();
        let sequence = file.sequence();
        drop(kept);
        commit(&mut file, 4);
        let mut variables = Values::zeros(1500);
        let cut_off = || {
            file.demand.excess = 1;
            file.give_back();
            assert_eq!(file.slots.len(), 2);
        };
        let copied = reader.copy_variables(sequence, stored(3).digest, &mut variables, cut_off);
        assert_eq!(copied.unwrap(), Copied::Overtaken);
    }

    #[test]
    fn where_a_file_system_cannot_allocate_zeros_are_written() {
        for lack in [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[7; 100]).unwrap();
            take_room(&file, 100..200_000, |_, _, _| Err(lack)).unwrap();
            let metadata = file.metadata().unwrap();
            assert_eq!(metadata.len(), 200_000, "{lack}");
            assert!(metadata.blocks() * 512 >= 196_608, "it has no holes");
        }
        let file = tempfile::tempfile().unwrap();
        let full = take_room(&file, 0..100, |_, _, _| Err(Errno::NOSPC)).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_state_that_is_begun_and_dropped_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        commit(&mut file, 1);
        for _ in 0..3 {
            begin(&mut file, 7);
            assert_eq!(open(&path).unwrap(), stored(1));
        }
        commit(&mut file, 2);
        assert_eq!(open(&path).unwrap(), stored(2));
        assert_eq!(file.slots.len(), MIN_SLOTS);
    }

    #[test]
    fn a_file_of_another_model_or_release_is_told_from_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let other = StateFile::read(&path, &Layout::example()).unwrap_err();
        assert!(matches!(other, StateFileError::Foreign { .. }));
        let whole = fs::read(&path).unwrap();
        let mut of_next_version = whole.clone();
        of_next_version[MAGIC.len()] += 1;
        fs::write(&path, of_next_version).unwrap();
        let other = open(&path).unwrap_err();
        assert!(matches!(other, StateFileError::Foreign { .. }));
        let zeros = vec![0; whole.len()];
        for damaged in [&[], &b"no state"[..], &whole[..20], &whole[..5000], &zeros] {
            fs::write(&path, damaged).unwrap();
            let error = open(&path).unwrap_err();
            assert!(matches!(error, StateFileError::Damaged { .. }), "{error}");
        }
    }

    fn variables_of(step: u64) -> Values {
        stored(step).state.variables
    }

    fn read(reader: &StateReader, sequence: u64, step: u64) -> Option<Values> {
        let mut variables = Values::zeros(1500);
        let digest = stored(step).digest;
        let copied = reader
            .read_variables(sequence, digest, &mut variables)
            .unwrap();
        (copied == Copied::Whole).then_some(variables)
    }

    #[test]
    fn another_process_reads_the_newest_state_and_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let reader = StateReader::open(&file.shared_path(), &layout()).unwrap();
        let first = file.sequence();
        assert_eq!(read(&reader, first, 0), Some(variables_of(0)));
        commit(&mut file, 1);
        assert_eq!(file.sequence(), first + 1);
        assert_eq!(read(&reader, first, 0), Some(variables_of(0)));
        assert_eq!(read(&reader, first + 1, 1), Some(variables_of(1)));
        assert_eq!(read(&reader, first + 1, 2), None, "another state");
        commit(&mut file, 2);
        assert_eq!(read(&reader, first, 0), None, "overwritten");
    }

    #[test]
    fn a_reader_that_is_overtaken_in_the_middle_sees_it_and_reads_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let reader = StateReader::open(&file.shared_path(), &layout()).unwrap();
        let sequence = file.sequence();
        let copy = |file: &mut StateFile, commits: std::ops::Range<u64>| {
            let mut variables = Values::zeros(1500);
            let overtake = || commits.for_each(|step| drop(commit(file, step)));
            let copied = reader
                .copy_variables(sequence, stored(0).digest, &mut variables, overtake)
                .unwrap();
            (copied, variables)
        };
        assert_eq!(
            copy(&mut file, 1..2),
            (Copied::Whole, variables_of(0)),
            "one commit writes the other slot"
        );
        let (copied, torn) = copy(&mut file, 2..3);
        assert_eq!(copied, Copied::Overtaken);
        assert_eq!([torn[0], torn[1499]], [0.0, 2.0], "it was torn indeed");
        assert_eq!(
            read(&reader, file.sequence(), 2),
            Some(variables_of(2)),
            "what the next pull names is whole"
        );
    }

    /// The data of a slot that is being written are not to be had, however far the writer is.
    #[test]
    fn a_reader_believes_no_slot_that_is_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut file = StateFile::create(&path, &layout(), 100, &stored(0)).unwrap();
        let reader = StateReader::open(&file.shared_path(), &layout()).unwrap();
        let sequence = file.sequence();
        commit(&mut file, 1);
        let next = begin(&mut file, 2);
        assert_eq!(read(&reader, sequence, 0), None);
        file.write(&next, stored(2).digest, b"").unwrap();
        assert_eq!(read(&reader, sequence, 0), None);
        assert_eq!(read(&reader, sequence + 1, 1), Some(variables_of(1)));
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

            let (places, part) = (file.places, layout().size_bytes());
            let slot = file.slots.iter().position(|slot| slot.sequence == file.sequence).unwrap();
            let header = slot_header(file.sequence, GlobalStep(2), stored(2).digest, &stored(2).note);
            let written_at = |offset: u64, len: usize| after[offset as usize..][..len].to_vec();
            let writes = [
                (places.slot(slot), NO_SEQUENCE.to_le_bytes().to_vec()),
                (places.variables(slot), written_at(places.variables(slot), part)),
                (places.averages(slot), written_at(places.averages(slot), part)),
                (places.slot(slot), header),
            ];
            let all: usize = writes.iter().map(|(_, bytes)| bytes.len()).sum();
            let in_order = writes
                .into_iter()
                .flat_map(|(offset, bytes)| (offset as usize..).zip(bytes));
            let mut cut = before;
            for (offset, byte) in in_order.take(written) {
                cut[offset] = byte;
            }
            fs::write(&path, &cut).unwrap();
            prop_assert_eq!(open(&path).unwrap(), stored(1));
            cut[SEQUENCE_OFFSET as usize..][..8].copy_from_slice(&after[SEQUENCE_OFFSET as usize..][..8]);
            fs::write(&path, &cut).unwrap();
            let expected = if written >= all { stored(2) } else { stored(1) };
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
