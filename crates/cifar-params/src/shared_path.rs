//! How a process lets others open a file that it has open.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// A path at which processes of the same machine and user can open `file`, for as long as this
/// process has it open.
///
/// To another machine, another container or another user the path means nothing, or a file of
/// theirs: whoever opens it has to look whether it is the right one.
#[must_use]
pub fn shared_path(file: &File) -> PathBuf {
    let (process, descriptor) = (std::process::id(), file.as_raw_fd());
    PathBuf::from(format!("/proc/{process}/fd/{descriptor}"))
}
