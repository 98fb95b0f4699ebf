//! One process at a time prepares a data folder.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::DataError;

/// How often a lock that another process holds is tried again.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A held lock; dropped, it is free again, and so it is when the process dies.
///
/// The file stays: removing it would let a process that waits on the removed file and one that
/// makes it anew both hold "the" lock.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "an open file is what holds the lock")] File);

/// Takes the advisory lock on the file `path`, which is made if need be. While another process has
/// it, says so once and tries again for up to `patience`.
///
/// # Errors
///
/// [`DataError::LockTimeout`] after `patience`; [`DataError::Write`] where files cannot be made or
/// locked, as on some network file systems.
#[expect(clippy::disallowed_methods, reason = "waits with a deadline")]
pub fn acquire(path: &Path, patience: Duration) -> Result<Lock, DataError> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| DataError::write(path, error))?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::Error(error)) => return Err(DataError::write(path, error)),
            Err(TryLockError::WouldBlock) if start.elapsed() >= patience => {
                return Err(DataError::LockTimeout {
                    path: path.to_owned(),
                    waited: patience,
                });
            }
            Err(TryLockError::WouldBlock) => {}
        }
        if !told {
            let lock = path.display();
            tracing::info!(
                path = %lock,
                timeout_secs = patience.as_secs(),
                "waiting for another process to prepare the data set"
            );
            told = true;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = acquire(&path, Duration::ZERO).unwrap();
        let error = acquire(&path, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, DataError::LockTimeout { .. }), "{error}");
        drop(held);
        acquire(&path, Duration::ZERO).unwrap();
    }
}
