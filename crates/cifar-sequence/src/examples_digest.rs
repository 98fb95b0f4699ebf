//! Proof of which examples a tower step used.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::sequence::Sample;

/// The first 16 bytes of the SHA-256 of `epoch: u64, example: u32`, little-endian, of one sample
/// after the other.
///
/// A worker takes it over the examples that it decoded; whoever knows the run's seed can take it
/// over those that should have been, without the data.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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
        }
    }
}
