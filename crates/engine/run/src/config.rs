//! What makes two runs the same run.
//!
//! A run is a function of this configuration: two runs that agree on all of it go through the same
//! states, bit by bit. So it is written into every checkpoint, handed to every worker, and may not
//! change when a run is resumed. Limits, addresses and intervals are not part of it.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::data_set::DataSet;
use crate::mode::Mode;
use crate::printable;
use crate::sequence::{InputKind, SampleSequence};
use crate::state_digest::StateDigest;

/// Most towers of a run: what is kept of a step is a few hundred bytes for each.
pub const MAX_TOWERS: u32 = 4096;

/// Most examples of a tower step: their images take 453 MB.
pub const MAX_BATCH_SIZE: u32 = 65_536;

/// The configuration of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Every random choice of the run follows from it.
    pub seed: u64,
    /// Micro-batches per step, from 1 to [`MAX_TOWERS`].
    #[serde(deserialize_with = "num_towers")]
    pub num_towers: u32,
    /// Examples per tower step, from 1 to [`MAX_BATCH_SIZE`].
    #[serde(deserialize_with = "batch_size")]
    pub batch_size: u32,
    /// How training examples are ordered and prepared.
    pub input: InputKind,
    /// What is trained on.
    pub data: DataSet,
    /// Learning rate before the first decay.
    pub learning_rate: f32,
    /// Epochs after which the learning rate decays.
    pub num_epochs_per_decay: f64,
    /// What those epochs are counted in.
    pub decay_by: DecayBy,
    /// Upper limit of the moving averages' decay.
    pub moving_average_decay: f32,
    /// Threads with which a worker computes one tower step on a CPU, at least 1.
    #[serde(deserialize_with = "threads")]
    pub threads: u32,
    /// Kernels asked for; what they resolve to is in `numerics`.
    pub kernels: Kernels,
    /// Digest of the state before the first step.
    pub initial_digest: StateDigest,
    /// What the first worker computed with; unknown until one has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerics: Option<Numerics>,
    /// Which gradients make an update.
    #[serde(default)]
    pub mode: Mode,
}

impl Numerics {
    /// Those of libtorch on a processor, for examples and tests.
    #[must_use]
    pub fn example(threads: u32) -> Self {
        Numerics {
            device: "cpu".to_owned(),
            instruction_set: "avx2".to_owned(),
            kernels: Kernels::Torch,
            threads,
            libtorch: "2.11.0".to_owned(),
        }
    }
}

impl RunConfig {
    /// Which examples each tower step takes.
    ///
    /// # Panics
    ///
    /// If there is no tower, or a batch or the data set has no example.
    #[must_use]
    pub fn sequence(&self) -> SampleSequence {
        SampleSequence::new(
            self.seed,
            self.num_towers,
            self.batch_size,
            self.data.num_train_examples(),
            self.input,
        )
    }

    /// A small run, for examples and tests: two towers of four out of twenty examples.
    #[must_use]
    pub fn example() -> Self {
        RunConfig {
            seed: 1,
            num_towers: 2,
            batch_size: 4,
            input: InputKind::Distorted,
            data: DataSet::Synthetic { num_examples: 20 },
            learning_rate: 0.1,
            num_epochs_per_decay: 350.0,
            decay_by: DecayBy::Steps,
            moving_average_decay: 0.9999,
            threads: 1,
            kernels: Kernels::Auto,
            initial_digest: StateDigest(0),
            numerics: None,
            mode: Mode::Synchronous,
        }
    }

    /// Gradients that make an update: those of all towers, or fewer in some modes.
    #[must_use]
    pub fn gradients_per_update(&self) -> u32 {
        self.mode.gradients_per_update(self.num_towers)
    }

    /// Examples that make an update.
    #[must_use]
    pub fn examples_per_update(&self) -> u64 {
        u64::from(self.gradients_per_update()) * u64::from(self.batch_size)
    }

    /// The settings that differ, each as `flag: before -> now`; empty for the same run.
    ///
    /// Numerics differ only where both are known.
    #[must_use]
    pub fn differences(&self, now: &RunConfig) -> Vec<String> {
        let numerics = |run: &RunConfig, other: &RunConfig| match (&run.numerics, &other.numerics) {
            (Some(numerics), Some(_)) => numerics.to_string(),
            _ => String::new(),
        };
        let settings = |run: &RunConfig, other: &RunConfig| {
            [
                ("--seed", run.seed.to_string()),
                ("--towers", run.num_towers.to_string()),
                ("--batch-size", run.batch_size.to_string()),
                ("--input", run.input.to_string()),
                ("--data", run.data.to_string()),
                ("--learning-rate", run.learning_rate.to_string()),
                (
                    "--num-epochs-per-decay",
                    run.num_epochs_per_decay.to_string(),
                ),
                ("--decay-by", run.decay_by.to_string()),
                (
                    "--moving-average-decay",
                    run.moving_average_decay.to_string(),
                ),
                ("--threads", run.threads.to_string()),
                ("--kernels", run.kernels.to_string()),
                ("--mode", run.mode.to_string()),
                ("initial state", run.initial_digest.to_string()),
                ("numerics", numerics(run, other)),
            ]
        };
        let pairs = settings(self, now).into_iter().zip(settings(now, self));
        pairs
            .filter(|((_, before), (_, now))| before != now)
            .map(|((name, before), (_, now))| format!("{name}: {before} -> {now}"))
            .collect()
    }
}

fn num_towers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    field_within(deserializer, "num_towers", MAX_TOWERS)
}

fn batch_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    field_within(deserializer, "batch_size", MAX_BATCH_SIZE)
}

fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    field_within(deserializer, "threads", u32::MAX)
}

fn field_within<'de, D: Deserializer<'de>>(
    deserializer: D,
    name: &str,
    most: u32,
) -> Result<u32, D::Error> {
    let found = u32::deserialize(deserializer)?;
    match (1..=most).contains(&found) {
        true => Ok(found),
        false => Err(D::Error::custom(format!(
            "{name} is {found}, expected 1 to {most}"
        ))),
    }
}

/// What the epochs between two decays of the learning rate are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayBy {
    /// Steps of one tower, whatever the number of towers: as the tutorial does.
    Steps,
    /// Examples of all towers.
    Examples,
}

/// Which kernels compute the tower step on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// The fastest that the first worker's processor has.
    Auto,
    /// libtorch's own.
    Torch,
    /// This project's, each convolution as its definition says.
    Direct,
    /// This project's, the second convolution by Winograd's minimal filtering.
    Winograd,
}

/// A name that is none of the choices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is none of {choices}")]
pub struct UnknownChoice {
    name: String,
    choices: &'static str,
}

/// Gives an enumeration of named choices its text form, the one that flags, logs and files use.
macro_rules! named_choices {
    ($type:ty, $choices:literal, { $($name:literal => $variant:path),+ }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($variant => $name),+ })
            }
        }

        impl FromStr for $type {
            type Err = UnknownChoice;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok($variant),)+
                    _ => Err(UnknownChoice { name: name.to_owned(), choices: $choices }),
                }
            }
        }
    };
}

named_choices!(DecayBy, "steps, examples", {
    "steps" => DecayBy::Steps,
    "examples" => DecayBy::Examples
});
named_choices!(Kernels, "auto, torch, direct, winograd", {
    "auto" => Kernels::Auto,
    "torch" => Kernels::Torch,
    "direct" => Kernels::Direct,
    "winograd" => Kernels::Winograd
});

/// What decides the bits of a gradient besides the variables and the examples.
///
/// Workers of equal numerics are interchangeable: any of them may compute any tower step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numerics {
    /// `cpu` or `cuda`.
    #[serde(deserialize_with = "printable::deserialize")]
    pub device: String,
    /// The widest vector instructions used, such as `avx512`.
    #[serde(deserialize_with = "printable::deserialize")]
    pub instruction_set: String,
    /// The kernels used; never [`Kernels::Auto`].
    pub kernels: Kernels,
    /// Threads of one tower step.
    pub threads: u32,
    /// Version of libtorch.
    #[serde(deserialize_with = "printable::deserialize")]
    pub libtorch: String,
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Numerics {
            device,
            instruction_set,
            kernels,
            threads,
            libtorch,
        } = self;
        write!(
            f,
            "{device}, {instruction_set}, {kernels} kernels, threads {threads}, libtorch {libtorch}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> RunConfig {
        RunConfig {
            batch_size: 128,
            data: DataSet::Cifar10,
            initial_digest: StateDigest(7),
            ..RunConfig::example()
        }
    }

    #[test]
    fn differences_name_the_flag_and_both_values() {
        let before = example();
        let now = RunConfig {
            num_towers: 4,
            learning_rate: 0.05,
            ..example()
        };
        assert_eq!(
            before.differences(&now),
            ["--towers: 2 -> 4", "--learning-rate: 0.1 -> 0.05"]
        );
        assert_eq!(before.differences(&before), [""; 0]);
    }

    #[test]
    fn numerics_differ_only_where_both_are_known() {
        let unknown = example();
        let known = RunConfig {
            numerics: Some(Numerics::example(1)),
            ..example()
        };
        let other = RunConfig {
            numerics: Some(Numerics::example(2)),
            ..example()
        };
        assert!(unknown.differences(&known).is_empty());
        assert_eq!(known.differences(&other).len(), 1);
    }

    #[test]
    fn a_text_form_of_more_than_there_can_be_is_refused_by_its_name() {
        let text = serde_json::to_string(&example()).unwrap();
        for (from, to, expected) in [
            (
                "\"num_towers\":2",
                "\"num_towers\":4097",
                "num_towers is 4097, expected 1 to 4096",
            ),
            (
                "\"num_towers\":2",
                "\"num_towers\":0",
                "num_towers is 0, expected 1",
            ),
            (
                "\"batch_size\":128",
                "\"batch_size\":65537",
                "batch_size is 65537, expected",
            ),
            ("\"threads\":1", "\"threads\":0", "threads is 0, expected 1"),
            (
                "\"cifar10\"",
                "\"synthetic:4000000000\"",
                "no data set is called",
            ),
            (
                "\"learning_rate\":0.1",
                "\"learning_rate\":1e999",
                "number out of range",
            ),
            (
                "\"learning_rate\":0.1",
                "\"learning_rate\":null",
                "invalid type: null",
            ),
        ] {
            let error = serde_json::from_str::<RunConfig>(&text.replace(from, to)).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_configuration_survives_its_text_form() {
        let run = RunConfig {
            numerics: Some(Numerics::example(1)),
            ..example()
        };
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<RunConfig>(&text).unwrap(), run);
        assert!(text.contains(r#""learning_rate":0.1,"#), "{text}");
    }
}
