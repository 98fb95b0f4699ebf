//! Folders for decoders that take a path: in memory, where there is such a place.

use std::path::Path;

use tempfile::TempDir;

/// A folder that is gone when this is dropped.
pub(crate) fn folder() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let folder = match in_memory.is_dir() {
        true => tempfile::tempdir_in(in_memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder can be made")
}
