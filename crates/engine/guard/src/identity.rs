//! What a certificate says of its bearer: its roles are the organizations of the subject, its name the
//! common name.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::role::Roles;

/// The bearer of a certificate that an authority of ours has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Common name; empty if it has none.
    pub name: String,
    /// What it may do.
    pub roles: Roles,
}

impl Identity {
    /// What stands in a certificate in DER form. Organizations that are no roles are passed over.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let names = subject.iter_common_name();
        let name = names.filter_map(|name| name.as_str().ok()).next();
        let organizations = subject.iter_organization();
        let organizations = organizations.filter_map(|name| name.as_str().ok());
        Some(Identity {
            name: printable(name.unwrap_or_default()),
            roles: organizations.filter_map(|name| name.parse().ok()).collect(),
        })
    }
}

/// The beginning of a name, as it may stand in a log.
fn printable(name: &str) -> String {
    const MAX_CHARS: usize = 64;
    let shown = name.chars().filter(|character| !character.is_control());
    shown.take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;
    use crate::role::Role;

    fn identity(name: &str, organizations: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let [organization] = organizations {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *organization);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identity::of(certificate.der()).unwrap()
    }

    #[test]
    fn the_organization_is_the_role_and_the_common_name_the_name() {
        let worker = identity("worker-3", &["worker"]);
        assert_eq!(worker.name, "worker-3");
        assert_eq!(worker.roles, Roles::NONE.with(Role::Worker));
        assert_eq!(identity("a", &["admin"]).roles, Roles::ALL);
        for other in ["Acme Inc.", "Admin", ""] {
            assert_eq!(identity("a", &[other]).roles, Roles::NONE, "{other}");
        }
        assert_eq!(identity("a", &[]).roles, Roles::NONE);
    }

    #[test]
    fn a_name_fits_into_a_line() {
        let name = "worker\n3".to_owned() + &"x".repeat(100);
        let shown = identity(&name, &[]).name;
        assert!(
            shown.starts_with("worker3x") && shown.len() == 64,
            "{shown}"
        );
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        assert_eq!(Identity::of(b"garbage"), None);
    }
}
