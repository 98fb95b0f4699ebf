//! Reading a set from its folder and checking every byte of it.
//!
//! The checks run from the most telling to the least: a file that is cut off or has a wrong label
//! has a wrong digest too, but the digest alone would not say where to look.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::digest::Sha256Digest;
use crate::error::DataError;
use crate::manifest::{Manifest, RecordFile};
use crate::record::{self, Malformed, RECORD_BYTES, Records};

/// The training and the test records of a set.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Training records, in file order.
    pub train: Records,
    /// Test records, in file order.
    pub test: Records,
}

/// Reads all files of `manifest` from `folder`.
///
/// # Errors
///
/// [`DataError::Missing`], [`DataError::Truncated`], [`DataError::NumRecords`],
/// [`DataError::Label`], [`DataError::Checksum`] or [`DataError::Read`], in this order, for the
/// first file that is not what `manifest` says.
pub fn read(manifest: &Manifest, folder: &Path) -> Result<Splits, DataError> {
    Ok(Splits {
        train: read_files(&manifest.train, folder)?,
        test: read_files(&manifest.test, folder)?,
    })
}

fn read_files(files: &[RecordFile], folder: &Path) -> Result<Records, DataError> {
    let num_records: usize = files.iter().map(|file| file.num_records).sum();
    let mut bytes = Vec::with_capacity(num_records * RECORD_BYTES);
    for file in files {
        let start = bytes.len();
        let path = folder.join(&file.name);
        append(file, &path, &mut bytes)?;
        check(file, &path, &bytes[start..])?;
    }
    Records::new(bytes).map_err(|malformed| describe(malformed, folder))
}

/// Appends the file to `bytes`, unless its length already says that it is the wrong one: nothing
/// is read into memory that does not belong there.
fn append(file: &RecordFile, path: &Path, bytes: &mut Vec<u8>) -> Result<(), DataError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = path.to_owned();
            return Err(DataError::Missing { path });
        }
        Err(error) => return Err(DataError::read(path, error)),
    };
    check_length(file, path, length)?;
    File::open(path)
        .and_then(|opened| opened.take(file.size_bytes()).read_to_end(bytes))
        .map_err(|error| DataError::read(path, error))?;
    Ok(())
}

fn check_length(file: &RecordFile, path: &Path, length: u64) -> Result<(), DataError> {
    let found = (length / RECORD_BYTES as u64) as usize;
    if !length.is_multiple_of(RECORD_BYTES as u64) {
        return Err(describe(Malformed::Truncated { record: found }, path));
    }
    if found != file.num_records {
        return Err(DataError::NumRecords {
            path: path.to_owned(),
            expected: file.num_records,
            found,
        });
    }
    Ok(())
}

fn check(file: &RecordFile, path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    record::check(bytes).map_err(|malformed| describe(malformed, path))?;
    let found = Sha256Digest::of(bytes);
    if found != file.sha256 {
        return Err(DataError::Checksum {
            path: path.to_owned(),
            expected: file.sha256,
            found,
        });
    }
    Ok(())
}

fn describe(malformed: Malformed, path: &Path) -> DataError {
    let path = path.to_owned();
    match malformed {
        Malformed::Truncated { record } => DataError::Truncated { path, record },
        Malformed::Label { record, label } => DataError::Label {
            path,
            record,
            label,
        },
    }
}
