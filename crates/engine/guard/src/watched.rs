//! Files that are read again when they have changed: who renews certificates and tokens does not
//! start programs anew.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{info, warn};

use crate::error::GuardError;
use crate::flag_file::FlagFile;
use crate::limits::{LOOK_AGAIN, MAX_FILE_BYTES};

/// Something that was made of files.
pub struct Watched<T> {
    files: Vec<FlagFile>,
    make: Box<dyn Fn() -> Result<T, GuardError> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// Tells one content of a file from the next: device, number, time of change and size.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watched").field(&self.files).finish()
    }
}

impl<T> Watched<T> {
    /// What `make` makes of `files`, now and whenever one of them has changed.
    ///
    /// # Errors
    ///
    /// As `make`.
    pub fn new(
        files: Vec<FlagFile>,
        make: impl Fn() -> Result<T, GuardError> + Send + Sync + 'static,
    ) -> Result<Self, GuardError> {
        let stamps = stamps(&files);
        let value = Arc::new(make()?);
        let state = State {
            value,
            stamps,
            looked: Instant::now(),
        };
        Ok(Watched {
            files,
            make: Box::new(make),
            state: Mutex::new(state),
        })
    }

    /// The newest that could be made. Files that cannot be used leave what there was before.
    pub fn newest(&self) -> Arc<T> {
        self.newest_at(Instant::now())
    }

    fn newest_at(&self, now: Instant) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.looked) >= LOOK_AGAIN {
            state.looked = now;
            let stamps = stamps(&self.files);
            if stamps != state.stamps {
                state.stamps = stamps;
                self.make_anew(&mut state);
            }
        }
        Arc::clone(&state.value)
    }

    fn make_anew(&self, state: &mut State<T>) {
        let path = self.files[0].path.display();
        match (self.make)() {
            Ok(value) => {
                state.value = Arc::new(value);
                info!(%path, "file has changed and was read again");
            }
            Err(error) => {
                let error = error.in_full();
                warn!(%path, error, "file has changed and cannot be used; what was read before still holds");
            }
        }
    }
}

fn stamps(files: &[FlagFile]) -> Vec<Stamp> {
    let stamp = |file: &FlagFile| {
        let found = fs::metadata(&file.path).ok()?;
        Some((
            found.dev(),
            found.ino(),
            found.mtime(),
            found.mtime_nsec(),
            found.len(),
        ))
    };
    files.iter().map(stamp).collect()
}

/// All of a file, which is not a large one.
pub(crate) fn read(file: &FlagFile) -> Result<Vec<u8>, GuardError> {
    let failed = |source| GuardError::Read {
        file: file.clone(),
        source,
    };
    let mut bytes = Vec::new();
    let opened = fs::File::open(&file.path).map_err(failed)?;
    let mut opened = opened.take(MAX_FILE_BYTES);
    opened.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_has_changed_and_a_broken_one_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        fs::write(&path, "1").unwrap();
        let of = FlagFile::given("--number", Some(&path)).unwrap();
        let watched = Watched::new(vec![of.clone()], move || {
            let text = String::from_utf8(read(&of)?).unwrap();
            text.parse::<u32>().map_err(|_| GuardError::Authority {
                file: of.clone(),
                reason: "it is no number".to_owned(),
            })
        })
        .unwrap();
        let mut now = Instant::now();
        let mut after = |text: &str| {
            // As an editor or kubelet does: another file under the name.
            let beside = folder.path().join("beside");
            fs::write(&beside, text).unwrap();
            fs::rename(&beside, &path).unwrap();
            let before_the_look = *watched.newest_at(now);
            now += LOOK_AGAIN;
            (before_the_look, *watched.newest_at(now))
        };
        assert_eq!(after("22"), (1, 22));
        assert_eq!(after("broken"), (22, 22));
        assert_eq!(after("333"), (22, 333));
    }
}
