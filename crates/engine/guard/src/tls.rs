//! TLS of both ends, out of PEM files. A server's are read once for all of its ports.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::GuardError;
use crate::flag_file::{FlagFile, PairFiles};
use crate::secret_file::read_secret;
use crate::validity;
use crate::watched::{Watched, read};

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/2: gRPC.
    Http2,
    /// HTTP/1.1: the page.
    Http1,
}

impl Speaks {
    fn protocols(self) -> Vec<Vec<u8>> {
        vec![match self {
            Speaks::Http2 => b"h2".to_vec(),
            Speaks::Http1 => b"http/1.1".to_vec(),
        }]
    }
}

/// TLS of a server, which follows its files.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Watched<Configs>>);

/// What each kind of port takes.
struct Configs {
    http2: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`GuardError`] if they cannot be used.
    pub fn new(pair: PairFiles, client_authority: Option<FlagFile>) -> Result<Self, GuardError> {
        let mut files = vec![pair.certificate.clone(), pair.key.clone()];
        files.extend(client_authority.clone());
        let watched = Watched::new(files, move || {
            let mut config = server_config(&pair, client_authority.as_ref())?;
            let mut speaking = |speaks: Speaks| {
                config.alpn_protocols = speaks.protocols();
                Arc::new(config.clone())
            };
            Ok(Configs {
                http2: speaking(Speaks::Http2),
                http1: speaking(Speaks::Http1),
            })
        });
        Ok(ServerTls(Arc::new(watched?)))
    }

    /// What the next connection to a port takes.
    #[must_use]
    pub fn newest(&self, speaks: Speaks) -> Arc<ServerConfig> {
        let newest = self.0.newest();
        Arc::clone(match speaks {
            Speaks::Http2 => &newest.http2,
            Speaks::Http1 => &newest.http1,
        })
    }
}

fn server_config(
    pair: &PairFiles,
    client_authority: Option<&FlagFile>,
) -> Result<ServerConfig, GuardError> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(MachineClock))
        .with_safe_default_protocol_versions()
        .expect("ring has what these versions need");
    let builder = match client_authority {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(authority(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let verifier = verifier.map_err(|error| GuardError::Authority {
                file: file.clone(),
                reason: error.to_string(),
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (certificates, key) = read_pair(pair)?;
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|source| not_a_pair(pair, source))?;
    // Who comes again is looked at again: its certificate may have expired meanwhile.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS of a client, which follows its files.
///
/// # Errors
///
/// [`GuardError`] if they cannot be used.
pub fn client(
    server_authority: FlagFile,
    pair: Option<PairFiles>,
) -> Result<Watched<ClientConfig>, GuardError> {
    let mut files = vec![server_authority.clone()];
    if let Some(pair) = &pair {
        files.extend([pair.certificate.clone(), pair.key.clone()]);
    }
    Watched::new(files, move || {
        client_config(&server_authority, pair.as_ref())
    })
}

fn client_config(
    server_authority: &FlagFile,
    pair: Option<&PairFiles>,
) -> Result<ClientConfig, GuardError> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(MachineClock))
        .with_safe_default_protocol_versions()
        .expect("ring has what these versions need")
        .with_root_certificates(authority(server_authority)?);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let (certificates, key) = read_pair(pair)?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|source| not_a_pair(pair, source))?
        }
    };
    config.alpn_protocols = Speaks::Http2.protocols();
    Ok(config)
}

/// The clock by which certificates of the other end are judged. Before 1970 it says nothing, and nobody is believed;
/// that of rustls would panic.
#[derive(Debug)]
struct MachineClock;

impl TimeProvider for MachineClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since_1970))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn not_a_pair(pair: &PairFiles, source: tokio_rustls::rustls::Error) -> GuardError {
    GuardError::Pair {
        pair: Box::new(pair.clone()),
        source,
    }
}

fn read_pair(
    pair: &PairFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), GuardError> {
    let certificates = certificates(&pair.certificate)?;
    validity::check(&pair.certificate, &certificates)?;
    let bytes = read_secret(&pair.key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| GuardError::Pem {
        file: pair.key.clone(),
        what: "private key",
        reason: error.to_string(),
    })?;
    Ok((certificates, key))
}

fn certificates(file: &FlagFile) -> Result<Vec<CertificateDer<'static>>, GuardError> {
    let bytes = read(file)?;
    let failed = |reason: String| GuardError::Pem {
        file: file.clone(),
        what: "certificate",
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    match found.is_empty() {
        true => Err(failed("there is none".to_owned())),
        false => Ok(found),
    }
}

fn authority(file: &FlagFile) -> Result<RootCertStore, GuardError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| GuardError::Authority {
                file: file.clone(),
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// Writes a certificate that is valid in these years, and its key.
    fn write_pair(folder: &Path, years: [i32; 2]) -> PairFiles {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(years[0], 1, 1);
        params.not_after = date_time_ymd(years[1], 1, 1);
        let key = KeyPair::generate().unwrap();
        let (certificate_path, key_path) = (folder.join("ps.pem"), folder.join("ps.key"));
        fs::write(&certificate_path, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        PairFiles::given(Some(&certificate_path), Some(&key_path)).unwrap()
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_is_refused_by_server_and_client() {
        let folder = tempfile::tempdir().unwrap();
        for (years, expected) in [
            (
                [2000, 2001],
                "ps.pem ended at Jan  1 00:00:00 2001 +00:00, and now it is ",
            ),
            (
                [4000, 4001],
                "ps.pem begins at Jan  1 00:00:00 4000 +00:00, and the clock",
            ),
        ] {
            let pair = write_pair(folder.path(), years);
            let authority = pair.certificate.clone();
            let server = ServerTls::new(pair.clone(), None).unwrap_err().in_full();
            assert!(server.contains(expected), "{server}");
            let client = client(authority, Some(pair)).unwrap_err().in_full();
            assert!(client.contains(expected), "{client}");
        }
        let pair = write_pair(folder.path(), [2000, 4000]);
        assert!(ServerTls::new(pair, None).is_ok());
    }
}
