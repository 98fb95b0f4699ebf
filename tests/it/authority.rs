//! An authority for certificates and tokens, with the files of its clients and servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pserver_guard::Credentials;
use pserver_guard::args::CredentialArgs;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    date_time_ymd,
};
use tempfile::TempDir;

/// Vouches for certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    /// What its certificates are good for.
    addresses: Vec<String>,
}

/// Until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Good {
    ForLong,
    /// Until so long after now, which is told in whole seconds.
    For(Duration),
    NoMore,
}

impl Authority {
    /// For certificates of this machine.
    pub(crate) fn new() -> Self {
        Authority::of(&["127.0.0.1", "localhost"])
    }

    /// For certificates of these addresses.
    pub(crate) fn of(addresses: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("authority", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority {
            issuer,
            folder,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) fn ca(&self) -> String {
        self.path("ca.pem")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a certificate for `name`, an `organization`, and its key; their files.
    pub(crate) fn issue(&self, name: &str, organization: &str, good: Good) -> [String; 2] {
        let (certificate, key) = self.pair(name, organization, good);
        [("pem", certificate), ("key", key)].map(|(kind, text)| {
            let file = format!("{name}.{kind}");
            self.secret(&file, &text)
        })
    }

    /// A certificate and its key.
    pub(crate) fn pair(&self, name: &str, organization: &str, good: Good) -> (String, String) {
        let mut params = CertificateParams::new(self.addresses.clone()).unwrap();
        params.distinguished_name = subject(name, Some(organization));
        match good {
            Good::ForLong => {}
            Good::For(span) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                params.not_after = date_time_ymd(1970, 1, 1) + (now + span);
            }
            Good::NoMore => params.not_after = date_time_ymd(2020, 1, 1),
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn secret(&self, file: &str, text: &str) -> String {
        let path = self.folder.path().join(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self.path(file)
    }

    fn path(&self, file: &str) -> String {
        let path: PathBuf = self.folder.path().join(file);
        path.to_str().unwrap().to_owned()
    }

    /// The flags of a server with a certificate, which asks for those of `clients`.
    pub(crate) fn server_flags(&self, clients: &Authority) -> Vec<String> {
        let [certificate, key] = self.issue("server", "server", Good::ForLong);
        flags(&[
            ("--tls-cert", &certificate),
            ("--tls-key", &key),
            ("--tls-client-ca", &clients.ca()),
        ])
    }

    /// The flags of a client with a certificate.
    pub(crate) fn client_flags(&self, name: &str, role: &str) -> Vec<String> {
        let [certificate, key] = self.issue(name, role, Good::ForLong);
        flags(&[
            ("--tls-ca", &self.ca()),
            ("--tls-cert", &certificate),
            ("--tls-key", &key),
        ])
    }
}

fn subject(name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        subject.push(DnType::OrganizationName, organization);
    }
    subject
}

pub(crate) fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    let words = pairs.iter().flat_map(|(flag, value)| [*flag, *value]);
    words.map(str::to_owned).collect()
}

/// As a builder takes them.
pub(crate) fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// What these flags of a client come to.
pub(crate) fn credentials(flags: &[String]) -> Credentials {
    let mut args = CredentialArgs::default();
    for pair in flags.chunks(2) {
        let file = Some(PathBuf::from(&pair[1]));
        match pair[0].as_str() {
            "--tls-ca" => args.tls_ca = file,
            "--tls-cert" => args.tls_cert = file,
            "--tls-key" => args.tls_key = file,
            "--token-file" => args.token_file = file,
            other => panic!("{other} is no flag of credentials"),
        }
    }
    Credentials::new(&args).unwrap()
}
