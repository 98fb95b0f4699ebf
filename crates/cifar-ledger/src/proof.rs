//! What is proven of a run, in numbers and in words.

use std::fmt;
use std::ops::Range;

use cifar_sequence::GlobalStep;

use crate::units::{count, counted, steps};

/// What was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The steps, each with its towers once; empty if nothing is committed yet.
    pub steps: Range<GlobalStep>,
    /// Towers of each step.
    pub num_towers: u32,
    /// Examples of an epoch.
    pub num_examples: u32,
    /// Epochs of which each example was used exactly once.
    pub full_epochs: Range<u64>,
    /// Epochs of which a part was used, and no example twice: the one in progress, and one that
    /// had begun before the ledger.
    pub partial_epochs: Vec<PartialEpoch>,
}

/// An epoch of which a part was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialEpoch {
    /// Counted from 0.
    pub epoch: u64,
    /// The examples used.
    pub used: u32,
    /// Whether it had begun before the ledger.
    pub begun_before: bool,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.steps;
        if start == end {
            return writeln!(f, "no step is committed yet: there is nothing to prove");
        }
        writeln!(
            f,
            "proven: {} took {} each, of exactly the examples that were theirs",
            steps(start, GlobalStep(end.0 - 1)),
            counted(u64::from(self.num_towers), "tower step"),
        )?;
        let num_examples = count(u64::from(self.num_examples));
        let (first, past) = (self.full_epochs.start, self.full_epochs.end);
        match past.saturating_sub(first) {
            0 => writeln!(f, "no epoch is whole yet")?,
            1 => writeln!(
                f,
                "epoch {first} used each of the {num_examples} examples exactly once"
            )?,
            number => writeln!(
                f,
                "epochs {first} to {} used each of the {num_examples} examples exactly once: {}",
                past - 1,
                counted(number, "full epoch"),
            )?,
        }
        for part in &self.partial_epochs {
            let used = count(u64::from(part.used));
            let PartialEpoch { epoch, .. } = part;
            let which = if part.begun_before {
                "began before this ledger"
            } else {
                "is in progress"
            };
            writeln!(
                f,
                "epoch {epoch} {which}: {used} of its {num_examples} examples are on record, none twice"
            )?;
        }
        Ok(())
    }
}
