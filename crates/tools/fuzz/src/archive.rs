//! The archive of a data set.

use std::fs;
use std::path::Path;

use cifar_data::Sha256Digest;
use cifar_data::record::RECORD_BYTES;
use cifar_data::unpack::Unpacking;
use flate2::Crc;

use crate::records::manifest;
use crate::scratch;

/// Files that may come out of an archive, and their lengths at most.
const FILES: [(&str, usize); 4] = [
    ("data_batch_1.bin", RECORD_BYTES),
    ("test_batch.bin", RECORD_BYTES),
    ("batches.meta.txt", 1 << 16),
    ("readme.html", 1 << 16),
];

/// Where the checksum of a tar header stands in it.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Where the size of the entry stands.
const SIZE: std::ops::Range<usize> = 124..136;
/// Headers and contents fill blocks of this length.
const BLOCK_BYTES: usize = 512;

/// An archive, after a byte that says what of it is there: all (0), all but the compression (1), or neither
/// that nor the checksums of the headers (2), so that changed headers are read at all.
///
/// Nothing is ever written but the expected files, at their place, in no more than their size; and nothing is
/// left of an archive that is refused.
pub fn archive(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let archive = match kind % 3 {
        0 => bytes.to_vec(),
        1 => stored(bytes),
        _ => stored(&with_checksums(bytes)),
    };
    let outside = scratch::folder();
    let path = outside.path().join("archive.tar.gz");
    let data_dir = outside.path().join("data");
    fs::create_dir(&data_dir).expect("a folder can be made");
    fs::write(&path, archive).expect("a file can be written");

    let manifest = manifest(|_| Sha256Digest([0; 32]));
    let unpacking = Unpacking::start(&manifest, &path, &data_dir);
    assert_eq!(names_in(outside.path()), ["archive.tar.gz", "data"]);
    let Ok(unpacking) = unpacking else {
        return assert!(names_in(&data_dir).is_empty());
    };
    let folder = unpacking.folder().to_owned();
    assert_eq!(folder.parent(), Some(data_dir.as_path()));
    assert_eq!(names_in(&data_dir).len(), 1);
    for name in names_in(&folder) {
        let most = FILES.iter().find(|(expected, _)| *expected == name);
        let metadata = fs::symlink_metadata(folder.join(&name)).expect("it was listed");
        assert!(metadata.is_file(), "{name}");
        assert!(most.is_some_and(|(_, bytes)| metadata.len() <= *bytes as u64));
    }
    unpacking.publish().expect("nothing is in the way");
    assert_eq!(names_in(&data_dir), [manifest.folder]);
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is a folder");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("a folder can be listed").file_name();
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// A tar file as an archive, by gzip's form for what does not get smaller: a compressor would take most of
/// the time.
fn stored(tar: &[u8]) -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut archive = HEADER.to_vec();
    for block in tar.chunks(usize::from(u16::MAX)) {
        let length = block.len() as u16;
        archive.push(0);
        archive.extend(length.to_le_bytes());
        archive.extend((!length).to_le_bytes());
        archive.extend_from_slice(block);
    }
    let empty_and_last = [1, 0, 0, 0xff, 0xff];
    archive.extend(empty_and_last);
    let mut checksum = Crc::new();
    checksum.update(tar);
    archive.extend(checksum.sum().to_le_bytes());
    archive.extend(checksum.amount().to_le_bytes());
    archive
}

/// The same archive with the checksum of each header as it should be.
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK_BYTES) {
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = String::from_utf8_lossy(&header[SIZE]).into_owned();
        let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at = at
            .saturating_add(BLOCK_BYTES)
            .saturating_add(size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES));
    }
    tar
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn what_is_stored_is_a_whole_archive() {
        for length in [0, 1, 200_000] {
            let tar = vec![7; length];
            let mut again = Vec::new();
            let archive = stored(&tar);
            GzDecoder::new(archive.as_slice())
                .read_to_end(&mut again)
                .unwrap();
            assert_eq!(again, tar);
        }
    }
}
