//! Where the time of a step goes, in the median over many.

use std::cmp::Reverse;
use std::fmt;

use serde::Serialize;

use crate::record::{Commit, TowerRecord};
use crate::units::{median, millis, percent, percentile_95};

/// The parts of a step, one after the other. A step begins with the commit before it and ends with
/// its own; what comes last decides when all gradients are there.
pub const PARTS: [&str; 7] = [
    "until the tower step that comes last is given out",
    "a worker computes it",
    "its gradient and variables travel, or wait for the server",
    "mean, gradient descent and moving averages",
    "digest of the new state",
    "state into its file",
    "record into the ledger",
];

/// The time of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// Half of the steps took no longer, in microseconds.
    pub median_micros: u64,
    /// 95 in 100 steps took no longer.
    pub percentile_95_micros: u64,
    /// The median of each part.
    pub parts: Vec<Part>,
    /// How long the first gradient of a step waited for the last, in the median.
    pub first_waited_micros: u64,
}

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What happens in it.
    pub name: &'static str,
    /// How long it takes in the median, in microseconds.
    pub median_micros: u64,
}

impl Part {
    /// The median of each of [`PARTS`] over these steps.
    pub fn medians(steps: impl Iterator<Item = [u64; PARTS.len()]> + Clone) -> Vec<Part> {
        let part = |(index, name)| Part {
            name,
            median_micros: median(steps.clone().map(|parts| parts[index])),
        };
        PARTS.into_iter().enumerate().map(part).collect()
    }
}

/// The gradient that a step waited for.
pub(crate) fn last_of(commit: &Commit) -> Option<&TowerRecord> {
    let waited_then_held =
        |record: &&TowerRecord| (record.waited_micros, Reverse(record.held_micros));
    commit.towers.iter().min_by_key(waited_then_held)
}

/// The time of each of [`PARTS`], in microseconds.
#[must_use]
pub fn parts_of(commit: &Commit) -> [u64; PARTS.len()] {
    let (held, compute) = last_of(commit).map_or((0, 0), |last| {
        (last.held_micros, last.compute_micros.min(last.held_micros))
    });
    let phases = commit.phases;
    [
        commit.gather_micros.saturating_sub(held),
        compute,
        held - compute,
        phases.apply_micros,
        phases.digest_micros,
        phases.write_micros,
        phases.ledger_micros,
    ]
}

/// Time from the commit before to the end of this one, in microseconds.
#[must_use]
pub fn total_of(commit: &Commit) -> u64 {
    let phases = commit.phases;
    [
        commit.gather_micros,
        phases.apply_micros,
        phases.digest_micros,
        phases.write_micros,
        phases.ledger_micros,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

impl StepTime {
    /// The time of these steps; `None` if there are none.
    #[must_use]
    pub fn of<'a>(commits: impl Iterator<Item = &'a Commit> + Clone) -> Option<Self> {
        commits.clone().next()?;
        let first_waited = |commit: &Commit| {
            let waited = commit.towers.iter().map(|record| record.waited_micros);
            waited.max().unwrap_or(0)
        };
        Some(StepTime {
            median_micros: median(commits.clone().map(total_of)),
            percentile_95_micros: percentile_95(commits.clone().map(total_of)),
            parts: Part::medians(commits.clone().map(parts_of)),
            first_waited_micros: median(commits.clone().map(first_waited)),
        })
    }
}

impl fmt::Display for StepTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "A step takes {} ms in the median; 95 in 100 take at most {} ms.",
            millis(self.median_micros),
            millis(self.percentile_95_micros)
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "  {:58}{:>12}{:>10}",
            "in a step, one after the other", "median ms", "share"
        )?;
        for Part {
            name,
            median_micros,
        } in &self.parts
        {
            let share = percent(*median_micros, self.median_micros);
            writeln!(f, "  {name:58}{:>12}{share:>10}", millis(*median_micros))?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "The gradient that comes first waits {} ms for the one that comes last.",
            millis(self.first_waited_micros)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::commit;
    use crate::record::Phases;

    /// Tower 1 is given out 5 ms into the step, takes 30 ms, 20 of them computing, and comes last.
    fn step() -> Commit {
        let mut commit = commit(0, &[0, 1]);
        commit.gather_micros = 35_000;
        commit.phases = Phases {
            apply_micros: 1000,
            digest_micros: 2000,
            write_micros: 3000,
            ledger_micros: 4000,
        };
        commit.towers[0].waited_micros = 7000;
        commit.towers[1].waited_micros = 0;
        commit.towers[1].held_micros = 30_000;
        commit.towers[1].compute_micros = 20_000;
        commit
    }

    #[test]
    fn the_parts_of_a_step_make_up_its_time() {
        let commit = step();
        let parts = parts_of(&commit);
        assert_eq!(parts, [5000, 20_000, 10_000, 1000, 2000, 3000, 4000]);
        assert_eq!(parts.iter().sum::<u64>(), total_of(&commit));
    }

    #[test]
    fn the_time_of_a_step_is_told_with_the_share_of_each_part() {
        let commits = [step(), step(), step()];
        let time = StepTime::of(commits.iter()).unwrap();
        assert_eq!(time.first_waited_micros, 7000);
        let text = time.to_string();
        assert!(
            text.starts_with("A step takes 45.0 ms in the median"),
            "{text}"
        );
        let computes = text.lines().find(|line| line.contains("computes it"));
        assert!(
            computes.unwrap().ends_with("        20.0      44 %"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 100));
        assert_eq!(StepTime::of([].iter()), None);
    }
}
