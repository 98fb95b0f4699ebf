//! What a client's flags come to: TLS, and the token that it shows.

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;

use crate::args::CredentialArgs;
use crate::error::GuardError;
use crate::flag_file::FlagFile;
use crate::flag_file::PairFiles;
use crate::tls;
use crate::token::{self, Token};
use crate::watched::Watched;

/// How a client shows who it is. The default is unencrypted, and shows nothing.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    tls: Option<Arc<Watched<ClientConfig>>>,
    token: Option<Arc<Watched<Token>>>,
}

impl Credentials {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    ///
    /// [`GuardError`] if one cannot be used.
    pub fn new(args: &CredentialArgs) -> Result<Self, GuardError> {
        let pair = PairFiles::given(args.tls_cert.as_ref(), args.tls_key.as_ref());
        let tls = FlagFile::given("--tls-ca", args.tls_ca.as_ref());
        let tls = tls
            .map(|authority| tls::client(authority, pair))
            .transpose()?;
        let token = FlagFile::given("--token-file", args.token_file.as_ref());
        let token = token.map(|file| token::watched(file, Token::in_file));
        let token = token.transpose()?;
        Ok(Credentials {
            tls: tls.map(Arc::new),
            token: token.map(Arc::new),
        })
    }

    /// TLS of the next connection, if there is to be any.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.as_ref().map(|tls| tls.newest())
    }

    /// What the `authorization` header of the next request says.
    #[must_use]
    pub fn authorization(&self) -> Option<String> {
        let token = self.token.as_ref()?.newest();
        Some(token.authorization())
    }
}
