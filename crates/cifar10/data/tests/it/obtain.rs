//! Is a set in its folder whole and right, or refused with a reason?

use std::error::Error;
use std::path::Path;
use std::thread;

use cifar_data::obtain::obtain;
use cifar_data::verify::Splits;
use cifar_data::{DataError, Sha256Digest, Source, WhenAbsent};
use tar::EntryType;
use tempfile::TempDir;

use crate::server::{Manner, Server};
use crate::small_set::{ArchiveBuilder, NUM_RECORDS, file_bytes, manifest, names_in, write_folder};

const FOLDER: &str = "cifar-10-batches-bin";

/// Downloads and unpacks `archive` into an empty folder.
fn obtain_from(archive: Vec<u8>) -> (Result<Splits, DataError>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(archive, &[Manner::Good]);
    let when_absent = WhenAbsent::Download(server.source());
    (obtain(&manifest(), dir.path(), &when_absent), dir)
}

/// The archive is refused for this, and neither it nor anything from it is left.
fn assert_refused(archive: Vec<u8>, expected: &str) {
    let (result, dir) = obtain_from(archive);
    let error = result.unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(names_in(dir.path()), [format!(".{FOLDER}.lock")]);
}

/// Opens the set after `damage` was done to its folder.
fn obtain_damaged(damage: impl Fn(&Path)) -> DataError {
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path());
    obtain(&manifest(), dir.path(), &WhenAbsent::Fail).unwrap();
    damage(&dir.path().join(FOLDER));
    obtain(&manifest(), dir.path(), &WhenAbsent::Fail).unwrap_err()
}

#[test]
fn a_good_archive_becomes_a_folder_and_records() {
    let (splits, dir) = obtain_from(ArchiveBuilder::whole().finish());
    let splits = splits.unwrap();
    assert_eq!(splits.train.len(), 2 * NUM_RECORDS);
    assert_eq!(splits.test.get(3).label(), 3);
    let names = names_in(&dir.path().join(FOLDER));
    let expected = [
        "data_batch_1.bin",
        "data_batch_2.bin",
        "readme.html",
        "test_batch.bin",
    ];
    assert_eq!(names, expected);
    // The next one to open it needs no network.
    obtain(&manifest(), dir.path(), &WhenAbsent::Fail).unwrap();
}

#[test]
fn names_may_begin_with_a_dot_and_other_files_are_passed_over() {
    let mut builder = ArchiveBuilder::empty().file("cifar-10-batches-bin/extra.sh", b"rm -rf /");
    for (index, file) in (1..).zip(manifest().files()) {
        builder = builder.file(&format!("./{FOLDER}/{}", file.name), &file_bytes(index));
    }
    let (splits, dir) = obtain_from(builder.finish());
    splits.unwrap();
    assert_eq!(names_in(&dir.path().join(FOLDER)).len(), 3);
}

#[test]
fn entries_that_lead_out_of_the_folder_are_refused() {
    let archive = |name| ArchiveBuilder::whole().file(name, b"x").finish();
    assert_refused(
        archive("../outside"),
        r#"its entry "../outside" leads out of its folder"#,
    );
    assert_refused(
        archive("/outside"),
        r#"its entry "/outside" has an absolute path"#,
    );
    let hidden = format!("{FOLDER}/../../data_batch_1.bin");
    assert_refused(archive(&hidden), "leads out of its folder");
}

#[test]
fn links_and_devices_are_refused() {
    let archive = |entry_type| {
        let name = format!("{FOLDER}/test_batch.bin");
        ArchiveBuilder::without("test_batch.bin")
            .entry(&name, entry_type, b"")
            .finish()
    };
    assert_refused(archive(EntryType::Symlink), "is a symbolic link");
    assert_refused(archive(EntryType::Link), "is a hard link");
    assert_refused(archive(EntryType::Char), "is neither a file nor a folder");
}

#[test]
fn files_of_another_size_are_refused() {
    let name = format!("{FOLDER}/test_batch.bin");
    let archive = ArchiveBuilder::without("test_batch.bin")
        .file(&name, b"short")
        .finish();
    assert_refused(archive, "is not of the expected size");
    let name = format!("{FOLDER}/batches.meta.txt");
    let archive = ArchiveBuilder::whole()
        .file(&name, &[b'a'; 70_000])
        .finish();
    assert_refused(archive, "is not of the expected size");
}

#[test]
fn a_file_that_comes_twice_is_refused() {
    let name = format!("{FOLDER}/test_batch.bin");
    let archive = ArchiveBuilder::whole().file(&name, &file_bytes(3)).finish();
    assert_refused(archive, "is there twice");
}

#[test]
fn an_archive_that_lacks_a_file_is_refused() {
    let archive = ArchiveBuilder::without("data_batch_2.bin").finish();
    assert_refused(
        archive,
        "does not contain cifar-10-batches-bin/data_batch_2.bin",
    );
}

#[test]
fn a_damaged_archive_is_refused() {
    let whole = ArchiveBuilder::whole().finish();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    assert_refused(flipped, "");
    let mut checksum = whole.clone();
    checksum[whole.len() - 6] ^= 1;
    assert_refused(checksum, "it is damaged");
    assert_refused(whole[..whole.len() / 2].to_vec(), "it is damaged");
    assert_refused(
        b"<html>sign in to the hotel's network</html>".to_vec(),
        "it is damaged",
    );
    assert_refused(Vec::new(), "");
}

#[test]
fn an_archive_that_unpacks_for_ever_is_refused() {
    let archive = ArchiveBuilder::whole()
        .file("zeros", &vec![0; 3 << 20])
        .finish();
    assert!(archive.len() < 100_000, "{}", archive.len());
    assert_refused(archive, "it is damaged");
}

/// However long they are: they would be held in memory, as much of them as a whole set may have.
#[test]
fn names_that_come_as_entries_of_their_own_are_refused_and_attributes_passed_over() {
    let archive = |entry_type| {
        let whole = ArchiveBuilder::empty().entry("long", entry_type, &[b'a'; 9000]);
        (1..)
            .zip(manifest().files())
            .fold(whole, |archive, (index, file)| {
                archive.file(&format!("{FOLDER}/{}", file.name), &file_bytes(index))
            })
            .finish()
    };
    assert_refused(
        archive(EntryType::GNULongName),
        "is neither a file nor a folder",
    );
    assert_refused(
        archive(EntryType::GNULongLink),
        "is neither a file nor a folder",
    );
    obtain_from(archive(EntryType::XHeader)).0.unwrap();
}

#[test]
fn an_archive_of_other_records_is_refused() {
    let name = format!("{FOLDER}/test_batch.bin");
    let archive = ArchiveBuilder::without("test_batch.bin")
        .file(&name, &file_bytes(9))
        .finish();
    let (result, dir) = obtain_from(archive);
    let error = result.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("does not hold the expected data set"),
        "{error}"
    );
    let cause = error.source().unwrap().to_string();
    assert!(
        cause.contains("SHA-256 of") && cause.contains("test_batch.bin"),
        "{cause}"
    );
    assert_eq!(names_in(dir.path()), [format!(".{FOLDER}.lock")]);
}

#[test]
fn an_archive_with_the_published_digest_is_kept() {
    let archive = ArchiveBuilder::whole().finish();
    let server = Server::start(archive.clone(), &[Manner::Good]);
    let source = Source {
        sha256: Some(Sha256Digest::of(&archive)),
        ..server.source()
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cifar-10-binary.tar.gz"), &archive).unwrap();
    obtain(&manifest(), dir.path(), &WhenAbsent::Download(source)).unwrap();
    assert!(server.requests().is_empty());
    assert!(dir.path().join("cifar-10-binary.tar.gz").exists());
}

#[test]
fn what_a_killed_process_left_is_not_in_the_way() {
    let server = Server::start(ArchiveBuilder::whole().finish(), &[Manner::Good]);
    let dir = tempfile::tempdir().unwrap();
    let leftover = dir.path().join(format!(".{FOLDER}.unpacking"));
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("test_batch.bin"), b"half").unwrap();
    let when_absent = WhenAbsent::Download(server.source());
    obtain(&manifest(), dir.path(), &when_absent).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn of_many_openers_one_downloads() {
    let server = Server::start(ArchiveBuilder::whole().finish(), &[Manner::Good]);
    let dir = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let when_absent = WhenAbsent::Download(server.source());
                let splits = obtain(&manifest(), dir.path(), &when_absent).unwrap();
                assert_eq!(splits.train.len(), 2 * NUM_RECORDS);
            });
        }
    });
    assert_eq!(server.requests().len(), 1);
}

/// A server that has the set, and an empty folder.
fn server_and_folder() -> (Server, TempDir) {
    let server = Server::start(ArchiveBuilder::whole().finish(), &[Manner::Good]);
    (server, tempfile::tempdir().unwrap())
}

#[test]
fn the_sets_own_folder_may_be_given() {
    let (server, dir) = server_and_folder();
    let (own, moved) = (dir.path().join(FOLDER), dir.path().join("elsewhere"));
    let open = |data_dir: &Path| {
        let when_absent = WhenAbsent::Download(server.source());
        obtain(&manifest(), data_dir, &when_absent).unwrap();
    };
    // First it is not there; then it is; then it is there under another name.
    open(&own);
    open(&own);
    std::fs::rename(&own, &moved).unwrap();
    open(&moved);
    assert_eq!(server.requests().len(), 1);
    assert!(!names_in(&moved).contains(&FOLDER.to_owned()));
    assert_eq!(names_in(dir.path()).last(), Some(&"elsewhere".to_owned()));
}

/// Opens the set in `data_dir`, below a folder that `prepare` has prepared, and is told why that cannot be, before
/// anything is downloaded.
fn assert_in_the_way(data_dir: &str, prepare: impl Fn(&Path), expected: &str) {
    let (server, dir) = server_and_folder();
    prepare(dir.path());
    let before = names_in(dir.path());
    let when_absent = WhenAbsent::Download(server.source());
    let error = obtain(&manifest(), &dir.path().join(data_dir), &when_absent).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert!(server.requests().is_empty());
    assert_eq!(names_in(dir.path()), before);
}

#[test]
fn a_link_that_leads_nowhere_is_named_before_anything_is_downloaded() {
    let link = |name: &'static str| {
        move |dir: &Path| std::os::unix::fs::symlink("/nowhere/at/all", dir.join(name)).unwrap()
    };
    let expected = "is a link to something that is not there";
    assert_in_the_way(".", link(FOLDER), expected);
    assert_in_the_way("data", link("data"), expected);
    assert_in_the_way("data/of/mine", link("data"), "/data is a link");
}

#[test]
fn a_file_in_place_of_a_folder_is_named_before_anything_is_downloaded() {
    let file = |name: &'static str| move |dir: &Path| std::fs::write(dir.join(name), b"").unwrap();
    assert_in_the_way(".", file(FOLDER), "is no folder");
    assert_in_the_way("data", file("data"), "is no folder");
    assert_in_the_way("data/of/mine", file("data"), "cannot read");
}

#[test]
fn an_absent_set_is_not_downloaded_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let error = obtain(&manifest(), dir.path(), &WhenAbsent::Fail).unwrap_err();
    assert!(matches!(error, DataError::Absent { .. }), "{error}");
    assert!(names_in(dir.path()).is_empty());
}

#[test]
fn a_missing_file_is_named() {
    let error = obtain_damaged(|folder| {
        std::fs::remove_file(folder.join("data_batch_2.bin")).unwrap();
    });
    assert!(
        error.to_string().contains("data_batch_2.bin is missing"),
        "{error}"
    );
}

#[test]
fn a_truncated_file_is_named_with_the_record_it_ends_in() {
    let error = obtain_damaged(|folder| {
        std::fs::write(folder.join("data_batch_2.bin"), &file_bytes(2)[..7000]).unwrap();
    });
    assert!(
        error
            .to_string()
            .ends_with("data_batch_2.bin ends inside record 2"),
        "{error}"
    );
}

#[test]
fn a_file_of_too_few_records_is_named() {
    let error = obtain_damaged(|folder| {
        std::fs::write(folder.join("test_batch.bin"), &file_bytes(3)[..3073]).unwrap();
    });
    assert!(
        error
            .to_string()
            .ends_with("test_batch.bin holds 1 records, expected 4"),
        "{error}"
    );
}

#[test]
fn a_label_that_is_no_class_is_named_with_its_record() {
    let error = obtain_damaged(|folder| {
        let mut bytes = file_bytes(1);
        bytes[3 * 3073] = 17;
        std::fs::write(folder.join("data_batch_1.bin"), bytes).unwrap();
    });
    let text = error.to_string();
    assert!(
        text.starts_with("record 3 of") && text.ends_with("has label 17, expected 0..=9"),
        "{text}"
    );
}

#[test]
fn a_changed_pixel_is_found_by_the_digest() {
    let error = obtain_damaged(|folder| {
        let mut bytes = file_bytes(1);
        bytes[5000] ^= 1;
        std::fs::write(folder.join("data_batch_1.bin"), bytes).unwrap();
    });
    assert!(
        error
            .to_string()
            .contains(&Sha256Digest::of(&file_bytes(1)).to_string()),
        "{error}"
    );
}
