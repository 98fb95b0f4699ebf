//! What a published set consists of: the files, how many records each holds, their digests.

use pserver_run::data_set::CIFAR10_FILES;

use crate::digest::Sha256Digest;
use crate::record::RECORD_BYTES;

/// Records in each file of CIFAR-10.
const CIFAR10_RECORDS_PER_FILE: usize = 10_000;

/// One file of records.
#[derive(Clone, Debug)]
pub struct RecordFile {
    /// Its name in the set's folder.
    pub name: String,
    /// Records it holds.
    pub num_records: usize,
    /// Digest of its bytes.
    pub sha256: Sha256Digest,
}

impl RecordFile {
    /// Its length.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        (self.num_records * RECORD_BYTES) as u64
    }
}

/// A set of record files in one folder, and the archive it comes in.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The archive's name beside the folder.
    pub archive: &'static str,
    /// The folder's name, on disk and in the archive.
    pub folder: &'static str,
    /// Training files, in the order of their records.
    pub train: Vec<RecordFile>,
    /// Test files, in the order of their records.
    pub test: Vec<RecordFile>,
}

impl Manifest {
    /// CIFAR-10, binary version: five training files and one for testing, 10,000 records each.
    ///
    /// # Panics
    ///
    /// Never: the digests are constants, and a test parses them.
    #[must_use]
    pub fn cifar10() -> Self {
        let mut train: Vec<RecordFile> = CIFAR10_FILES
            .iter()
            .map(|(name, sha256)| RecordFile {
                name: (*name).to_owned(),
                num_records: CIFAR10_RECORDS_PER_FILE,
                sha256: sha256.parse().expect("the table holds SHA-256 digests"),
            })
            .collect();
        let test = train.split_off(CIFAR10_FILES.len() - 1);
        Manifest {
            archive: "cifar-10-binary.tar.gz",
            folder: "cifar-10-batches-bin",
            train,
            test,
        }
    }

    /// All files, training first.
    pub fn files(&self) -> impl Iterator<Item = &RecordFile> {
        self.train.iter().chain(&self.test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cifar10_is_five_training_files_and_one_for_testing() {
        let manifest = Manifest::cifar10();
        assert_eq!(manifest.train.len(), 5);
        assert_eq!(manifest.test[0].name, "test_batch.bin");
        assert!(manifest.files().all(|file| file.size_bytes() == 30_730_000));
    }
}
