//! How a process lets others open a file that it has open, and how they do.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

/// A path at which processes of the same machine and user can open `file`, for as long as this
/// process has it open: `/proc/PID/fd/N`.
///
/// To another machine, another container or another user the path means nothing, or a file of
/// theirs: [`open_shared`] sees that it is a file, and its caller whether it is the right one.
#[must_use]
pub fn shared_path(file: &File) -> PathBuf {
    let (process, descriptor) = (std::process::id(), file.as_raw_fd());
    PathBuf::from(format!("/proc/{process}/fd/{descriptor}"))
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To read and to write.
    ReadAndWrite,
}

/// Opens the file that another process offers at a [`shared_path`].
///
/// The path comes over the network, from a server that may name anything. So no other path is opened, and only
/// a regular file is: to open a pipe could block for good, and to open a device could do anything.
///
/// # Errors
///
/// If the path is no shared path, what is there is no regular file, or it cannot be opened.
pub fn open_shared(path: &Path, access: Access) -> io::Result<File> {
    if !is_shared_path(path) {
        let why = "it is not of the form /proc/PID/fd/N";
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    // A descriptor of this kind is only a place: getting it neither opens what is there nor waits for anything.
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let found = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    if found != FileType::RegularFile {
        let why = "it is not a regular file";
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    // What was looked at is what is opened, whatever is at `path` by now.
    File::options()
        .read(true)
        .write(access == Access::ReadAndWrite)
        // A lease that somebody has on the file would be waited for.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

fn is_shared_path(path: &Path) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = path.to_str().and_then(|path| path.strip_prefix("/proc/"));
    let parts = parts.and_then(|parts| parts.split_once("/fd/"));
    parts.is_some_and(|(process, descriptor)| is_number(process) && is_number(descriptor))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{CWD, mknodat};

    use super::*;

    #[test]
    fn a_shared_file_is_opened_though_its_name_is_gone() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"text", 0).unwrap();
        let path = shared_path(&file);
        let mut text = String::new();
        let mut to_read = open_shared(&path, Access::Read).unwrap();
        to_read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert!(to_read.write_all_at(b"more", 0).is_err());
        let to_write = open_shared(&path, Access::ReadAndWrite).unwrap();
        to_write.write_all_at(b"more", 0).unwrap();
    }

    #[test]
    fn no_other_path_is_opened() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let shared = shared_path(file.as_file());
        let shared = shared.to_str().unwrap();
        for path in [
            file.path().to_str().unwrap(),
            &format!("{shared}/../../environ"),
            &format!("/proc/./{}", &shared["/proc/".len()..]),
            &format!(".{shared}"),
            "/proc/self/fd/0",
            "/proc/1/fd/",
            "/proc//fd/1",
            "",
        ] {
            let error = open_shared(Path::new(path), Access::Read).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}: {error}");
        }
    }

    /// With nobody who writes to it, opening this pipe to read would never return.
    #[test]
    fn a_pipe_or_a_device_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let pipe = File::options().read(true).custom_flags(flags).open(&path);
        let device = File::open("/dev/null");
        for file in [pipe.unwrap(), device.unwrap(), File::open("/").unwrap()] {
            for access in [Access::Read, Access::ReadAndWrite] {
                let error = open_shared(&shared_path(&file), access).unwrap_err();
                assert!(error.to_string().contains("not a regular file"), "{error}");
            }
        }
    }
}
