//! A data set like CIFAR-10 but small, its folder and its archive.

use std::path::Path;

use cifar_data::Sha256Digest;
use cifar_data::manifest::{Manifest, RecordFile};
use cifar_data::record::RECORD_BYTES;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

/// Records in each file of the small set.
pub(crate) const NUM_RECORDS: usize = 4;

/// The bytes of file `index`: labels 0 to 3, and pixels that do not compress to nothing.
pub(crate) fn file_bytes(index: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..(NUM_RECORDS * RECORD_BYTES) as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ index)
        .collect();
    for (label, record) in (0..).zip(bytes.chunks_exact_mut(RECORD_BYTES)) {
        record[0] = label;
    }
    bytes
}

/// Like CIFAR-10, with two training files of four records and a test file of four.
pub(crate) fn manifest() -> Manifest {
    let file = |name: &str, index| RecordFile {
        name: name.to_owned(),
        num_records: NUM_RECORDS,
        sha256: Sha256Digest::of(&file_bytes(index)),
    };
    Manifest {
        train: vec![file("data_batch_1.bin", 1), file("data_batch_2.bin", 2)],
        test: vec![file("test_batch.bin", 3)],
        ..Manifest::cifar10()
    }
}

/// Writes the set's folder as if it had been unpacked.
pub(crate) fn write_folder(data_dir: &Path) {
    let folder = data_dir.join(manifest().folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (index, file) in (1..).zip(manifest().files()) {
        std::fs::write(folder.join(&file.name), file_bytes(index)).unwrap();
    }
}

/// An archive in the making. Names are written as given, also those that `tar` would refuse.
pub(crate) struct ArchiveBuilder(tar::Builder<GzEncoder<Vec<u8>>>);

impl ArchiveBuilder {
    pub(crate) fn empty() -> Self {
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        ArchiveBuilder(tar::Builder::new(gzip))
    }

    /// All of the small set's files but `left_out`, and the authors' note.
    pub(crate) fn without(left_out: &str) -> Self {
        let mut builder = Self::empty();
        builder = builder.entry("cifar-10-batches-bin/", EntryType::Directory, b"");
        builder = builder.file("cifar-10-batches-bin/readme.html", b"<html/>");
        for (index, file) in (1..).zip(manifest().files()) {
            if file.name != left_out {
                let name = format!("cifar-10-batches-bin/{}", file.name);
                builder = builder.file(&name, &file_bytes(index));
            }
        }
        builder
    }

    pub(crate) fn whole() -> Self {
        Self::without("")
    }

    pub(crate) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, bytes)
    }

    pub(crate) fn entry(mut self, name: &str, entry_type: EntryType, bytes: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(entry_type);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if matches!(entry_type, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap().finish().unwrap()
    }
}

/// Names in a folder, sorted.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
