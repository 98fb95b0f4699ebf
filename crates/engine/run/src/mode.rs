//! Which gradients make an update of the variables.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which gradients make an update.
///
/// Its text form, in files, messages and flags' differences, is `sync`, `quorum:R`, `async:S` or
/// `async:S:scaled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Mode {
    /// All towers of a step: the same bits for any number of workers, whatever happens to them.
    #[default]
    Synchronous,
    /// The first few of a step's towers; the others are dropped. TensorFlow's
    /// SyncReplicasOptimizer with backup workers.
    Quorum {
        /// Gradients that make an update, at least 1 and fewer than the towers.
        replicas_to_aggregate: u32,
    },
    /// Each gradient when it comes, at variables that others have moved meanwhile.
    Asynchronous {
        /// A gradient that more updates than this have overtaken is dropped.
        max_staleness: u32,
        /// Whether the learning rate is divided by one more than the staleness ("Staleness-aware
        /// Async-SGD", Zhang et al. 2016).
        scaled: bool,
    },
}

impl Mode {
    /// Gradients that make an update of a run of `num_towers` towers.
    #[must_use]
    pub fn gradients_per_update(self, num_towers: u32) -> u32 {
        match self {
            Mode::Synchronous => num_towers,
            Mode::Quorum {
                replicas_to_aggregate,
            } => replicas_to_aggregate,
            Mode::Asynchronous { .. } => 1,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Synchronous => f.write_str("sync"),
            Mode::Quorum {
                replicas_to_aggregate,
            } => write!(f, "quorum:{replicas_to_aggregate}"),
            Mode::Asynchronous {
                max_staleness,
                scaled: false,
            } => write!(f, "async:{max_staleness}"),
            Mode::Asynchronous {
                max_staleness,
                scaled: true,
            } => write!(f, "async:{max_staleness}:scaled"),
        }
    }
}

/// Text that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no mode is called {0:?}; there are sync, quorum:R, async:S and async:S:scaled")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownMode(text.to_owned());
        let number = |text: &str| text.parse().map_err(|_| unknown());
        match text.split(':').collect::<Vec<_>>()[..] {
            ["sync"] => Ok(Mode::Synchronous),
            ["quorum", replicas] => Ok(Mode::Quorum {
                replicas_to_aggregate: number(replicas)?,
            }),
            ["async", staleness] => Ok(Mode::Asynchronous {
                max_staleness: number(staleness)?,
                scaled: false,
            }),
            ["async", staleness, "scaled"] => Ok(Mode::Asynchronous {
                max_staleness: number(staleness)?,
                scaled: true,
            }),
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = UnknownMode;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_survives_its_text_form() {
        for text in ["sync", "quorum:3", "async:16", "async:0:scaled"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        for text in ["", "quorum", "async:-1", "async:4:fast", "sync:1"] {
            let error = text.parse::<Mode>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
