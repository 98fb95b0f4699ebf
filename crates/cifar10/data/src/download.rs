//! Fetching the archive: to the end, or with a reason.
//!
//! The bytes go to `NAME.part` beside the final name. What is there when a connection breaks is
//! kept, and the next attempt, in this process or a later one, asks for the rest. Size and digest
//! are checked before the file gets its name, so that a file of that name is whole.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{StatusCode, Url};

use crate::digest::Sha256Digest;
use crate::error::{DataError, TransferError};
use crate::progress::Progress;

/// Where the authors of CIFAR-10 publish it.
pub const CIFAR10_URL: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
/// Length of that file.
pub const CIFAR10_ARCHIVE_BYTES: u64 = 170_052_171;
/// SHA-256 of that file.
pub const CIFAR10_ARCHIVE_SHA256: &str =
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";

/// Largest archive accepted from a mirror, whose size is not known beforehand: three times what
/// CIFAR-10 has unpacked. A wrong address must not fill the disk.
pub const MAX_ARCHIVE_BYTES: u64 = 3 * 184_380_000;

/// A connection that brings less than this in [`Patience::stall`] is as good as dead: at 64 KiB a
/// minute the archive would take two days.
pub const MIN_STALL_BYTES: u64 = 1 << 16;

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// From where to fetch the archive, and what it should be.
#[derive(Clone, Debug)]
pub struct Source {
    /// An `http` or `https` address.
    pub url: String,
    /// Its length, where that is known.
    pub size_bytes: Option<u64>,
    /// Its digest. Without one the archive is not checked, only the files in it, which always are.
    pub sha256: Option<Sha256Digest>,
    /// How long to wait for what.
    pub patience: Patience,
}

impl Source {
    /// The authors' own page.
    ///
    /// # Panics
    ///
    /// Never: the digest is a constant, and a test parses it.
    #[must_use]
    pub fn cifar10() -> Self {
        let sha256 = CIFAR10_ARCHIVE_SHA256.parse();
        Source {
            url: CIFAR10_URL.to_owned(),
            size_bytes: Some(CIFAR10_ARCHIVE_BYTES),
            sha256: Some(sha256.expect("the constant is a SHA-256 digest")),
            patience: Patience::default(),
        }
    }

    /// Another place that has the same six files, perhaps packed differently.
    #[must_use]
    pub fn mirror(url: impl Into<String>, sha256: Option<Sha256Digest>) -> Self {
        Source {
            url: url.into(),
            size_bytes: None,
            sha256,
            patience: Patience::default(),
        }
    }
}

/// How long to wait before giving up. No wait in this crate is without an end.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the beginning of an answer, and for each next piece of it.
    pub read: Duration,
    /// For [`MIN_STALL_BYTES`] to come.
    pub stall: Duration,
    /// How often to try, the first time included.
    pub attempts: u32,
    /// Between the first two attempts; doubles with each, up to half a minute.
    pub pause: Duration,
    /// For another process that is preparing the same folder.
    pub lock: Duration,
}

impl Default for Patience {
    /// For a home connection: an hour for the whole, where another process fetches it.
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            attempts: 8,
            pause: Duration::from_secs(1),
            lock: Duration::from_secs(3600),
        }
    }
}

/// Has the archive of `source` at `path`, by downloading it unless it is there already.
///
/// The caller sees to it that no other process does the same. Blocks; not to be called from an
/// async task.
///
/// # Errors
///
/// [`DataError::Download`] when the attempts are used up or would all end the same way;
/// [`DataError::ArchiveSize`] or [`DataError::Checksum`] if it has another file, of which nothing
/// is kept; [`DataError::DiskFull`], of which nothing is kept either; [`DataError::Write`] and
/// [`DataError::Read`].
pub fn fetch(source: &Source, path: &Path) -> Result<(), DataError> {
    if path.is_dir() {
        return Err(DataError::write(path, io::ErrorKind::IsADirectory.into()));
    }
    if path.exists() && check_archive(source, path).is_ok() {
        return Ok(());
    }
    let part = part_of(path);
    let resumes = length_of(&part)? > 0;
    let mut fetched = fetch_part(source, path, &part);
    if resumes && matches!(fetched, Err(DataError::Checksum { .. })) {
        // The first bytes, from an earlier process, may be of another file.
        fetched = fetch_part(source, path, &part);
    }
    fetched?;
    fs::rename(&part, path).map_err(|error| DataError::write(path, error))
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Completes `part` and checks it. It is removed unless it is right, or of use to a later attempt.
fn fetch_part(source: &Source, path: &Path, part: &Path) -> Result<(), DataError> {
    let result = transfer(source, path, part).and_then(|()| check_archive(source, part));
    match result {
        Ok(()) | Err(DataError::Download { .. }) => result,
        Err(_) => {
            remove(part)?;
            result
        }
    }
}

/// Whether the archive at `path` is the one that `source` names.
fn check_archive(source: &Source, path: &Path) -> Result<(), DataError> {
    let found = length_of(path)?;
    if let Some(expected) = source.size_bytes.filter(|expected| *expected != found) {
        return Err(archive_size(source, expected, found));
    }
    let Some(expected) = source.sha256 else {
        return Ok(());
    };
    let found = Sha256Digest::of_file(path).map_err(|error| DataError::read(path, error))?;
    if found != expected {
        return Err(DataError::Checksum {
            path: path.to_owned(),
            expected,
            found,
        });
    }
    Ok(())
}

fn archive_size(source: &Source, expected: u64, found: u64) -> DataError {
    DataError::ArchiveSize {
        url: source.url.clone(),
        expected,
        found,
    }
}

/// The length of a file, 0 if there is none.
fn length_of(path: &Path) -> Result<u64, DataError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(DataError::read(path, error)),
    }
}

fn remove(path: &Path) -> Result<(), DataError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DataError::write(path, error)),
        _ => Ok(()),
    }
}

/// How an attempt failed.
enum Failure {
    /// Another attempt may succeed.
    Transient(TransferError),
    /// The same would happen again.
    Refused(TransferError),
    /// The trouble is not the network.
    Local(DataError),
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Failure::Local(error)
    }
}

/// Attempts in a row that reach nobody before there is no use in more: somebody who works without a
/// network should not wait minutes to be told.
const MAX_UNREACHABLE: u32 = 3;

/// Fetches what `part` lacks, in as many attempts as `source` allows.
fn transfer(source: &Source, path: &Path, part: &Path) -> Result<(), DataError> {
    let gave_up = |attempts, cause| DataError::Download {
        url: source.url.clone(),
        attempts,
        source: cause,
    };
    let client = client(source).map_err(|error| gave_up(0, TransferError::Request(error)))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut progress = Progress::new(&name);
    let (mut attempts, mut unreachable) = (0, 0);
    loop {
        let failure = match attempt(&client, source, part, &mut progress) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        attempts += 1;
        match failure {
            Failure::Local(error) => return Err(error),
            Failure::Refused(cause) => return Err(gave_up(attempts, cause)),
            Failure::Transient(cause) => {
                unreachable = if cause.is_unreachable() {
                    unreachable + 1
                } else {
                    0
                };
                if attempts >= source.patience.attempts || unreachable >= MAX_UNREACHABLE {
                    return Err(gave_up(attempts, cause));
                }
                let pause = pause_after(attempts, source.patience.pause);
                tracing::warn!(
                    url = %source.url,
                    attempt = attempts,
                    error = %cause,
                    pause_secs = pause.as_secs_f32(),
                    "download is interrupted"
                );
                thread::sleep(pause);
            }
        }
    }
}

/// Twice as long each time, and up to half as much again by chance: machines that were cut off
/// together should not come back together.
fn pause_after(attempts: u32, first: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << (attempts - 1).min(10));
    let pause = doubled.min(MAX_PAUSE);
    let chance = RandomState::new().build_hasher().finish() as u32;
    pause + pause.mul_f64(0.5 * f64::from(chance) / f64::from(u32::MAX))
}

fn client(source: &Source) -> reqwest::Result<Client> {
    // Another part of the program may have chosen one before; then that one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .connect_timeout(source.patience.connect)
        // Of the blocking client this is for each wait, not for the whole download.
        .timeout(source.patience.read);
    if is_loopback(&source.url) {
        // A proxy is another machine, or another's view of this one.
        builder = builder.no_proxy();
    }
    builder.build()
}

fn is_loopback(url: &str) -> bool {
    Url::parse(url)
        .is_ok_and(|url| matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")))
}

/// One request: appends to `part` what the server sends.
fn attempt(
    client: &Client,
    source: &Source,
    part: &Path,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let mut have = length_of(part)?;
    if have > 0 && source.size_bytes == Some(have) {
        return Ok(());
    }
    let answer = request(client, source, have)?;
    match answer.status() {
        StatusCode::PARTIAL_CONTENT if content_range(&answer).start == Some(have) => {}
        StatusCode::OK if have == 0 => {}
        StatusCode::OK => {
            // The server sends the file from its beginning, whatever it was asked for.
            remove(part)?;
            have = 0;
        }
        status @ (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) => {
            // What is there does not fit to what the server has; the next attempt starts anew.
            remove(part)?;
            return Err(Failure::Transient(TransferError::Status { status }));
        }
        status if is_passing(status) => {
            return Err(Failure::Transient(TransferError::Status { status }));
        }
        status => return Err(Failure::Refused(TransferError::Status { status })),
    }
    receive(answer, source, part, have, progress)
}

fn request(client: &Client, source: &Source, have: u64) -> Result<Response, Failure> {
    // A server that compresses on the way would make offsets meaningless.
    let mut request = client.get(&source.url).header(ACCEPT_ENCODING, "identity");
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let answer = request.send().map_err(TransferError::Request);
    answer.map_err(|cause| match cause.is_permanent() {
        true => Failure::Refused(cause),
        false => Failure::Transient(cause),
    })
}

/// Whether the server may think better of it.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
}

/// First byte and length of the whole file, as far as a partial answer tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct ContentRange {
    start: Option<u64>,
    total: Option<u64>,
}

fn content_range(answer: &Response) -> ContentRange {
    answer
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .map(parse_content_range)
        .unwrap_or_default()
}

/// Reads `bytes START-END/TOTAL` (RFC 9110, section 14.4).
fn parse_content_range(value: &str) -> ContentRange {
    let Some((range, total)) = value
        .strip_prefix("bytes ")
        .and_then(|value| value.split_once('/'))
    else {
        return ContentRange::default();
    };
    ContentRange {
        start: range
            .split_once('-')
            .and_then(|(start, _)| start.parse().ok()),
        total: total.parse().ok(),
    }
}

/// Writes the body of `answer` behind the `have` bytes of `part`, and makes it durable.
fn receive(
    mut answer: Response,
    source: &Source,
    part: &Path,
    have: u64,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let total = announced_total(&answer).or(source.size_bytes);
    let limit = source.size_bytes.unwrap_or(MAX_ARCHIVE_BYTES);
    check_total(source, total, limit)?;
    let disk = |error| DataError::write(part, error);
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(part)
        .map_err(disk)?;
    let mut received = have;
    progress.begin(have);
    let mut stall = StallWatch::new(source.patience.stall);
    let mut buffer = vec![0; 1 << 16];
    loop {
        progress.set(received, total);
        let length = answer
            .read(&mut buffer)
            .map_err(|source| Failure::Transient(TransferError::Broken { received, source }))?;
        if length == 0 {
            break;
        }
        received += length as u64;
        if received > limit {
            return Err(archive_size(source, limit, received).into());
        }
        file.write_all(&buffer[..length]).map_err(disk)?;
        stall.received(length as u64).map_err(Failure::Transient)?;
    }
    file.sync_all().map_err(disk)?;
    match total {
        Some(expected) if received < expected => Err(Failure::Transient(TransferError::Cut {
            received,
            expected,
        })),
        _ => Ok(()),
    }
}

/// The length of the whole file, if the server tells.
fn announced_total(answer: &Response) -> Option<u64> {
    match answer.status() {
        StatusCode::PARTIAL_CONTENT => content_range(answer).total,
        _ => answer.content_length(),
    }
}

/// Refuses a file of the wrong size before a byte of it is fetched.
fn check_total(source: &Source, total: Option<u64>, limit: u64) -> Result<(), DataError> {
    match (total, source.size_bytes) {
        (Some(found), Some(expected)) if found != expected => {
            Err(archive_size(source, expected, found))
        }
        (Some(found), None) if found > limit => Err(archive_size(source, limit, found)),
        _ => Ok(()),
    }
}

/// Notices a connection that trickles: each piece comes in time, the whole never would.
struct StallWatch {
    window: Duration,
    start: Instant,
    received: u64,
}

impl StallWatch {
    #[expect(clippy::disallowed_methods, reason = "gives up on a network")]
    fn new(window: Duration) -> Self {
        StallWatch {
            window,
            start: Instant::now(),
            received: 0,
        }
    }

    fn received(&mut self, bytes: u64) -> Result<(), TransferError> {
        self.received += bytes;
        if self.start.elapsed() < self.window {
            return Ok(());
        }
        if self.received < MIN_STALL_BYTES {
            return Err(TransferError::Stalled {
                received: self.received,
                window: self.window,
            });
        }
        *self = StallWatch::new(self.window);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_source_is_well_formed() {
        assert!(Source::cifar10().sha256.is_some());
        assert!(Url::parse(CIFAR10_URL).is_ok());
    }

    #[test]
    fn content_ranges_are_read() {
        let cases = [
            ("bytes 5-9/10", Some(5), Some(10)),
            ("bytes 5-9/*", Some(5), None),
            ("bytes */10", None, Some(10)),
            ("lines 5-9/10", None, None),
            ("", None, None),
        ];
        for (value, start, total) in cases {
            let range = ContentRange { start, total };
            assert_eq!(parse_content_range(value), range, "{value}");
        }
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let first = Duration::from_secs(1);
        assert!(pause_after(1, first) <= Duration::from_millis(1500));
        assert!(pause_after(3, first) >= Duration::from_secs(4));
        assert!(pause_after(u32::MAX, first) <= MAX_PAUSE.mul_f64(1.5));
    }

    #[test]
    fn only_this_machine_is_reached_without_a_proxy() {
        assert!(is_loopback("http://127.0.0.1:8080/x"));
        assert!(is_loopback("http://localhost/x"));
        assert!(!is_loopback(CIFAR10_URL));
    }
}
