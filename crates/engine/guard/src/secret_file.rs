//! Files of secrets, private keys and tokens: who besides their owner may read them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tracing::warn;

use crate::error::GuardError;
use crate::flag_file::FlagFile;
use crate::watched::read;

/// All of a file of secrets. Says so, each time that it is read, if others can read or write it.
pub(crate) fn read_secret(file: &FlagFile) -> Result<Vec<u8>, GuardError> {
    if let Ok(found) = fs::metadata(&file.path) {
        let mode = found.mode() & 0o777;
        let is_own = found.uid() == rustix::process::geteuid().as_raw();
        if is_too_open(mode, is_own) {
            let path = file.path.display();
            warn!(
                %path,
                permissions = format!("{mode:04o}"),
                "others than its owner can read or change this file of secrets: run `chmod 600` on it, or mount its \
                 Secret with `defaultMode: 0440`"
            );
        }
    }
    read(file)
}

/// Whether a mode lets others in, by the rule of PostgreSQL for private keys.
///
/// A file that belongs to this process's user is nobody else's business. Where it belongs to another user, such as
/// root, its group is how this process can read it: so are the files in `/etc/ssl/private`, and Secrets that
/// Kubernetes mounts with an `fsGroup`.
fn is_too_open(mode: u32, is_own: bool) -> bool {
    const GROUP_OR_OTHERS: u32 = 0o066;
    const ALL_BUT_READING_GROUP: u32 = 0o026;
    let refused = match is_own {
        true => GROUP_OR_OTHERS,
        false => ALL_BUT_READING_GROUP,
    };
    mode & refused != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_and_a_mounted_one_its_groups() {
        for (mode, own, of_root) in [
            (0o600, false, false),
            (0o400, false, false),
            (0o700, false, false),
            (0o640, true, false),
            (0o440, true, false),
            (0o660, true, true),
            (0o444, true, true),
            (0o644, true, true),
            (0o602, true, true),
        ] {
            let found = (is_too_open(mode, true), is_too_open(mode, false));
            assert_eq!(found, (own, of_root), "{mode:o}");
        }
    }
}
