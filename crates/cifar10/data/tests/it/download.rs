//! Does a download end well, or with a reason and nothing half-written?

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cifar_data::download::{self, MIN_STALL_BYTES};
use cifar_data::error::TransferError;
use cifar_data::{DataError, Sha256Digest, Source};
use tempfile::TempDir;

use crate::server::{self, Manner, Server, range_start};
use crate::small_set::names_in;

/// Longer than one read, and long enough for a trickle never to end.
fn body() -> Vec<u8> {
    (0..200_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 5) as u8)
        .collect()
}

/// A server of [`body`] and a source that knows what to expect of it.
fn serve(manners: &[Manner]) -> (Server, Source, TempDir) {
    let server = Server::start(body(), manners);
    let source = Source {
        size_bytes: Some(body().len() as u64),
        sha256: Some(Sha256Digest::of(&body())),
        ..server.source()
    };
    (server, source, tempfile::tempdir().unwrap())
}

fn fetch(source: &Source, dir: &TempDir) -> Result<(), DataError> {
    download::fetch(source, &dir.path().join("a.tar.gz"))
}

/// The whole file is there under its name, and nothing else is.
fn assert_whole(dir: &TempDir) {
    assert_eq!(names_in(dir.path()), ["a.tar.gz"]);
    assert!(std::fs::read(dir.path().join("a.tar.gz")).unwrap() == body());
}

fn transfer_error(result: Result<(), DataError>) -> (u32, TransferError) {
    match result.unwrap_err() {
        DataError::Download {
            attempts, source, ..
        } => (attempts, source),
        other => panic!("not a failed download: {other}"),
    }
}

fn write_part(dir: &TempDir, bytes: &[u8]) {
    std::fs::write(dir.path().join("a.tar.gz.part"), bytes).unwrap();
}

#[test]
fn a_good_server_is_asked_once() {
    let (server, source, dir) = serve(&[Manner::Good]);
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
    fetch(&source, &dir).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let (server, source, dir) = serve(&[Manner::CutsAfter(120_000), Manner::Good]);
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
    let starts: Vec<_> = server.requests().iter().map(|r| range_start(r)).collect();
    assert_eq!(starts[0], None);
    assert!(
        starts[1].is_some_and(|start| start > 0 && start <= 120_000),
        "{starts:?}"
    );
}

#[test]
fn a_later_process_goes_on_where_an_earlier_one_was_cut() {
    let (server, source, dir) = serve(&[Manner::Good]);
    write_part(&dir, &body()[..70_000]);
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
    assert_eq!(range_start(&server.requests()[0]), Some(70_000));
}

#[test]
fn a_part_that_is_complete_needs_no_request() {
    let (server, source, dir) = serve(&[Manner::Good]);
    write_part(&dir, &body());
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let (_server, source, dir) = serve(&[Manner::CutsAfter(120_000), Manner::IgnoresRange]);
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
}

#[test]
fn a_part_of_another_file_is_replaced() {
    let (server, source, dir) = serve(&[Manner::Good]);
    write_part(&dir, &[7; 70_000]);
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_part_longer_than_the_file_is_replaced() {
    let (_server, source, dir) = serve(&[Manner::Good]);
    write_part(&dir, &[7; 300_000]);
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
}

#[test]
fn a_server_error_is_tried_again() {
    let (_server, source, dir) = serve(&[Manner::Status(503), Manner::Good]);
    fetch(&source, &dir).unwrap();
    assert_whole(&dir);
}

#[test]
fn a_file_that_is_not_there_is_not_tried_again() {
    let (server, source, dir) = serve(&[Manner::Status(404)]);
    let (attempts, error) = transfer_error(fetch(&source, &dir));
    assert_eq!((attempts, server.requests().len()), (1, 1));
    assert_eq!(error.to_string(), "the server answered 404 Not Found");
}

#[test]
fn a_server_that_always_cuts_is_given_up_and_what_came_is_kept() {
    let (server, source, dir) = serve(&[Manner::CutsAfter(1000)]);
    let (attempts, error) = transfer_error(fetch(&source, &dir));
    assert_eq!((attempts, server.requests().len()), (3, 3));
    assert!(matches!(error, TransferError::Broken { .. }), "{error}");
    assert_eq!(names_in(dir.path()), ["a.tar.gz.part"]);
}

#[test]
fn a_silent_server_is_given_up() {
    let (_server, mut source, dir) = serve(&[Manner::SilentAfter(1000)]);
    source.patience.read = Duration::from_millis(100);
    let (_, error) = transfer_error(fetch(&source, &dir));
    assert!(matches!(error, TransferError::Broken { .. }), "{error}");
}

#[test]
fn a_trickling_server_is_given_up() {
    let (_server, mut source, dir) = serve(&[Manner::Trickles]);
    source.patience.stall = Duration::from_millis(100);
    let (_, error) = transfer_error(fetch(&source, &dir));
    let TransferError::Stalled { received, .. } = error else {
        panic!("{error}");
    };
    assert!(received < MIN_STALL_BYTES);
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let (_server, source, dir) = serve(&[Manner::Good]);
    // Bound and dropped: nobody listens on this port.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let (attempts, error) = transfer_error(fetch(&Source { url, ..source }, &dir));
    assert_eq!(attempts, 3);
    assert!(matches!(error, TransferError::Request(_)), "{error}");
}

#[test]
fn an_address_that_is_none_is_an_error() {
    let (_server, source, dir) = serve(&[Manner::Good]);
    let url = "not an address".to_owned();
    let (_, error) = transfer_error(fetch(&Source { url, ..source }, &dir));
    assert!(matches!(error, TransferError::Request(_)), "{error}");
}

#[test]
fn a_scheme_that_cannot_be_downloaded_is_not_tried_again() {
    let (_server, source, dir) = serve(&[Manner::Good]);
    let url = "file:///x".to_owned();
    let (attempts, error) = transfer_error(fetch(&Source { url, ..source }, &dir));
    assert_eq!(attempts, 1, "{error}");
}

#[test]
fn a_server_whose_certificate_is_refused_is_not_asked_again() {
    let (_server, source, dir) = serve(&[Manner::Good]);
    let (url, connections) = server::with_own_certificate();
    let (attempts, error) = transfer_error(fetch(&Source { url, ..source }, &dir));
    assert_eq!(attempts, 1, "{error:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_folder_in_place_of_the_archive_is_named_before_anything_is_fetched() {
    let (server, source, dir) = serve(&[Manner::Good]);
    std::fs::create_dir(dir.path().join("a.tar.gz")).unwrap();
    let error = fetch(&source, &dir).unwrap_err();
    assert!(error.to_string().ends_with("a.tar.gz"), "{error}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_file_of_another_size_is_refused_before_it_is_fetched() {
    let (_server, source, dir) = serve(&[Manner::Good]);
    let size_bytes = Some(200_001);
    let error = fetch(
        &Source {
            size_bytes,
            ..source
        },
        &dir,
    )
    .unwrap_err();
    let sizes = "has 200000 bytes, expected 200001";
    assert!(error.to_string().ends_with(sizes), "{error}");
    assert!(names_in(dir.path()).is_empty());
}

#[test]
fn a_file_of_another_digest_is_refused_and_removed() {
    let (server, source, dir) = serve(&[Manner::Good]);
    let sha256 = Some(Sha256Digest::of(b"another file"));
    let error = fetch(&Source { sha256, ..source }, &dir).unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }), "{error}");
    assert!(names_in(dir.path()).is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_nothing_is_left() {
    if !Path::new("/dev/full").exists() {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    let (server, source, dir) = serve(&[Manner::Good]);
    std::os::unix::fs::symlink("/dev/full", dir.path().join("a.tar.gz.part")).unwrap();
    let error = fetch(&source, &dir).unwrap_err();
    assert!(matches!(error, DataError::DiskFull { .. }), "{error}");
    assert!(
        error.to_string().contains("free some and try again"),
        "{error}"
    );
    assert!(names_in(dir.path()).is_empty());
    assert_eq!(server.requests().len(), 1);
}
