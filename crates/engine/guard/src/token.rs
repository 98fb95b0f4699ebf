//! Tokens: what a client shows, and what a server compares it with.
//!
//! A server keeps digests, so that what it holds in memory lets nobody in. Nothing here ever writes a
//! token.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::error::{GuardError, TokenError};
use crate::flag_file::FlagFile;
use crate::limits::MIN_TOKEN_CHARS;
use crate::role::{Role, Roles};
use crate::secret_file::read_secret;
use crate::watched::Watched;

/// The token of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The one in a client's file.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if there is not exactly one.
    pub fn in_file(text: &str) -> Result<Self, TokenError> {
        let mut lines = lines(text);
        let (line, words) = lines.next().ok_or(TokenError::Empty)?;
        let [token] = words[..] else {
            return Err(TokenError::OneToken { line });
        };
        if let Some((line, _)) = lines.next() {
            return Err(TokenError::OneToken { line });
        }
        check(line, token)?;
        Ok(Token(token.to_owned()))
    }

    /// What an `authorization` header says.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The tokens that a server knows, and what they let a peer do.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens(Vec<(Roles, [u8; 32])>);

impl Tokens {
    /// Those in a server's file.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if it is not as `--token-file` says.
    pub fn in_file(text: &str) -> Result<Self, TokenError> {
        let lines: Vec<_> = lines(text).collect();
        let mut tokens = Vec::new();
        for (line, words) in &lines {
            let (roles, token) = match words[..] {
                [token] if lines.len() == 1 => (Roles::ALL, token),
                [role, token] => {
                    let role: Role = role.parse().map_err(|_| TokenError::Role { line: *line })?;
                    (Roles::from_iter([role]), token)
                }
                _ => return Err(TokenError::Form { line: *line }),
            };
            check(*line, token)?;
            tokens.push((roles, digest(token)));
        }
        match tokens.is_empty() {
            true => Err(TokenError::Empty),
            false => Ok(Tokens(tokens)),
        }
    }

    /// What the bearer of `token` may do; `None` if it is none of these. Takes the same time whichever it
    /// is.
    #[must_use]
    pub fn roles_of(&self, token: &str) -> Option<Roles> {
        let shown = digest(token);
        let (mut found, mut bits) = (Choice::from(0), 0);
        for (Roles(of_this), known) in &self.0 {
            let is_this = known.ct_eq(&shown);
            found |= is_this;
            bits |= u8::conditional_select(&0, of_this, is_this);
        }
        bool::from(found).then_some(Roles(bits))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// What `parse` finds in the file of secrets `file`, now and whenever it has changed.
pub(crate) fn watched<T: 'static>(
    file: FlagFile,
    parse: fn(&str) -> Result<T, TokenError>,
) -> Result<Watched<T>, GuardError> {
    Watched::new(vec![file.clone()], move || {
        let bytes = read_secret(&file)?;
        parse(&String::from_utf8_lossy(&bytes)).map_err(|source| GuardError::Tokens {
            file: file.clone(),
            source,
        })
    })
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The lines with something in them, by number, as words.
fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_comment = words.first().is_none_or(|word| word.starts_with('#'));
        (!is_comment).then_some((index + 1, words))
    })
}

fn check(line: usize, token: &str) -> Result<(), TokenError> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Characters { line });
    }
    let length = token.len();
    if length < MIN_TOKEN_CHARS {
        return Err(TokenError::TooShort { line, length });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef";
    const B: &str = "fedcba9876543210";

    #[test]
    fn a_token_gives_the_roles_of_its_lines() {
        let text = format!("# who\nworker {A}\n\n  viewer\t{B}\nviewer {A}\n");
        let tokens = Tokens::in_file(&text).unwrap();
        let both = Roles::from_iter([Role::Worker, Role::Viewer]);
        assert_eq!(tokens.roles_of(A), Some(both));
        assert_eq!(tokens.roles_of(B), Some(Roles::NONE.with(Role::Viewer)));
        assert_eq!(tokens.roles_of("0123456789abcdeg"), None);
        assert_eq!(tokens.roles_of(""), None);
    }

    #[test]
    fn a_single_token_gives_every_role() {
        let tokens = Tokens::in_file(&format!("# shared\n{A}\n")).unwrap();
        assert_eq!(tokens.roles_of(A), Some(Roles::ALL));
    }

    #[test]
    fn a_wrong_file_is_explained_without_its_words() {
        let server = |text: &str| Tokens::in_file(text).unwrap_err();
        assert_eq!(server("# nothing\n"), TokenError::Empty);
        assert_eq!(
            server("\nadmin short\n"),
            TokenError::TooShort { line: 2, length: 5 }
        );
        assert_eq!(server(&format!("{A} worker")), TokenError::Role { line: 1 });
        assert_eq!(
            server(&format!("worker {A}\n{B}")),
            TokenError::Form { line: 2 }
        );
        assert_eq!(
            server("worker 0123456789abcdéf"),
            TokenError::Characters { line: 1 }
        );
        let client = |text: &str| Token::in_file(text).unwrap_err();
        assert_eq!(
            client(&format!("worker {A}")),
            TokenError::OneToken { line: 1 }
        );
        assert_eq!(
            client(&format!("{A}\n{B}")),
            TokenError::OneToken { line: 2 }
        );
        for error in [server(&format!("{A} worker")), server("worker tooshort")] {
            let text = error.to_string();
            assert!(!text.contains(A) && !text.contains("tooshort"), "{text}");
        }
    }

    #[test]
    fn what_is_printed_of_a_token_is_not_the_token() {
        let token = Token::in_file(A).unwrap();
        let tokens = Tokens::in_file(A).unwrap();
        assert_eq!(format!("{token:?} {tokens:?}"), "Token(..) Tokens(1)");
        assert_eq!(token.authorization(), format!("Bearer {A}"));
    }
}
