//! What can go wrong between the published archive and a batch.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use pserver_cli::exit::Exit;
use std::time::Duration;

use crate::digest::Sha256Digest;

/// Why a data set cannot be opened or a batch not be had.
///
/// The cause, where there is one, is the error's source and not repeated in its text.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The set is not there and the caller does not want it downloaded.
    #[error("there is no CIFAR-10 at {folder}, and it is not to be downloaded here")]
    Absent {
        /// Where the six files were looked for.
        folder: PathBuf,
    },
    /// Something that is no folder has the name of one.
    #[error("{path} is no folder; remove it, or give another --data-dir")]
    NoFolder {
        /// What is there.
        path: PathBuf,
    },
    /// A link in place of a folder leads nowhere.
    #[error(
        "{path} is a link to something that is not there; remove it, or give another --data-dir"
    )]
    DanglingLink {
        /// The link.
        path: PathBuf,
    },
    /// The folder is there but one of its files is not.
    #[error("{path} is missing; remove its folder to have the data set downloaded again")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The length of a file is not a whole number of records.
    #[error("{path} ends inside record {record}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Index in the file of the record that is cut off.
        record: usize,
    },
    /// A file holds whole records, but too few or too many.
    #[error("{path} holds {found} records, expected {expected}")]
    NumRecords {
        /// The file.
        path: PathBuf,
        /// Records it should hold.
        expected: usize,
        /// Records it holds.
        found: usize,
    },
    /// A label names no class.
    #[error("record {record} of {path} has label {label}, expected 0..=9")]
    Label {
        /// The file.
        path: PathBuf,
        /// Index of the record in the file.
        record: usize,
        /// The label found.
        label: u8,
    },
    /// A file is of the right form but not the published one.
    #[error("SHA-256 of {path} is {found}, expected {expected}")]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The published digest.
        expected: Sha256Digest,
        /// The digest of what is there.
        found: Sha256Digest,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The disk, or the user's share of it, is full. What was written has been removed.
    #[error(
        "no space left for {path}; archive and unpacked set take 354 MB, free some and try again"
    )]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process is still preparing the set.
    #[error(
        "waited {} s for another process to prepare the data set; it holds {path}",
        waited.as_secs()
    )]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// For how long it was tried.
        waited: Duration,
    },
    /// The archive cannot be fetched.
    #[error("cannot download {url} (attempts: {attempts})")]
    Download {
        /// What was asked for.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// How the last attempt ended.
        #[source]
        source: TransferError,
    },
    /// The server offers a file of another size.
    #[error("{url} has {found} bytes, expected {expected}")]
    ArchiveSize {
        /// What was asked for.
        url: String,
        /// The published size, or the largest that is accepted.
        expected: u64,
        /// What the server announced, or what had come when it became too much.
        found: u64,
    },
    /// The archive is no gzipped tar file, or breaks off.
    #[error("cannot unpack {path}: it is damaged; remove it to have it downloaded again")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// The archive holds something that a data set does not, and might do harm.
    #[error("refused to unpack {path}: its entry {entry:?} {reason}")]
    Entry {
        /// The archive.
        path: PathBuf,
        /// The entry's name in the archive.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive lacks one of the files.
    #[error("{path} does not contain {member}")]
    Member {
        /// The archive.
        path: PathBuf,
        /// What should be in it.
        member: String,
    },
    /// The archive unpacks, but its files are not the expected ones.
    #[error("{path} does not hold the expected data set")]
    Content {
        /// The archive.
        path: PathBuf,
        /// What is wrong with the files.
        #[source]
        source: Box<DataError>,
    },
    /// The thread that prepares batches cannot be started.
    #[error("cannot start the thread that prepares batches")]
    PrefetchStart(#[source] io::Error),
    /// The thread that prepares batches panicked: a bug.
    #[error("the thread that prepares batches panicked: {message}")]
    PrefetchPanic {
        /// What it said.
        message: String,
    },
}

/// How an attempt to download ended. Another attempt may do better.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// No connection, or no answer.
    #[error("no answer")]
    Request(#[source] reqwest::Error),
    /// The server answered, but not with the file.
    #[error("the server answered {status}")]
    Status {
        /// The HTTP status code with its name.
        status: reqwest::StatusCode,
    },
    /// The connection broke.
    #[error("the connection broke after {received} bytes")]
    Broken {
        /// How much of the file is there.
        received: u64,
        /// What the network says.
        #[source]
        source: io::Error,
    },
    /// The server ended its answer early.
    #[error("the server ended after {received} of {expected} bytes")]
    Cut {
        /// How much of the file is there.
        received: u64,
        /// How long it should be.
        expected: u64,
    },
    /// The connection stands but hardly anything comes.
    #[error("only {received} bytes came in {} s", window.as_secs())]
    Stalled {
        /// What came within the window.
        received: u64,
        /// For how long it was watched.
        window: Duration,
    },
}

impl TransferError {
    /// Whether every further attempt would end the same way.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        let TransferError::Request(error) = self else {
            return false;
        };
        error.is_builder() || error.is_redirect() || is_of_certificate(error)
    }

    /// Whether no connection was made at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, TransferError::Request(error) if error.is_connect())
    }
}

/// Whether a server's certificate is the cause.
fn is_of_certificate(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        cause = match error.downcast_ref::<io::Error>() {
            // What it was made of is not its source.
            Some(error) => error.get_ref().map(|held| held as _),
            None => error.source(),
        };
    }
    false
}

impl DataError {
    /// The exit code that it means. [`Exit::TryAgain`]: the set cannot be had now, perhaps later or
    /// from elsewhere.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            DataError::Absent { .. }
            | DataError::Download { .. }
            | DataError::LockTimeout { .. } => Exit::TryAgain,
            DataError::DiskFull { .. } | DataError::Write { .. } | DataError::Read { .. } => {
                Exit::Disk
            }
            DataError::PrefetchStart(_) | DataError::PrefetchPanic { .. } => Exit::Unexpected,
            _ => Exit::Permanent,
        }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        DataError::Read { path, source }
    }

    /// A failed write: a full disk has a variant of its own, because the user can mend it.
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DataError::DiskFull { path, source }
            }
            _ => DataError::Write { path, source },
        }
    }
}
