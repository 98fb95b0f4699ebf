//! The published set on this machine's disk: read if it is there, fetched once if it is not.
//!
//! Any number of processes may ask at the same time. The folder appears by a rename and only after
//! its files were checked, so a process that sees it sees a whole set; a lock lets one process fetch while
//! the others wait and then find the folder.
//!
//! ```text
//! process 1   no folder   lock   download   unpack, verify   rename   unlock
//! process 2   no folder   lock . . . . . . . . . . . . . . . . . . . . held   folder: read
//! process 3                                                           folder: read
//! ```

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::download::{self, Source};
use crate::error::DataError;
use crate::lock;
use crate::manifest::Manifest;
use crate::unpack::Unpacking;
use crate::verify::{self, Splits};

/// What to do where the set is not there.
#[derive(Clone, Debug)]
pub enum WhenAbsent {
    /// Fetch it from here.
    Download(Source),
    /// Give up with [`DataError::Absent`].
    Fail,
}

/// The records of `manifest` from its folder in `data_dir`, which is made if `when_absent` allows. That folder
/// itself may be given as well.
///
/// Blocks for as long as a download takes; not to be called from an async task.
///
/// # Errors
///
/// A folder that is there but not whole is reported, as [`verify::read`] does, and never
/// overwritten; [`DataError::NoFolder`] and [`DataError::DanglingLink`] if its place is taken. Otherwise whatever [`lock::acquire`], [`download::fetch`] or [`Unpacking`] report.
pub fn obtain(
    manifest: &Manifest,
    data_dir: &Path,
    when_absent: &WhenAbsent,
) -> Result<Splits, DataError> {
    is_folder(data_dir)?;
    let folder = folder_of_set(manifest, data_dir)?;
    if is_folder(&folder)? {
        return verify::read(manifest, &folder);
    }
    let WhenAbsent::Download(source) = when_absent else {
        return Err(DataError::Absent { folder });
    };
    let data_dir = parent(&folder);
    fs::create_dir_all(data_dir).map_err(|error| DataError::write(data_dir, error))?;
    let lock = data_dir.join(format!(".{}.lock", manifest.folder));
    let _lock = lock::acquire(&lock, source.patience.lock)?;
    if is_folder(&folder)? {
        return verify::read(manifest, &folder);
    }
    fetch_and_unpack(manifest, source, data_dir)
}

/// The set's folder in `data_dir`; or `data_dir`, where that is the set's folder by its name or files.
fn folder_of_set(manifest: &Manifest, data_dir: &Path) -> Result<PathBuf, DataError> {
    let folder = data_dir.join(manifest.folder);
    let has_its_name = data_dir.file_name() == Some(OsStr::new(manifest.folder));
    let has_its_files = || {
        manifest
            .files()
            .all(|file| data_dir.join(&file.name).exists())
    };
    match !is_folder(&folder)? && (has_its_name || has_its_files()) {
        true => Ok(data_dir.to_owned()),
        false => Ok(folder),
    }
}

/// Whether there is a folder at `path`. Anything else there is an error now, and not only when a downloaded set
/// is to be put there.
fn is_folder(path: &Path) -> Result<bool, DataError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => Err(DataError::NoFolder {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dangling = |path: &&Path| path.is_symlink() && !path.exists();
            match path.ancestors().find(dangling) {
                Some(link) => Err(DataError::DanglingLink {
                    path: link.to_owned(),
                }),
                None => Ok(false),
            }
        }
        Err(error) => Err(DataError::read(path, error)),
    }
}

/// The folder that `path` is in.
fn parent(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// With the lock held: archive, then folder.
fn fetch_and_unpack(
    manifest: &Manifest,
    source: &Source,
    data_dir: &Path,
) -> Result<Splits, DataError> {
    let archive = data_dir.join(manifest.archive);
    download::fetch(source, &archive)?;
    let unpacked = unpack_and_verify(manifest, &archive, data_dir);
    // An archive that nobody vouched for and that turned out wrong would stand in the way of the
    // next attempt. One with the expected digest is kept, as the tutorial does.
    let is_wrong = matches!(
        unpacked,
        Err(DataError::Archive { .. }
            | DataError::Entry { .. }
            | DataError::Member { .. }
            | DataError::Content { .. })
    );
    if is_wrong && source.sha256.is_none() {
        fs::remove_file(&archive).map_err(|error| DataError::write(&archive, error))?;
    }
    unpacked
}

fn unpack_and_verify(
    manifest: &Manifest,
    archive: &Path,
    data_dir: &Path,
) -> Result<Splits, DataError> {
    tracing::info!(path = %archive.display(), "unpacking the data set");
    let unpacking = Unpacking::start(manifest, archive, data_dir)?;
    let splits =
        verify::read(manifest, unpacking.folder()).map_err(|source| DataError::Content {
            path: archive.to_owned(),
            source: Box::new(source),
        })?;
    unpacking.publish()?;
    Ok(splits)
}
