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

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate, with those that lead from it to the authority.
    pub certificate: FlagFile,
    /// Its private key.
    pub key: FlagFile,
}

impl PairFiles {
    /// Those of the flags of the pair, the same for servers and clients.
    pub(crate) fn given(certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<Self> {
        let certificate = FlagFile::given("--tls-cert", certificate)?;
        let key = FlagFile::given("--tls-key", key)?;
        Some(PairFiles { certificate, key })
    }
}
