//! The token of the programs of a train dir: only those of the user who started the launcher can read it.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use pserver_server::server_file::TOKEN_FILE;
use pserver_state::checkpoint::TEMPORARY_PREFIX;
use rustix::rand::{GetRandomFlags, getrandom};

/// Random bytes of a token, which nobody guesses.
const TOKEN_BYTES: usize = 32;

/// The file of the token in `train_dir`; makes both where they are missing.
///
/// A token that is there is kept: a launcher that runs there already, and will not let another one in, has
/// told it to its programs.
///
/// # Errors
///
/// If the folder or the file cannot be made.
pub fn token_file_in(train_dir: &Path) -> io::Result<PathBuf> {
    let path = train_dir.join(TOKEN_FILE);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(train_dir)?;
    let mut token = [0; TOKEN_BYTES];
    // Fewer than 256 bytes come all at once.
    getrandom(&mut token, GetRandomFlags::empty())?;
    // Of mode 0600, whatever the umask.
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempfile_in(train_dir)?;
    writeln!(file, "{}", hex::encode(token))?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(path),
        // Another launcher was faster.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(path),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let train_dir = folder.path().join("runs/new");
        let path = token_file_in(&train_dir).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let token = fs::read_to_string(&path).unwrap();
        assert_eq!(token.trim_end().len(), 2 * TOKEN_BYTES);
        assert_eq!(token_file_in(&train_dir).unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), token);
        let another = token_file_in(folder.path()).unwrap();
        assert_ne!(fs::read_to_string(another).unwrap(), token);
        assert_eq!(fs::read_dir(&train_dir).unwrap().count(), 1);
    }
}
