//! A run in a few lines, for the end of a training: how far it came, how fast, and where the time went.

use std::fmt;

use pserver_run::GlobalStep;

use crate::history::History;
use crate::step_time::StepTime;
use crate::straggler::stragglers;
use crate::units::{count, counted, duration, millis, percent, steps};
use crate::workers::Workers;

/// Parts of a step that take less than this share of it, in a hundred, are not told.
const MIN_PERCENT: u64 = 3;

/// A run in a few lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The step it came to.
    pub reached: GlobalStep,
    /// What its last server did, if that was anything.
    pub training: Option<Training>,
    /// How many lines of the ledger were skipped.
    pub damaged_lines: u64,
}

/// What a server did from its start to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The step that it began with.
    pub first: GlobalStep,
    /// The last step that it committed.
    pub last: GlobalStep,
    /// How long it ran, in microseconds.
    pub wall_micros: u64,
    /// Examples of its steps.
    pub examples: u64,
    /// Mean total loss of the last step.
    pub loss: f32,
    /// Where the time of a step went.
    pub step_time: StepTime,
    /// The workers that held the others up, over the whole run, in sentences.
    pub stragglers: Vec<String>,
}

impl Summary {
    /// The summary of a run.
    #[must_use]
    pub fn of(history: &History) -> Self {
        Summary {
            reached: history.reached,
            training: Training::of_last_start(history),
            damaged_lines: history.damage.num_lines(),
        }
    }
}

impl Training {
    fn of_last_start(history: &History) -> Option<Self> {
        let number = history.starts.len().checked_sub(1)?;
        let committed = history.commits.iter();
        let committed: Vec<_> = committed
            .filter(|(_, committed)| committed.server_start == number)
            .collect();
        let ((first, _), (last, newest)) = (committed.first()?, committed.last()?);
        let commits = committed.iter().map(|(_, committed)| &committed.commit);
        Some(Training {
            first: **first,
            last: **last,
            wall_micros: history.starts[number].served_micros(),
            examples: history
                .run
                .examples_per_update()
                .saturating_mul(committed.len() as u64),
            loss: newest.commit.loss,
            step_time: StepTime::of(commits)?,
            stragglers: stragglers(&Workers::of(history)),
        })
    }

    /// Examples of all towers a second, from the start of the server to its end.
    #[must_use]
    pub fn examples_per_sec(&self) -> f64 {
        self.examples as f64 / (self.wall_micros.max(1) as f64 / 1e6)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.training {
            None => writeln!(f, "The run is at step {}.", count(self.reached.0))?,
            Some(training) => training.fmt(f)?,
        }
        match self.damaged_lines {
            0 => Ok(()),
            number => writeln!(
                f,
                "The ledger has {}: see `cifar-ps verify`.",
                counted(number, "damaged line")
            ),
        }
    }
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Trained {} in {}: {} examples/s, loss {:.2}.",
            steps(self.first, self.last),
            duration(self.wall_micros),
            count(self.examples_per_sec() as u64),
            self.loss
        )?;
        let whole = self.step_time.median_micros;
        writeln!(f, "A step took {} ms in the median:", millis(whole))?;
        for part in &self.step_time.parts {
            if part.median_micros.saturating_mul(100) >= whole.saturating_mul(MIN_PERCENT) {
                let share = percent(part.median_micros, whole);
                writeln!(f, "  {share:>5}  {}", part.name)?;
            }
        }
        for straggler in &self.stragglers {
            writeln!(f, "{straggler}.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::damage::Place;
    use crate::fixtures::{committed, history, joined, started, undisturbed};

    #[test]
    fn a_run_that_did_nothing_only_tells_where_it_is() {
        let text = Summary::of(&history(undisturbed(0))).to_string();
        assert_eq!(text, "The run is at step 0.\n");
    }

    #[test]
    fn damage_is_told() {
        let mut history = history(undisturbed(0));
        let place = Place { line: 7, offset: 1 };
        history.damage.add(place, "it is empty");
        let text = Summary::of(&history).to_string();
        assert!(text.ends_with("The ledger has 1 damaged line: see `cifar-ps verify`.\n"));
    }

    #[test]
    fn what_the_last_server_did_is_told() {
        let mut records = undisturbed(4);
        records.extend([started(4), joined(0, "host/10"), committed(4), committed(5)]);
        let summary = Summary::of(&history(records));
        let training = summary.training.as_ref().unwrap();
        assert_eq!(
            (training.first, training.last, training.examples),
            (GlobalStep(4), GlobalStep(5), 16)
        );
        let text = summary.to_string();
        assert!(
            text.starts_with("Trained steps 4 to 5 in 3.0 s: 5 examples/s, loss "),
            "{text}"
        );
        assert!(text.contains(" ms in the median:\n"), "{text}");
        let shares = text.lines().filter(|line| line.contains(" %  "));
        assert!((1..=7).contains(&shares.count()), "{text}");
    }
}
