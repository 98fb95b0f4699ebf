//! What can be wrong with the files and flags of security. Mending takes a person.

use std::error::Error as _;
use std::io;

use tokio_rustls::rustls;

use crate::flag_file::{FlagFile, PairFiles};
use crate::limits::MIN_TOKEN_CHARS;

/// Why a server or client cannot be made safe as it was told to be.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A file cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// The file.
        file: FlagFile,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of tokens is not as it should be.
    #[error("{file} cannot be used")]
    Tokens {
        /// The file.
        file: FlagFile,
        /// What is wrong.
        source: TokenError,
    },
    /// A file holds no certificate or key in PEM.
    #[error("{file} holds no {what} in PEM form: {reason}")]
    Pem {
        /// The file.
        file: FlagFile,
        /// What was looked for.
        what: &'static str,
        /// What was found.
        reason: String,
    },
    /// Certificate and key do not make a pair, or are of a kind that is not supported.
    #[error("the certificate {} cannot be used with the key {}", pair.certificate, pair.key)]
    Pair {
        /// Their files.
        pair: Box<PairFiles>,
        /// Why not.
        source: rustls::Error,
    },
    /// A program's own certificate is over.
    #[error("the certificate {file} ended at {ended}, and now it is {now}: renew it")]
    Expired {
        /// The file.
        file: FlagFile,
        /// When it ended.
        ended: String,
        /// What the clock of this machine says.
        now: String,
    },
    /// A program's own certificate is for later.
    #[error(
        "the certificate {file} begins at {begins}, and the clock of this machine says {now}: set the clock, or \
         give a certificate that is valid"
    )]
    NotYetValid {
        /// The file.
        file: FlagFile,
        /// When it begins.
        begins: String,
        /// What the clock of this machine says.
        now: String,
    },
    /// No authority can be made of a file.
    #[error("{file} is no authority for certificates: {reason}")]
    Authority {
        /// The file.
        file: FlagFile,
        /// Why not.
        reason: String,
    },
    /// An address that other machines reach, without encryption.
    #[error(
        "{flag} {address} can be reached from other machines, and what travels there would not be \
         encrypted: give --tls-cert and --tls-key, or say --insecure if the network is trusted"
    )]
    Clear {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: String,
    },
    /// An address that is none.
    #[error("{flag} {address} is no address to listen on")]
    Address {
        /// The flag.
        flag: &'static str,
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

/// Why a text is no file of tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing but comments and empty lines.
    #[error("there is no token in it")]
    Empty,
    /// A word where a role should be; not shown, because it may be a token.
    #[error("line {line} does not begin with a role: worker, viewer or admin")]
    Role {
        /// Counted from 1.
        line: usize,
    },
    /// A server's line is not `ROLE TOKEN`.
    #[error(
        "line {line} is not ROLE TOKEN; only a file of a single token may leave the role out, which is \
         then any"
    )]
    Form {
        /// Counted from 1.
        line: usize,
    },
    /// Only one token was expected.
    #[error("line {line}: a client's file holds its one token and nothing else")]
    OneToken {
        /// Counted from 1.
        line: usize,
    },
    /// It could be guessed.
    #[error(
        "the token in line {line} has {length} characters, which is too short: {MIN_TOKEN_CHARS} or more \
         are needed (`openssl rand -hex 32` makes a good one)"
    )]
    TooShort {
        /// Counted from 1.
        line: usize,
        /// Of the token.
        length: usize,
    },
    /// It could not travel.
    #[error(
        "the token in line {line} has characters other than letters, digits and signs of ASCII"
    )]
    Characters {
        /// Counted from 1.
        line: usize,
    },
}

impl GuardError {
    /// The error and its causes, in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }
}
