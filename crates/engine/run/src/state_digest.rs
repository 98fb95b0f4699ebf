//! What tells one training state from another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// XXH3-128 of a training state: finds damage and differences; it is no defence against forgery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StateDigest(pub u128);

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no state digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a state digest is 32 hexadecimal digits, not {0:?}")]
pub struct NotADigest(String);

impl FromStr for StateDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u128::from_str_radix(text, 16) {
            Ok(digest) if text.len() == 32 => Ok(StateDigest(digest)),
            _ => Err(NotADigest(text.to_owned())),
        }
    }
}

impl TryFrom<String> for StateDigest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StateDigest> for String {
    fn from(digest: StateDigest) -> Self {
        digest.to_string()
    }
}
