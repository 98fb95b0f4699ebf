//! The program `cifar-ps` on a disk that fails: file operations in one folder are late, fail or are the
//! last thing that the process does, as numbers drawn from a seed say.
//!
//! The functions of the C library that open, read, write and rename are defined here once more. What a
//! program itself defines comes before what a library does, so everything that the server does to files
//! goes through them: its own code, the standard library and other crates alike (`rustix` has the
//! feature `use-libc` for that). Stores to memory that is mapped do not.

#![expect(
    unsafe_code,
    reason = "it stands between the program and the C library"
)]

use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, thread};

use libc::{c_char, c_int, c_uint, c_void, mode_t, off64_t, size_t, ssize_t};

fn main() -> ExitCode {
    pserver_server::main(cifar_model::layout())
}

/// What is to go wrong.
struct Plan {
    folder: PathBuf,
    seed: u64,
    /// Of 1,000 operations so many fail, as many are late, and half as many are the last.
    per_mille: u64,
}

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// How an operation ends.
enum Fate {
    Done,
    Fails(c_int),
    /// It is done, and the process is killed.
    IsTheLast,
}

fn plan() -> Option<&'static Plan> {
    let plan = PLAN.get_or_init(|| {
        Some(Plan {
            folder: env::var_os("FAULTS_FOLDER")?.into(),
            seed: env::var("FAULTS_SEED").ok()?.parse().ok()?,
            per_mille: env::var("FAULTS_PER_MILLE").ok()?.parse().ok()?,
        })
    });
    plan.as_ref()
}

/// A number that follows from `x` (source: SplitMix64, Steele, Lea and Flood, 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Draws how an operation on `path` ends; `error` is what it fails with at times.
fn draw(path: impl FnOnce() -> Option<PathBuf>, error: c_int) -> Fate {
    let Some(plan) = plan() else {
        return Fate::Done;
    };
    if !path().is_some_and(|path| path.starts_with(&plan.folder)) {
        return Fate::Done;
    }
    let number = OPERATIONS.fetch_add(1, Ordering::Relaxed);
    let drawn = mix(plan.seed ^ mix(number));
    let (what, how) = (drawn % 2000, drawn >> 32);
    let share = 2 * plan.per_mille;
    if what < share {
        return Fate::Fails(if how % 2 == 0 { error } else { libc::EIO });
    }
    if what < 2 * share {
        let longest = [1, 10, 100][how as usize % 3];
        thread::sleep(Duration::from_millis(1 + how / 3 % longest));
    } else if what < 2 * share + share / 4 {
        kill();
    } else if what < 2 * share + share / 2 {
        return Fate::IsTheLast;
    }
    Fate::Done
}

fn kill() {
    // SAFETY: no memory is handed over.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

fn of_descriptor(descriptor: c_int) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()
}

/// What a path that is handed to the C library names, relative to a folder.
///
/// # Safety
///
/// `path` is a string that ends with 0.
unsafe fn of_path(folder: c_int, path: *const c_char) -> Option<PathBuf> {
    // SAFETY: as the caller says.
    let path = unsafe { CStr::from_ptr(path) };
    let path = Path::new(path.to_str().ok()?);
    if let Ok(path) = path.strip_prefix("/proc/self/fd") {
        // As the server reaches its files, whatever becomes of its folder's name.
        let mut path = path.components();
        let descriptor = path.next()?.as_os_str().to_str()?.parse().ok()?;
        return Some(of_descriptor(descriptor)?.join(path.as_path()));
    }
    match (path.is_absolute(), folder) {
        (true, _) => Some(path.to_owned()),
        (false, libc::AT_FDCWD) => Some(env::current_dir().ok()?.join(path)),
        (false, folder) => Some(of_descriptor(folder)?.join(path)),
    }
}

fn done<T: From<i8> + Copy>(fate: Fate, operation: impl FnOnce() -> T) -> T {
    match fate {
        Fate::Done => operation(),
        Fate::Fails(error) => {
            // SAFETY: it is this thread's own.
            unsafe { *libc::__errno_location() = error };
            T::from(-1)
        }
        Fate::IsTheLast => {
            let result = operation();
            kill();
            result
        }
    }
}

/// A function of the C library over a system call of the same arguments, the path or descriptor first.
macro_rules! functions {
    ($($name:ident($first:ident: $type:ty $(, $argument:ident: $of:ty)*) -> $result:ty
       = $call:ident, $path:expr, $error:ident;)*) => {$(
        /// As in the C library.
        ///
        /// # Safety
        ///
        /// As in the C library.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($first: $type $(, $argument: $of)*) -> $result {
            let fate = draw(|| $path, libc::$error);
            // SAFETY: as the caller says.
            done(fate, || unsafe { libc::syscall(libc::$call, $first $(, $argument)*) as $result })
        }
    )*};
}

functions! {
    write(file: c_int, bytes: *const c_void, len: size_t) -> ssize_t
        = SYS_write, of_descriptor(file), ENOSPC;
    pwrite64(file: c_int, bytes: *const c_void, len: size_t, at: off64_t) -> ssize_t
        = SYS_pwrite64, of_descriptor(file), ENOSPC;
    read(file: c_int, bytes: *mut c_void, len: size_t) -> ssize_t
        = SYS_read, of_descriptor(file), EIO;
    pread64(file: c_int, bytes: *mut c_void, len: size_t, at: off64_t) -> ssize_t
        = SYS_pread64, of_descriptor(file), EIO;
    fsync(file: c_int) -> c_int
        = SYS_fsync, of_descriptor(file), ENOSPC;
    fdatasync(file: c_int) -> c_int
        = SYS_fdatasync, of_descriptor(file), ENOSPC;
    ftruncate64(file: c_int, len: off64_t) -> c_int
        = SYS_ftruncate, of_descriptor(file), EIO;
    fallocate64(file: c_int, mode: c_int, at: off64_t, len: off64_t) -> c_int
        = SYS_fallocate, of_descriptor(file), ENOSPC;
    openat64(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int
        = SYS_openat, unsafe { of_path(folder, path) }, EMFILE;
    renameat(from: c_int, old: *const c_char, to: c_int, new: *const c_char) -> c_int
        = SYS_renameat, unsafe { of_path(from, old) }, ENOSPC;
    unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int
        = SYS_unlinkat, unsafe { of_path(folder, path) }, EACCES;
    mkdirat(folder: c_int, path: *const c_char, mode: mode_t) -> c_int
        = SYS_mkdirat, unsafe { of_path(folder, path) }, ENOSPC;
}

/// As in the C library.
///
/// # Safety
///
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: as the caller says.
    unsafe { openat64(libc::AT_FDCWD, path, flags, mode) }
}

/// As in the C library.
///
/// # Safety
///
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(old: *const c_char, new: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe { renameat(libc::AT_FDCWD, old, libc::AT_FDCWD, new) }
}

/// As in the C library.
///
/// # Safety
///
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

/// As in the C library.
///
/// # Safety
///
/// As in the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { mkdirat(libc::AT_FDCWD, path, mode) }
}
