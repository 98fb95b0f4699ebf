//! Which data set a run trains on: its name, its sizes and its digest, without its bytes.
//!
//! The server fixes the data set of a run but holds no images; a worker proves by this digest that
//! it decodes the same ones.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 of each file of the binary CIFAR-10 data set, in the order of its records: five training
/// batches, then the test batch.
pub const CIFAR10_FILES: [(&str, &str); 6] = [
    (
        "data_batch_1.bin",
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    ),
    (
        "data_batch_2.bin",
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    ),
    (
        "data_batch_3.bin",
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    ),
    (
        "data_batch_4.bin",
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    ),
    (
        "data_batch_5.bin",
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    ),
    (
        "test_batch.bin",
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    ),
];

/// Training examples of the synthetic set when no number is given: as many as CIFAR-10 has.
const DEFAULT_SYNTHETIC_EXAMPLES: u32 = 50_000;

/// Most training examples of a synthetic set: their records take 31 GB. A program that reads of a set with more,
/// in a file or a message, would run out of memory in shuffling it.
pub const MAX_SYNTHETIC_EXAMPLES: u32 = 10_000_000;

/// Changes whenever the synthetic drawing changes, so that old and new runs are never compared.
const SYNTHETIC_VERSION: u32 = 1;

/// Classes of every data set.
pub const NUM_CLASSES: usize = 10;

/// Names of CIFAR-10's classes, by label.
const CIFAR10_CLASSES: [&str; NUM_CLASSES] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// The data set of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DataSet {
    /// CIFAR-10, binary version: 50,000 training and 10,000 test examples.
    Cifar10,
    /// A procedurally drawn set of the same form.
    Synthetic {
        /// Number of training examples, from 1 to [`MAX_SYNTHETIC_EXAMPLES`]; a fifth as many, at least 1,
        /// are for testing.
        num_examples: u32,
    },
}

impl DataSet {
    /// Number of training examples: the length of an epoch.
    #[must_use]
    pub fn num_train_examples(self) -> u32 {
        match self {
            DataSet::Cifar10 => 50_000,
            DataSet::Synthetic { num_examples } => num_examples,
        }
    }

    /// Number of test examples.
    #[must_use]
    pub fn num_test_examples(self) -> u32 {
        match self {
            DataSet::Cifar10 => 10_000,
            DataSet::Synthetic { num_examples } => (num_examples / 5).max(1),
        }
    }

    /// Names of the classes, by label.
    #[must_use]
    pub fn class_names(self) -> [String; NUM_CLASSES] {
        match self {
            DataSet::Cifar10 => CIFAR10_CLASSES.map(str::to_owned),
            DataSet::Synthetic { .. } => std::array::from_fn(|label| format!("class {label}")),
        }
    }

    /// SHA-256 over what the set is made of: the digests of the files, or the generator's version
    /// and size. Equal digests mean equal examples.
    #[must_use]
    pub fn digest(self) -> [u8; 32] {
        let mut hash = Sha256::new();
        match self {
            DataSet::Cifar10 => {
                for (name, sha256) in CIFAR10_FILES {
                    hash.update(format!("{sha256}  {name}\n"));
                }
            }
            DataSet::Synthetic { num_examples } => {
                hash.update(format!(
                    "synthetic version {SYNTHETIC_VERSION}: {num_examples}\n"
                ));
            }
        }
        hash.finalize().into()
    }
}

impl fmt::Display for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataSet::Cifar10 => f.write_str("cifar10"),
            DataSet::Synthetic {
                num_examples: DEFAULT_SYNTHETIC_EXAMPLES,
            } => f.write_str("synthetic"),
            DataSet::Synthetic { num_examples } => write!(f, "synthetic:{num_examples}"),
        }
    }
}

/// A name that is no data set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no data set is called {0:?}; there are cifar10, synthetic and synthetic:N (N training examples, 1 to 10,000,000)"
)]
pub struct UnknownDataSet(String);

impl FromStr for DataSet {
    type Err = UnknownDataSet;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownDataSet(name.to_owned());
        match name.split_once(':') {
            None if name == "cifar10" => Ok(DataSet::Cifar10),
            None if name == "synthetic" => Ok(DataSet::Synthetic {
                num_examples: DEFAULT_SYNTHETIC_EXAMPLES,
            }),
            Some(("synthetic", number)) => match number.parse() {
                Ok(num_examples) if (1..=MAX_SYNTHETIC_EXAMPLES).contains(&num_examples) => {
                    Ok(DataSet::Synthetic { num_examples })
                }
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for DataSet {
    type Error = UnknownDataSet;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<DataSet> for String {
    fn from(data_set: DataSet) -> Self {
        data_set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for name in ["cifar10", "synthetic", "synthetic:512"] {
            assert_eq!(name.parse::<DataSet>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_wrong_name_says_what_there_is() {
        for name in [
            "mnist",
            "synthetic:0",
            "synthetic:10000001",
            "synthetic:x",
            "synthetic:",
            "cifar10:5",
            "",
        ] {
            let error = name.parse::<DataSet>().unwrap_err().to_string();
            assert!(
                error.contains("cifar10, synthetic and synthetic:N"),
                "{error}"
            );
        }
    }

    #[test]
    fn sets_of_different_content_have_different_digests() {
        let digests = ["cifar10", "synthetic", "synthetic:512"]
            .map(|name| name.parse::<DataSet>().unwrap().digest());
        assert_ne!(digests[0], digests[1]);
        assert_ne!(digests[1], digests[2]);
    }
}
