//! A folder that stays the same one, whatever becomes of its name.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open folder. Files are reached [through](Self::through) it, not by its name: where the folder is moved
/// they go along, and another one that gets its name is left alone.
#[derive(Clone, Debug)]
pub struct Folder {
    file: Arc<File>,
    path: PathBuf,
    through: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`.
    ///
    /// # Errors
    ///
    /// If it is no folder, or cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let of_descriptor = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        // Where /proc is not mounted there is only the name.
        let through = match is_same(&file, &of_descriptor) {
            true => of_descriptor,
            false => path.to_owned(),
        };
        Ok(Folder {
            file: Arc::new(file),
            path: path.to_owned(),
            through,
        })
    }

    /// The name that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads to this folder while it is open, for this process only.
    #[must_use]
    pub fn through(&self) -> &Path {
        &self.through
    }

    /// The path of something in the folder, through it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.through.join(name)
    }

    /// The folder itself, to be locked.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What people call a path through the folder.
    #[must_use]
    pub fn shown(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.through) {
            Ok(name) => self.path.join(name),
            Err(_) => path.to_owned(),
        }
    }

    /// An error of something that was done through the folder, with the path that people know.
    #[must_use]
    pub fn explain<E: AboutPath>(&self, mut error: E) -> E {
        let path = error.path_mut();
        *path = self.shown(path);
        error
    }
}

/// An error that names a file or folder.
pub trait AboutPath {
    /// Its path.
    fn path_mut(&mut self) -> &mut PathBuf;
}

/// Whether `path` leads to a file or folder that is open.
#[must_use]
pub fn is_same(file: &File, path: &Path) -> bool {
    let named = path.metadata().and_then(|named| {
        let open = file.metadata()?;
        Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
    });
    named.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_through_a_folder_goes_where_it_goes() {
        let parent = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| parent.path().join(name));
        fs::create_dir(&a).unwrap();
        let folder = Folder::open(&a).unwrap();
        fs::rename(&a, &b).unwrap();
        fs::create_dir(&a).unwrap();
        fs::write(folder.join("file"), "its own").unwrap();
        assert_eq!(fs::read(b.join("file")).unwrap(), b"its own");
        assert_eq!(fs::read_dir(&a).unwrap().count(), 0);
        assert_eq!(folder.shown(&folder.join("file")), a.join("file"));
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Folder::open(file.path()).is_err());
    }
}
