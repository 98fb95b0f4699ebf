//! From the archive to the folder of record files: all of it or nothing.
//!
//! Nothing is ever written under a name that the archive chose. Each entry's name is looked up
//! among the expected ones, and what is found goes to a file that this code names, in a folder
//! beside the final one. Entries of other names are passed over, those that try to leave the
//! folder or are no plain files end the unpacking.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use tar::{Archive, Entry, EntryType};

use crate::error::DataError;
use crate::manifest::Manifest;

/// Taken along if they are there: the class names and the authors' note.
const TEXT_FILES: [&str; 2] = ["batches.meta.txt", "readme.html"];

/// Largest text file that is taken: the published ones are below 100 bytes.
const MAX_TEXT_BYTES: u64 = 1 << 16;

/// Everything in the archive besides the record files, headers included, has to fit in this; an
/// archive that goes on unpacking for ever ends here.
const MAX_OTHER_BYTES: u64 = 1 << 20;

/// A folder of unpacked files that is not yet in its place. Dropped, it is removed.
#[derive(Debug)]
pub struct Unpacking {
    temporary: PathBuf,
    destination: PathBuf,
}

impl Unpacking {
    /// Unpacks `archive` beside where its folder will be in `data_dir`.
    ///
    /// The caller holds the lock of `data_dir`: what a killed process left behind is removed.
    ///
    /// # Errors
    ///
    /// [`DataError::Archive`] if the archive is damaged, [`DataError::Entry`] if it holds what it
    /// should not, [`DataError::Member`] if a record file is not in it, [`DataError::DiskFull`],
    /// [`DataError::Write`], [`DataError::Read`]. In each case no folder is left.
    pub fn start(manifest: &Manifest, archive: &Path, data_dir: &Path) -> Result<Self, DataError> {
        let unpacking = Unpacking {
            temporary: data_dir.join(format!(".{}.unpacking", manifest.folder)),
            destination: data_dir.join(manifest.folder),
        };
        unpacking.remove_leftover()?;
        fs::create_dir(&unpacking.temporary)
            .map_err(|error| DataError::write(&unpacking.temporary, error))?;
        unpack(manifest, archive, &unpacking.temporary)?;
        Ok(unpacking)
    }

    /// Where the files are for now.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.temporary
    }

    /// Moves the folder to its place, in one step that also outlives a power cut.
    ///
    /// # Errors
    ///
    /// [`DataError::Write`] if the folder cannot be moved.
    pub fn publish(self) -> Result<(), DataError> {
        sync(&self.temporary)?;
        fs::rename(&self.temporary, &self.destination)
            .map_err(|error| DataError::write(&self.destination, error))?;
        self.destination.parent().map_or(Ok(()), sync)
    }

    fn remove_leftover(&self) -> Result<(), DataError> {
        match fs::remove_dir_all(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DataError::write(&self.temporary, error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        // After `publish` there is nothing left here; an error has been reported already, and a
        // folder that cannot be removed now is removed at the next start.
        let _ = self.remove_leftover();
    }
}

/// Makes the names in `folder` durable.
fn sync(folder: &Path) -> Result<(), DataError> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(|error| DataError::write(folder, error))
}

fn unpack(manifest: &Manifest, archive: &Path, into: &Path) -> Result<(), DataError> {
    let damaged = |source| DataError::Archive {
        path: archive.to_owned(),
        source,
    };
    let file = File::open(archive).map_err(|error| DataError::read(archive, error))?;
    let record_bytes: u64 = manifest.files().map(|file| file.size_bytes()).sum();
    let unzipped = GzDecoder::new(file).take(record_bytes + MAX_OTHER_BYTES);
    let mut tar = Archive::new(unzipped);
    // As the headers stand: long names and other attributes, which come as entries of their own and of any
    // length, are not collected in memory.
    for entry in tar.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        take_entry(manifest, archive, &mut entry, into)?;
    }
    // The tar file ends before the gzip stream does, whose last bytes are its own checksum.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(damaged)?;
    match manifest
        .files()
        .find(|file| !into.join(&file.name).exists())
    {
        None => Ok(()),
        Some(missing) => Err(DataError::Member {
            path: archive.to_owned(),
            member: format!("{}/{}", manifest.folder, missing.name),
        }),
    }
}

/// Writes the entry if it is one of the expected files, passes it over if it is harmless.
fn take_entry<R: Read>(
    manifest: &Manifest,
    archive: &Path,
    entry: &mut Entry<'_, R>,
    into: &Path,
) -> Result<(), DataError> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let refuse = |reason| DataError::Entry {
        path: archive.to_owned(),
        entry: name.clone(),
        reason,
    };
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {}
        EntryType::Directory => return check_inside(&name).map_err(refuse),
        // Remarks about the archive or the next entry, such as the commit it was made from, or a time.
        EntryType::XGlobalHeader | EntryType::XHeader => return Ok(()),
        EntryType::Symlink => return Err(refuse("is a symbolic link")),
        EntryType::Link => return Err(refuse("is a hard link")),
        _ => return Err(refuse("is neither a file nor a folder")),
    }
    check_inside(&name).map_err(refuse)?;
    let Some((member, size)) = expected(manifest, &name) else {
        return Ok(());
    };
    if !size.allows(entry.size()) {
        return Err(refuse("is not of the expected size"));
    }
    let path = into.join(member);
    if path.exists() {
        return Err(refuse("is there twice"));
    }
    write_member(entry, archive, &path)
}

/// Refuses names that lead out of the folder they are unpacked in.
fn check_inside(name: &str) -> Result<(), &'static str> {
    for component in Path::new(name).components() {
        match component {
            Component::Normal(_) | Component::CurDir => {}
            Component::ParentDir => return Err("leads out of its folder by '..'"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    Ok(())
}

/// What an entry's size may be.
enum Size {
    Exactly(u64),
    AtMost(u64),
}

impl Size {
    fn allows(&self, size: u64) -> bool {
        match self {
            Size::Exactly(expected) => size == *expected,
            Size::AtMost(limit) => size <= *limit,
        }
    }
}

/// The expected file that an entry's name stands for, and its size.
fn expected<'m>(manifest: &'m Manifest, name: &str) -> Option<(&'m str, Size)> {
    let member = name.trim_start_matches("./");
    let member = member.strip_prefix(manifest.folder)?.strip_prefix('/')?;
    if let Some(text) = TEXT_FILES.iter().find(|text| **text == member) {
        return Some((text, Size::AtMost(MAX_TEXT_BYTES)));
    }
    let file = manifest.files().find(|file| file.name == member)?;
    Some((&file.name, Size::Exactly(file.size_bytes())))
}

/// Copies an entry to a new file. Reading and writing are told apart: a damaged archive and a full
/// disk ask for different things.
fn write_member(entry: &mut impl Read, archive: &Path, path: &Path) -> Result<(), DataError> {
    let mut file = File::create_new(path).map_err(|error| DataError::write(path, error))?;
    copy(entry, archive, &mut file, path)?;
    file.sync_all()
        .map_err(|error| DataError::write(path, error))
}

fn copy(
    from: &mut impl Read,
    archive: &Path,
    to: &mut impl Write,
    path: &Path,
) -> Result<(), DataError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = from
            .read(&mut buffer)
            .map_err(|source| DataError::Archive {
                path: archive.to_owned(),
                source,
            })?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length])
            .map_err(|error| DataError::write(path, error))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["/etc/passwd", "../x", "a/../../x", "a/.."] {
            assert!(check_inside(name).is_err(), "{name}");
        }
        for name in ["a", "./a/b", "a..b/c"] {
            assert_eq!(check_inside(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_damaged_archive() {
        if !Path::new("/dev/full").exists() {
            eprintln!("skipped: there is no /dev/full");
            return;
        }
        let path = Path::new("data_batch_1.bin");
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = copy(&mut &[1_u8][..], Path::new("a.tar.gz"), &mut full, path).unwrap_err();
        assert!(matches!(error, DataError::DiskFull { .. }), "{error}");
    }
}
