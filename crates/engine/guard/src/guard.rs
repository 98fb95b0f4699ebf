//! What a server's flags come to: an address it may listen on, TLS for its ports, a gate for requests.

use std::net::SocketAddr;

use tracing::warn;

use crate::admission::PortTls;
use crate::args::GuardArgs;
use crate::error::GuardError;
use crate::flag_file::FlagFile;
use crate::flag_file::PairFiles;
use crate::gate::Gate;
use crate::reach::{Cover, is_here, listen_on};
use crate::tls::{ServerTls, Speaks};
use crate::token::{self, Tokens};

/// The protection of a server.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    tls: Option<ServerTls>,
    is_insecure: bool,
    gate: Gate,
}

impl Guard {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    ///
    /// [`GuardError`] if one cannot be used.
    pub fn new(args: &GuardArgs) -> Result<Self, GuardError> {
        let pair = PairFiles::given(args.tls_cert.as_ref(), args.tls_key.as_ref());
        let tokens = FlagFile::given("--token-file", args.token_file.as_ref());
        let tokens = tokens.map(|file| token::watched(file, Tokens::in_file));
        let tokens = tokens.transpose()?;
        let client_authority = FlagFile::given("--tls-client-ca", args.tls_client_ca.as_ref());
        let tls = pair.map(|pair| ServerTls::new(pair, client_authority));
        Ok(Guard {
            gate: Gate::new(tokens, args.tls_client_ca.is_some()),
            tls: tls.transpose()?,
            is_insecure: args.insecure,
        })
    }

    /// The sockets of the address of a flag, if the server may listen there.
    ///
    /// # Errors
    ///
    /// [`GuardError`] if other machines could read along, or it is no address.
    pub fn listen_on(
        &self,
        flag: &'static str,
        address: &str,
    ) -> Result<Vec<SocketAddr>, GuardError> {
        let cover = match (self.is_encrypted(), self.is_insecure) {
            (true, _) => Cover::Encrypted,
            (false, true) => Cover::ClearOnPurpose,
            (false, false) => Cover::Clear,
        };
        let sockets = listen_on(flag, address, cover)?;
        if !sockets.iter().all(is_here) {
            if !self.is_encrypted() {
                warn!(
                    address,
                    "what travels here is not encrypted, as --insecure allows"
                );
            }
            if self.gate.is_open() {
                warn!(
                    address,
                    "anyone who reaches this address may take part: --tls-client-ca or --token-file would ask who it is"
                );
            }
        }
        Ok(sockets)
    }

    /// Whether its ports speak TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// TLS of a port.
    #[must_use]
    pub fn tls(&self, speaks: Speaks) -> PortTls {
        Some((self.tls.clone()?, speaks))
    }

    /// The same for a port that asks for no token.
    #[must_use]
    pub fn without_tokens(&self) -> Self {
        Guard {
            gate: self.gate.without_tokens(),
            ..self.clone()
        }
    }

    /// Who may ask for what.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}
