//! Memory that a server and one worker on its host share, so that a gradient need not travel.
//!
//! ```text
//!   0      magic, number of values, nonce
//!   64     generation of the gradients, 0 while they are written
//!   4096   the gradients
//! ```
//!
//! The server makes the memory ([`ServerSlot`]); it has no name in any folder, and is gone when
//! neither process has it open. The worker opens it through the server's entry in `/proc`, which
//! the kernel lets only processes of the same machine and user do, and shows that it has found it
//! by telling the nonce ([`WorkerSlot`]).
//!
//! The worker computes its gradients right there ([`GradientsUnderWay`]), and a push names the generation that
//! it means. The server copies them out as soon as they are pushed ([`ServerSlot::read`]) and looks for the
//! generation before and after; where it finds another one, what it has copied belongs to another push.
//!
//! The server copies gradients out when they are pushed. To compute with them where they lie saves it 0.1 ms of a push,
//! pull and commit of 3 (docs/runs/2026-11-28-bench), but then a gradient counts before anybody has read it, and every
//! answer to a worker has to see to what is still in its slot. Pieces are copied by the processor's own instruction
//! (`shared_copy.rs`): atomics, which are what Rust has for memory of two processes, are half as fast.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use pserver_state::Place;
use pserver_state::shared_path::Access;
use pserver_state::{Values, open_shared, shared_path};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, SealFlags};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::shared_copy::copy_out;

const MAGIC: [u8; 8] = *b"cifargrd";

const NONCE_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u64>() + NONCE_BYTES;

/// Where the generation is, in words: on a cache line of its own.
const GENERATION_WORD: usize = 64 / size_of::<u64>();

/// Where the gradients begin, in bytes: on a page, so that they can be mapped by themselves.
const GRADIENTS_OFFSET: usize = 4096;

/// Numbers of a word.
const NUMBERS_A_WORD: usize = size_of::<u64>() / size_of::<f32>();

/// Numbers that are copied out at once: 64 KiB, which a processor's second cache holds.
const PIECE: usize = 16 * 1024;

/// Stands in place of a generation while gradients are written. Real ones begin at 1.
const NO_GENERATION: u64 = 0;

/// Nobody can make the memory shorter or longer: what is mapped stays there.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A number drawn for one slot; who knows it has read the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

/// Which of the gradients that were written to a slot, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u64);

/// A slot that a worker cannot use.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// It cannot be opened: the server is on another host, in another container or another user's.
    #[error("cannot open the server's memory at {path}: {source}")]
    Open {
        /// Where the server said that it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is something else.
    #[error("what is at {path} is not the server's memory")]
    Foreign {
        /// Where the server said that it is.
        path: PathBuf,
    },
}

/// The server's end of a slot.
#[derive(Debug)]
pub struct ServerSlot {
    file: File,
    header: SharedWords,
    gradients: SharedWords,
    num_values: usize,
    nonce: Nonce,
}

impl ServerSlot {
    /// A slot for gradients of `num_values` numbers. It takes no memory to speak of before it is
    /// [reserved](Self::reserve).
    ///
    /// # Errors
    ///
    /// If the system gives none.
    pub fn create(num_values: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("cifar-ps gradients", flags)?);
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
        file.set_len(file_bytes(num_values) as u64)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;

        let mut nonce = Nonce([0; NONCE_BYTES]);
        getrandom(&mut nonce.0, GetRandomFlags::empty())?;
        file.write_all_at(&header(num_values, nonce), 0)?;
        Ok(ServerSlot {
            header: SharedWords {
                mapped: header_of(&file)?,
            },
            gradients: SharedWords {
                mapped: part_of_gradients(num_values).map_raw_read_only(&file)?,
            },
            file,
            num_values,
            nonce,
        })
    }

    /// Where the worker can open it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        shared_path(&self.file)
    }

    /// What the worker has to know.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// Takes all its memory now: to find none left while it is used would end a process.
    ///
    /// # Errors
    ///
    /// If there is not enough.
    pub fn reserve(&self) -> io::Result<()> {
        let bytes = file_bytes(self.num_values) as u64;
        Ok(rustix::fs::fallocate(
            &self.file,
            FallocateFlags::empty(),
            0,
            bytes,
        )?)
    }

    /// Copies the gradients of `generation` into `to`, and shows each piece of them to `look` on the way. False if the
    /// slot does not hold them from the first piece to the last: what was copied then is nobody's.
    ///
    /// # Panics
    ///
    /// If `to` is of another size than the slot.
    pub fn read(
        &self,
        generation: Generation,
        to: &mut [f32],
        mut look: impl FnMut(&[f32]),
    ) -> bool {
        assert_eq!(to.len(), self.num_values);
        if !self.holds(generation) {
            return false;
        }
        let words = self.gradients.words().chunks(PIECE / NUMBERS_A_WORD);
        for (words, piece) in words.zip(to.chunks_mut(PIECE)) {
            copy_out(words, bytemuck::cast_slice_mut(piece));
            look(piece);
        }
        self.holds(generation)
    }

    fn holds(&self, generation: Generation) -> bool {
        // What was copied was copied before the generation is read, and what will be, after it.
        fence(Ordering::Acquire);
        let found = self.header.generation().load(Ordering::Acquire);
        found == generation.0 && found != NO_GENERATION
    }
}

/// The worker's end of a slot.
#[derive(Debug)]
pub struct WorkerSlot {
    header: Arc<SharedWords>,
    gradients: Place,
    nonce: Nonce,
    last: Generation,
}

impl WorkerSlot {
    /// Opens the slot that the server offers at `path`, for gradients of `num_values` numbers. A slot is opened
    /// once: what writes to its gradients is what this lends, and nothing else.
    ///
    /// # Errors
    ///
    /// [`SlotError`] if it is not to be had from here.
    pub fn open(path: &Path, num_values: usize) -> Result<Self, SlotError> {
        let open_error = |source| SlotError::Open {
            path: path.to_owned(),
            source,
        };
        let file = open_shared(path, Access::ReadAndWrite).map_err(open_error)?;
        let nonce = nonce_in(&file, num_values).ok_or_else(|| SlotError::Foreign {
            path: path.to_owned(),
        })?;
        let mapped = header_of(&file).map_err(open_error)?;
        Ok(WorkerSlot {
            header: Arc::new(SharedWords { mapped }),
            gradients: place_of_gradients(&file, num_values).map_err(open_error)?,
            nonce,
            last: Generation(NO_GENERATION),
        })
    }

    /// What shows the server that this is its slot.
    #[must_use]
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// Begins gradients, over those before. The server must have reserved the slot's memory, and answered the
    /// push of those before.
    ///
    /// # Panics
    ///
    /// If gradients are under way already.
    pub fn begin(&mut self) -> GradientsUnderWay {
        let values = self.gradients.lend();
        let values = values.expect("no gradients are under way");
        // Who sees one of the new gradients does not see the old generation any more. They are written as any
        // memory is, past the caches perhaps, so this is a barrier for all that comes after it.
        let generation = self.header.generation();
        generation.swap(NO_GENERATION, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.last = Generation(self.last.0 + 1);
        GradientsUnderWay {
            values,
            header: Arc::clone(&self.header),
            generation: self.last,
        }
    }

    /// Copies gradients in that were not computed there: [`begin`](Self::begin) to [`finish`](GradientsUnderWay::finish).
    ///
    /// # Panics
    ///
    /// If `gradients` is of another size than the slot, or others are under way.
    pub fn write(&mut self, gradients: &[f32]) -> Generation {
        let mut under_way = self.begin();
        under_way.copy_from_slice(gradients);
        under_way.finish()
    }
}

/// Gradients that a worker is computing in its slot. They begin with whatever the slot held, and if they are
/// dropped instead of finished, the slot holds none.
#[derive(Debug)]
#[must_use = "the slot holds no gradients any more"]
pub struct GradientsUnderWay {
    values: Values,
    header: Arc<SharedWords>,
    generation: Generation,
}

impl GradientsUnderWay {
    /// They are all there, and may be read as this generation from now on.
    pub fn finish(self) -> Generation {
        let generation = self.generation;
        self.header
            .generation()
            .store(generation.0, Ordering::Release);
        generation
    }
}

impl Deref for GradientsUnderWay {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for GradientsUnderWay {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

/// The gradients of a slot as the worker's own memory.
fn place_of_gradients(file: &File, num_values: usize) -> io::Result<Place> {
    #[expect(unsafe_code, reason = "a promise about the file")]
    // SAFETY: the file is sealed, so that nobody can cut it. Its server, the only one that knows of it besides
    // this worker, maps that part to read, and reads with `shared_copy`, as if the kernel did. This worker
    // opens a slot once.
    let mapping = unsafe { part_of_gradients(num_values).map_mut(file) }?;
    Ok(Place::new(mapping, num_values))
}

/// A part of a slot that two processes look at while one of them may be writing it.
#[derive(Debug)]
struct SharedWords {
    mapped: MmapRaw,
}

impl SharedWords {
    #[expect(
        unsafe_code,
        reason = "no crate lends memory of two processes as atomics; everything else follows from this"
    )]
    fn words(&self) -> &[AtomicU64] {
        let len = self.mapped.len() / size_of::<AtomicU64>();
        // SAFETY: the mapping begins on a page, is `self.mapped.len()` bytes long, readable, and lasts
        // as long as `self`, which is borrowed. The one word that is stored to is of a header, which
        // is mapped to write. The seals keep the file from being cut under it. Any bits are a u64.
        // This process reaches the words only as the atomics given out here, or by `shared_copy`, so
        // that there are no data races.
        unsafe { std::slice::from_raw_parts(self.mapped.as_ptr().cast::<AtomicU64>(), len) }
    }

    /// The generation in a header.
    fn generation(&self) -> &AtomicU64 {
        &self.words()[GENERATION_WORD]
    }
}

/// The header, to read and to write. The file is sealed and has one.
fn header_of(file: &File) -> io::Result<MmapRaw> {
    MmapOptions::new().len(GRADIENTS_OFFSET).map_raw(file)
}

/// The part of a slot that the gradients are in.
fn part_of_gradients(num_values: usize) -> MmapOptions {
    let mut options = MmapOptions::new();
    options
        .offset(GRADIENTS_OFFSET as u64)
        .len(gradient_bytes(num_values));
    options
}

/// Whole words.
fn gradient_bytes(num_values: usize) -> usize {
    (num_values * size_of::<f32>()).next_multiple_of(size_of::<u64>())
}

fn file_bytes(num_values: usize) -> usize {
    GRADIENTS_OFFSET + gradient_bytes(num_values)
}

fn header(num_values: usize, nonce: Nonce) -> Vec<u8> {
    let num_values = (num_values as u64).to_le_bytes();
    [&MAGIC[..], &num_values, &nonce.0].concat()
}

/// The nonce, if the file is a slot of this size that cannot become shorter.
fn nonce_in(file: &File, num_values: usize) -> Option<Nonce> {
    let seals = rustix::fs::fcntl_get_seals(file).ok()?;
    let is_of_size = file.metadata().ok()?.len() == file_bytes(num_values) as u64;
    if !seals.contains(SEALS) || !is_of_size {
        return None;
    }
    let mut found = [0; HEADER_BYTES];
    file.read_exact_at(&mut found, 0).ok()?;
    let nonce = Nonce(*found.last_chunk()?);
    (found[..] == header(num_values, nonce)).then_some(nonce)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn slot(num_values: usize) -> (ServerSlot, WorkerSlot) {
        let server = ServerSlot::create(num_values).unwrap();
        let worker = WorkerSlot::open(&server.path(), num_values).unwrap();
        server.reserve().unwrap();
        (server, worker)
    }

    fn read(server: &ServerSlot, generation: Generation) -> Option<Values> {
        let mut values = Values::zeros(server.num_values);
        let mut looked_at: Vec<f32> = Vec::new();
        let is_whole = server.read(generation, &mut values, |piece| looked_at.extend(piece));
        assert!(!is_whole || values[..] == looked_at[..]);
        is_whole.then_some(values)
    }

    #[test]
    fn a_worker_that_has_found_the_slot_knows_its_nonce() {
        let (server, worker) = slot(5);
        assert_eq!(worker.nonce(), server.nonce());
        let (other, _) = slot(5);
        assert_ne!(other.nonce(), server.nonce());
    }

    #[test]
    fn what_is_no_slot_of_this_size_is_not_used() {
        let (server, _) = slot(5);
        let foreign = |path: &Path, num_values| {
            matches!(
                WorkerSlot::open(path, num_values),
                Err(SlotError::Foreign { .. })
            )
        };
        assert!(foreign(&server.path(), 6));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![0; file_bytes(5)]).unwrap();
        assert!(foreign(&shared_path(file.as_file()), 5));
        assert!(matches!(
            WorkerSlot::open(Path::new("/proc/0/fd/0"), 5),
            Err(SlotError::Open { .. })
        ));
    }

    #[test]
    fn a_slot_cannot_be_cut_under_those_who_use_it() {
        let (server, _) = slot(5);
        let file = File::options().write(true).open(server.path()).unwrap();
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn nothing_is_left_where_both_have_ended() {
        let (server, worker) = slot(5);
        let (path, nonce) = (server.path(), server.nonce());
        drop((server, worker));
        // Another test of this process may have been given the same number meanwhile, for a slot
        // with a nonce of its own.
        let found = WorkerSlot::open(&path, 5);
        assert!(!found.is_ok_and(|slot| slot.nonce() == nonce));
    }

    #[test]
    fn gradients_are_read_as_those_of_their_own_generation_only() {
        let (server, mut worker) = slot(3);
        let (old, new) = ([1.0, 2.0, 3.0].as_slice(), [4.0, 5.0, 6.0].as_slice());
        assert_eq!(read(&server, Generation(NO_GENERATION)), None);
        let first = worker.write(old);
        assert_eq!(read(&server, first), Some(old.into()));
        let second = worker.write(new);
        assert_eq!(read(&server, first), None, "a duplicate of the old push");
        assert_eq!(read(&server, second), Some(new.into()));
    }

    #[test]
    fn gradients_are_there_once_they_are_finished_and_not_before() {
        let (server, mut worker) = slot(3);
        let first = worker.write(&[1.0, 2.0, 3.0]);
        let mut under_way = worker.begin();
        assert_eq!(read(&server, first), None, "they may be overwritten now");
        under_way[1] = 5.0;
        let second = under_way.finish();
        assert_eq!(
            read(&server, second),
            Some([1.0, 5.0, 3.0].as_slice().into())
        );
        drop(worker.begin());
        assert_eq!(read(&server, second), None, "nobody finished the third");
        let fourth = worker.write(&[4.0; 3]);
        assert_eq!(read(&server, fourth), Some([4.0; 3].as_slice().into()));
    }

    #[test]
    #[should_panic(expected = "no gradients are under way")]
    fn a_slot_has_room_for_one_gradient() {
        let (_server, mut worker) = slot(3);
        let _under_way = worker.begin();
        drop(worker.begin());
    }

    /// A reader beside a writer in haste never takes a mixture of two gradients for one of them.
    #[test]
    fn no_torn_gradient_is_believed() {
        const NUM_VALUES: usize = 20_000;
        let (server, mut worker) = slot(NUM_VALUES);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..=500 {
                    let gradients = vec![number as f32; NUM_VALUES];
                    assert_eq!(worker.write(&gradients).0, number);
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let generation = server.header.generation().load(Ordering::Relaxed);
                if let Some(gradients) = read(&server, Generation(generation)) {
                    let number = generation as f32;
                    assert!(gradients.iter().all(|value| *value == number));
                }
            }
        });
    }

    proptest! {
        #[test]
        fn gradients_come_out_as_they_went_in(
            (len, seed) in (1..3 * PIECE, any::<u32>()),
        ) {
            let numbers: Vec<f32> = (0..len).map(|i| (i as f32).mul_add(0.5, seed as f32)).collect();
            let (server, mut worker) = slot(numbers.len());
            let generation = worker.write(&numbers);
            let found = read(&server, generation).unwrap();
            prop_assert_eq!(found.as_bytes(), bytemuck::cast_slice::<f32, u8>(&numbers));
        }
    }
}
