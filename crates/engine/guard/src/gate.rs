//! What a peer may do: by its certificate, its token, or both.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::identity::Identity;
use crate::role::{Role, Roles};
use crate::token::Tokens;
use crate::watched::Watched;

/// What a server demands of every request. The default demands nothing.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    tokens: Option<Arc<Watched<Tokens>>>,
    demands_certificate: bool,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It shows no token.
    #[error(
        "this server asks for a token, and the request has none: give the program --token-file (cifar-train keeps \
         the token in its train dir, in server.token)"
    )]
    NoToken,
    /// It shows another one.
    #[error(
        "this server does not know the token of the request: see the --token-file of both programs"
    )]
    WrongToken,
    /// It comes over a connection without a certificate.
    #[error("this server asks for a certificate: give the program --tls-cert and --tls-key")]
    NoCertificate,
    /// Who asks is known and may not.
    #[error("{who} may not do this, for which the role {needed} is needed")]
    NotAllowed {
        /// The peer.
        who: String,
        /// The roles of which one is enough.
        needed: String,
    },
}

impl Denied {
    /// Whether it is not known who asks.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        !matches!(self, Denied::NotAllowed { .. })
    }
}

impl Gate {
    /// A gate that lets through who shows one of `tokens`, a certificate, or both.
    #[must_use]
    pub fn new(tokens: Option<Watched<Tokens>>, demands_certificate: bool) -> Self {
        Gate {
            tokens: tokens.map(Arc::new),
            demands_certificate,
        }
    }

    /// The same gate for a port that asks for no token.
    #[must_use]
    pub fn without_tokens(&self) -> Self {
        Gate {
            tokens: None,
            ..self.clone()
        }
    }

    /// Whether anybody may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tokens.is_none() && !self.demands_certificate
    }

    /// Whether tokens are demanded.
    #[must_use]
    pub fn demands_token(&self) -> bool {
        self.tokens.is_some()
    }

    /// Lets a request through that one of these roles is needed for, or not.
    ///
    /// # Errors
    ///
    /// [`Denied`], a sentence for the one who asks.
    pub fn check(
        &self,
        certificate: Option<&Identity>,
        authorization: Option<&str>,
        needed: &[Role],
    ) -> Result<(), Denied> {
        let roles = self.roles(certificate, authorization)?;
        if roles.may(needed) {
            return Ok(());
        }
        let who = match (certificate, &self.tokens) {
            (Some(Identity { name, .. }), Some(_)) => {
                format!("{name:?}, by certificate and token,")
            }
            (Some(Identity { name, .. }), None) => format!("{name:?}, by its certificate,"),
            (None, _) => "the bearer of this token".to_owned(),
        };
        let mut names: Vec<String> = needed.iter().map(ToString::to_string).collect();
        names.push(Role::Admin.to_string());
        let needed = names.join(" or ");
        Err(Denied::NotAllowed { who, needed })
    }

    /// What both ways of proof have in common, where both are demanded.
    fn roles(
        &self,
        certificate: Option<&Identity>,
        authorization: Option<&str>,
    ) -> Result<Roles, Denied> {
        let mut roles = Roles::ALL;
        if self.demands_certificate {
            roles = certificate.ok_or(Denied::NoCertificate)?.roles;
        }
        if let Some(tokens) = &self.tokens {
            let token = authorization.and_then(token_in).ok_or(Denied::NoToken)?;
            let of_token = tokens.newest().roles_of(&token).ok_or(Denied::WrongToken)?;
            roles = roles.and(of_token);
        }
        Ok(roles)
    }
}

/// The token in an `authorization` header: a bearer's, or the password that a browser sends.
fn token_in(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    pair.split_once(':')
        .map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "worker-token-0123456789";
    const ADMIN: &str = "admin-token-01234567890";

    fn tokens() -> Watched<Tokens> {
        let text = format!("worker {WORKER}\nadmin {ADMIN}");
        Watched::new(Vec::new(), move || Ok(Tokens::in_file(&text).unwrap())).unwrap()
    }

    fn identity(role: Role) -> Identity {
        Identity {
            name: "w".to_owned(),
            roles: Roles::from_iter([role]),
        }
    }

    #[test]
    fn a_gate_without_demands_lets_everybody_through() {
        let gate = Gate::default();
        assert!(gate.is_open());
        assert_eq!(gate.check(None, None, &[]), Ok(()));
    }

    #[test]
    fn a_token_has_to_be_known_and_to_be_enough() {
        let gate = Gate::new(Some(tokens()), false);
        let check = |header: Option<&str>| gate.check(None, header, &[Role::Viewer]);
        assert_eq!(check(None), Err(Denied::NoToken));
        assert_eq!(check(Some("Digest x")), Err(Denied::NoToken));
        assert_eq!(check(Some("Bearer wrong")), Err(Denied::WrongToken));
        assert_eq!(check(Some(&format!("bearer {ADMIN}"))), Ok(()));
        let refused = check(Some(&format!("Bearer {WORKER}"))).unwrap_err();
        assert!(!refused.is_unknown());
        assert_eq!(
            refused.to_string(),
            "the bearer of this token may not do this, for which the role viewer or admin is needed"
        );
    }

    #[test]
    fn a_certificate_has_to_be_enough() {
        let gate = Gate::new(None, true);
        let viewer = identity(Role::Viewer);
        let refused = gate.check(Some(&viewer), None, &[Role::Worker]);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "\"w\", by its certificate, may not do this, for which the role worker or admin is needed"
        );
    }

    #[test]
    fn a_browser_sends_the_token_as_its_password() {
        let gate = Gate::new(Some(tokens()), false);
        let header = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let check = |header: &str| gate.check(None, Some(header), &[Role::Worker]);
        assert_eq!(check(&header(&format!("me:{WORKER}"))), Ok(()));
        assert_eq!(check(&header("me:wrong:colon")), Err(Denied::WrongToken));
        assert_eq!(check("Basic %%%"), Err(Denied::NoToken));
    }

    #[test]
    fn where_both_are_demanded_both_have_to_be_enough() {
        let gate = Gate::new(Some(tokens()), true);
        let worker = format!("Bearer {WORKER}");
        let check = |role: Option<Role>, header: Option<&str>| {
            let identity = role.map(identity);
            gate.check(identity.as_ref(), header, &[Role::Worker])
        };
        assert_eq!(check(None, Some(&worker)), Err(Denied::NoCertificate));
        assert_eq!(check(Some(Role::Worker), None), Err(Denied::NoToken));
        assert_eq!(check(Some(Role::Admin), Some(&worker)), Ok(()));
        let viewer = check(Some(Role::Viewer), Some(&worker)).unwrap_err();
        assert!(matches!(viewer, Denied::NotAllowed { .. }), "{viewer}");
    }
}
