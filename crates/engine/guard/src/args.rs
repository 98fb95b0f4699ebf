//! The flags of security: a server's, and those of all its clients.

use std::path::PathBuf;

/// What a server demands of its clients, and how what travels is protected.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Security")]
pub struct GuardArgs {
    /// Encrypt with this certificate, in PEM form: the server's own first, then those that lead to its
    /// authority. Needed on addresses that other machines reach
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Let nobody connect without a certificate of this authority. Its subject says what the bearer may
    /// do: organization (O) worker, viewer or admin; its common name (CN) is the worker's name
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// Answer nobody without one of the tokens in this file, whose lines are ROLE TOKEN (worker, viewer or
    /// admin); or which holds a single token, for everything. With --tls-client-ca both are demanded
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Listen on addresses that other machines reach without encryption: who can read along can take
    /// the run over
    #[arg(long)]
    pub insecure: bool,
}

/// How a client shows who it is, and knows the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Security")]
pub struct CredentialArgs {
    /// Connect over TLS, to a server with a certificate of the authority in this file, in PEM form
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// Show this certificate, in PEM form, to a server that asks for one (--tls-client-ca)
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Show the token in this file, which holds nothing else, to a server that asks for one
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}
