//! Files that flags name: what is wrong with one is told with its flag.

use std::fmt;
use std::path::PathBuf;

/// A file and the flag that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagFile {
    /// The flag.
    pub flag: &'static str,
    /// The file.
    pub path: PathBuf,
}

impl FlagFile {
    /// The file of a flag that was given.
    pub(crate) fn given(flag: &'static str, path: Option<&PathBuf>) -> Option<Self> {
        let path = path?.clone();
        Some(FlagFile { flag, path })
    }
}

impl fmt::Display for FlagFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flag, self.path.display())
    }
}
