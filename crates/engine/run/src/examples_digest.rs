//! Proof of which examples a tower step used.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::sequence::Sample;

/// The first 16 bytes of the SHA-256 of `epoch: u64, example: u32`, little-endian, of one sample
/// after the other.
///
/// A worker takes it over the examples that it decoded; anybody who knows the run's seed can take it
/// over those that should have been, without the data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExamplesDigest(pub [u8; 16]);

impl ExamplesDigest {
    /// The digest of samples in order.
    #[must_use]
    pub fn of(samples: impl IntoIterator<Item = Sample>) -> Self {
        let mut hash = Sha256::new();
        for Sample { epoch, example } in samples {
            hash.update(epoch.to_le_bytes());
            hash.update(example.to_le_bytes());
        }
        let sha256: [u8; 32] = hash.finalize().into();
        ExamplesDigest(std::array::from_fn(|index| sha256[index]))
    }
}

impl fmt::Display for ExamplesDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ExamplesDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no digest of examples.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest of examples is 32 hexadecimal digits, not {0:?}")]
pub struct NotADigest(String);

impl FromStr for ExamplesDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u128::from_str_radix(text, 16) {
            Ok(digest) if text.len() == 32 => Ok(ExamplesDigest(digest.to_be_bytes())),
            _ => Err(NotADigest(text.to_owned())),
        }
    }
}

impl TryFrom<String> for ExamplesDigest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ExamplesDigest> for String {
    fn from(digest: ExamplesDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_example_epoch_or_order_has_another_digest() {
        let sample = |epoch, example| Sample { epoch, example };
        let digests = [
            ExamplesDigest::of([sample(0, 1), sample(0, 2)]),
            ExamplesDigest::of([sample(0, 2), sample(0, 1)]),
            ExamplesDigest::of([sample(0, 1)]),
            ExamplesDigest::of([sample(1, 1), sample(0, 2)]),
        ];
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[..index].contains(digest));
            assert_eq!(digest.to_string().parse(), Ok(*digest));
        }
    }
}
