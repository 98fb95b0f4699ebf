//! What is proven of a run, in numbers and in words, and what speaks against it.

use std::fmt::{self, Display};
use std::ops::Range;

use pserver_run::GlobalStep;

use crate::damage::Damage;
use crate::units::{count, counted, stretches, write_lines};

/// What was proven, and what a ledger that is not whole leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The stretches of steps, each with its towers once; none if nothing is committed yet.
    pub steps: Vec<Range<GlobalStep>>,
    /// Towers of each step.
    pub num_towers: u32,
    /// Examples of an epoch.
    pub num_examples: u32,
    /// The stretches of epochs of which each example was used exactly once.
    pub full_epochs: Vec<Range<u64>>,
    /// Epochs of which a part was used, and no example twice.
    pub partial_epochs: Vec<PartialEpoch>,
    /// The stretches of steps of which the ledger lacks the commits: damaged lines held them.
    pub gaps: Vec<Range<GlobalStep>>,
    /// The step that the ledger begins with, if the run had begun before.
    pub begins_late: Option<GlobalStep>,
    /// The lines that were skipped.
    pub damage: Damage,
}

/// An epoch of which a part was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialEpoch {
    /// Counted from 0.
    pub epoch: u64,
    /// The examples used.
    pub used: u32,
    /// Why it is not all of them.
    pub why: Partly,
}

/// Why not every example of an epoch is known to have been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partly {
    /// It is in progress.
    InProgress,
    /// It had begun before the ledger.
    BegunBefore,
    /// Damaged lines held steps of it.
    Gap,
}

/// Why nothing was proven, in sentences that name step, tower and worker; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub Vec<String>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = counted(self.0.len() as u64, "finding");
        writeln!(f, "not proven: {number}")?;
        write_lines(f, &self.0)
    }
}

impl Proof {
    /// Whether the ledger shows all of the run: no line is damaged, and its beginning is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.begins_late.is_none()
    }

    fn tell_what_is_open(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.gaps.is_empty() {
            let gaps = stretches(&self.gaps);
            writeln!(f, "not proven: the ledger lacks {gaps}")?;
        }
        if let Some(step) = self.begins_late {
            let step = count(step.0);
            writeln!(
                f,
                "not proven: what came before this ledger, which begins at step {step} of a run that had begun earlier"
            )?;
        }
        self.damage.fmt(f)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            writeln!(f, "no step is committed yet: there is nothing to prove")?;
            return self.tell_what_is_open(f);
        }
        let proven = match self.is_whole() {
            true => "proven",
            false => "proven in part",
        };
        let of_steps = stretches(&self.steps);
        let num_towers = counted(u64::from(self.num_towers), "tower step");
        writeln!(
            f,
            "{proven}: {of_steps} took {num_towers} each, of exactly the examples that were theirs",
        )?;
        let num_examples = count(u64::from(self.num_examples));
        if self.full_epochs.is_empty() {
            writeln!(f, "no epoch is whole yet")?;
        }
        for Range { start, end } in &self.full_epochs {
            match end - start {
                1 => writeln!(
                    f,
                    "epoch {start} used each of the {num_examples} examples exactly once"
                )?,
                number => writeln!(
                    f,
                    "epochs {start} to {} used each of the {num_examples} examples exactly once: {}",
                    end - 1,
                    counted(number, "full epoch"),
                )?,
            }
        }
        for part in &self.partial_epochs {
            let used = count(u64::from(part.used));
            let PartialEpoch { epoch, .. } = part;
            let which = match part.why {
                Partly::BegunBefore => "began before this ledger",
                Partly::InProgress => "is in progress",
                Partly::Gap => "is not proven",
            };
            writeln!(
                f,
                "epoch {epoch} {which}: {used} of its {num_examples} examples are on record, none twice"
            )?;
        }
        self.tell_what_is_open(f)
    }
}
