//! The file that says where the server of a train dir listens, as long as it runs.
//!
//! Its one line is the address, for clients on the same machine. The server holds a lock on the file that it
//! has written, so a file that a killed server left behind is told from that of a live one, even if some
//! other program listens at that address by now. Beside it may be the token that clients show to the server.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use pserver_state::Folder;
use pserver_state::checkpoint::TEMPORARY_PREFIX;

/// Its name in a train dir.
pub const SERVER_FILE: &str = "server";

/// The file of the token that `cifar-train` gives its server, in a train dir.
///
/// It is the folder's and not the run's: `--fresh` leaves it where it is, as the programs of a launcher that
/// begins a new run have been told of it.
pub const TOKEN_FILE: &str = "server.token";

/// The file of a server that runs; dropped, it is removed.
#[derive(Debug)]
pub struct ServerFile {
    folder: Folder,
    replaces_another: bool,
    /// Whether it is left where it is: there are workers that look for a server.
    stays: bool,
    /// Locked until the process ends, however it ends.
    _file: File,
}

impl ServerFile {
    /// Says that the server of a train dir listens at `address`; replaces what a killed one has said.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written or files there cannot be locked.
    pub fn write(folder: &Folder, address: &str) -> io::Result<Self> {
        let path = folder.join(SERVER_FILE);
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(folder.through())?;
        file.as_file().try_lock()?;
        writeln!(file, "{address}")?;
        let replaces_another = path.exists();
        let _file = file.persist(&path)?;
        Ok(ServerFile {
            folder: folder.clone(),
            replaces_another,
            stays: replaces_another,
            _file,
        })
    }

    /// Whether a server before left its file: it was killed, and its workers look for it.
    #[must_use]
    pub fn replaces_another(&self) -> bool {
        self.replaces_another
    }

    /// The server ends; its workers have `all_heard`, or will look for the next one. One that ends before
    /// it has served leaves things as they were.
    pub fn end(mut self, all_heard: bool) {
        self.stays = !all_heard;
    }
}

impl Drop for ServerFile {
    fn drop(&mut self) {
        if !self.stays {
            // A file that stays is taken for that of a server that was killed.
            let _ = fs::remove_file(self.folder.join(SERVER_FILE));
        }
    }
}

/// Where the server of `train_dir` listens.
///
/// # Errors
///
/// If none runs there, or the file cannot be read.
pub fn server_of(train_dir: &Path) -> anyhow::Result<String> {
    let path = train_dir.join(SERVER_FILE);
    let read = || {
        let mut file = File::open(&path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let is_held = match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => true,
            Ok(()) => false,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        Ok((text.trim_end().to_owned(), is_held))
    };
    let train_dir = train_dir.display();
    match read() {
        Ok((address, true)) => Ok(address),
        Ok((address, false)) => {
            bail!("no server is running in {train_dir}: the last one, at {address}, was killed")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("no server is running in {train_dir}: there is no file {train_dir}/{SERVER_FILE}")
        }
        Err(error) => Err(anyhow!(error).context(format!("cannot read {}", path.display()))),
    }
}

/// The file of the token that the server of `train_dir` may ask for.
#[must_use]
pub fn token_file_of(train_dir: &Path) -> Option<PathBuf> {
    let path = train_dir.join(TOKEN_FILE);
    path.exists().then_some(path)
}

/// The address at which clients on this machine find a server that was told to `listen` somewhere and is
/// `bound` there: the same host, by which its certificate may know it, or this machine if that is any.
#[must_use]
pub fn address_for_clients(listen: &str, bound: SocketAddr) -> String {
    let this_machine = match bound.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(any) if any.is_unspecified() => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => None,
    };
    match (this_machine, listen.rsplit_once(':')) {
        (None, Some((host, _))) => format!("{host}:{}", bound.port()),
        (ip, _) => SocketAddr::new(ip.unwrap_or(bound.ip()), bound.port()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, address: &str) -> io::Result<ServerFile> {
        ServerFile::write(&Folder::open(folder.path())?, address)
    }

    /// The file of a run that took the name of the folder is not this server's to remove.
    #[test]
    fn a_server_whose_folder_was_moved_removes_its_own_file() {
        let parent = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| parent.path().join(name));
        fs::create_dir(&a).unwrap();
        let folder = Folder::open(&a).unwrap();
        let file = ServerFile::write(&folder, "127.0.0.1:1").unwrap();
        fs::rename(&a, &b).unwrap();
        fs::create_dir(&a).unwrap();
        let _other = ServerFile::write(&Folder::open(&a).unwrap(), "127.0.0.1:2").unwrap();
        drop(file);
        assert_eq!(server_of(&a).unwrap(), "127.0.0.1:2");
        assert!(!b.join(SERVER_FILE).exists());
    }

    #[test]
    fn clients_find_the_address_while_the_server_runs() {
        let folder = tempfile::tempdir().unwrap();
        let none = server_of(folder.path()).unwrap_err().to_string();
        assert!(none.contains("there is no file"), "{none}");
        let file = write(&folder, "127.0.0.1:1234").unwrap();
        assert_eq!(server_of(folder.path()).unwrap(), "127.0.0.1:1234");
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_server_has_said_is_no_address_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SERVER_FILE), "127.0.0.1:1\n").unwrap();
        let killed = server_of(folder.path()).unwrap_err().to_string();
        assert!(
            killed.ends_with("the last one, at 127.0.0.1:1, was killed"),
            "{killed}"
        );
        let _file = write(&folder, "127.0.0.1:2").unwrap();
        assert_eq!(server_of(folder.path()).unwrap(), "127.0.0.1:2");
    }

    #[test]
    fn a_server_that_does_not_come_to_serve_leaves_things_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SERVER_FILE), "127.0.0.1:1\n").unwrap();
        drop(write(&folder, "127.0.0.1:2").unwrap());
        let file = write(&folder, "127.0.0.1:3").unwrap();
        assert!(file.replaces_another());
        file.end(true);
        assert!(!folder.path().join(SERVER_FILE).exists());
    }

    #[test]
    fn the_address_is_one_that_a_client_can_connect_to() {
        for (listen, bound, expected) in [
            ("localhost:0", "127.0.0.1:7", "localhost:7"),
            ("0.0.0.0:2222", "0.0.0.0:2222", "127.0.0.1:2222"),
            ("[::]:0", "[::]:9", "[::1]:9"),
            ("10.0.0.1:2222", "10.0.0.1:2222", "10.0.0.1:2222"),
        ] {
            assert_eq!(
                address_for_clients(listen, bound.parse().unwrap()),
                expected
            );
        }
    }
}
