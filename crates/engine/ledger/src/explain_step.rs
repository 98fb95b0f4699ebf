//! One step, told to people: who did which tower, when, and who was last.

use std::fmt;

use pserver_run::{GlobalStep, StateDigest, Tower};

use crate::history::{Event, History, Worker, unit_of};
use crate::incidents::told;
use crate::record::{Commit, Phases, TowerRecord};
use crate::step_time::{last_of, total_of};
use crate::units::{count, millis, moment, write_lines};

/// A step, told to people.
#[derive(Clone, Debug, PartialEq)]
pub struct StepExplanation {
    /// The step.
    pub step: GlobalStep,
    /// When it was committed, in microseconds since 1970.
    pub at_micros: u64,
    /// From the commit before to the end of this one.
    pub total_micros: u64,
    /// Learning rate that was applied.
    pub learning_rate: f32,
    /// Mean total loss.
    pub loss: f32,
    /// Its tower steps.
    pub towers: Vec<TowerExplanation>,
    /// The tower that came last, and who had computed it.
    pub last: Option<(Tower, Worker)>,
    /// What the commit took.
    pub phases: Phases,
    /// Digest of the state after it.
    pub digest: StateDigest,
    /// What else happened in it, in sentences.
    pub events: Vec<String>,
}

/// A tower step. Times are in microseconds, the moments since the commit before.
#[derive(Clone, Debug, PartialEq)]
pub struct TowerExplanation {
    /// The tower.
    pub tower: Tower,
    /// Who computed it.
    pub worker: Worker,
    /// When it was given out.
    pub given_micros: u64,
    /// How long it was computed.
    pub compute_micros: u64,
    /// When its gradient was there.
    pub arrived_micros: u64,
    /// How long that waited for the last.
    pub waited_micros: u64,
    /// Total loss.
    pub loss: f32,
    /// Euclidean norm of the gradient.
    pub norm: f32,
}

/// A step that is not on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchStep {
    /// No step is.
    #[error("step {step} is not committed, nor is any other yet")]
    NoneYet {
        /// The step asked for.
        step: GlobalStep,
    },
    /// Others are.
    #[error("step {step} is not committed; give one from {first} to {last}")]
    Outside {
        /// The step asked for.
        step: GlobalStep,
        /// The first on record.
        first: GlobalStep,
        /// The last on record.
        last: GlobalStep,
    },
    /// Others before and after it are: a damaged line held it.
    #[error(
        "step {step} is not on record, though later ones are: `cifar-ps verify` says what the ledger lacks"
    )]
    Gap {
        /// The step asked for.
        step: GlobalStep,
    },
}

/// Tells of one step.
///
/// # Errors
///
/// [`NoSuchStep`] if it is not committed.
pub fn explain_step(history: &History, step: GlobalStep) -> Result<StepExplanation, NoSuchStep> {
    let committed = history.commits.get(&step).ok_or_else(|| {
        let mut steps = history.commits.keys();
        match (steps.next(), steps.next_back()) {
            (None, _) => NoSuchStep::NoneYet { step },
            (Some(first), Some(last)) if (first..last).contains(&&step) => NoSuchStep::Gap { step },
            (Some(first), last) => NoSuchStep::Outside {
                step,
                first: *first,
                last: *last.unwrap_or(first),
            },
        }
    })?;
    let commit = &committed.commit;
    let worker = |number| history.worker(committed.server_start, number);
    let last = last_of(commit).map(|record| (record.of.tower, worker(record.worker)));
    Ok(StepExplanation {
        step,
        at_micros: committed.at_micros,
        total_micros: total_of(commit),
        learning_rate: commit.learning_rate,
        loss: commit.loss,
        towers: towers_of(commit, worker),
        last,
        phases: commit.phases,
        digest: commit.digest,
        events: events_of(history, step),
    })
}

fn towers_of(commit: &Commit, worker: impl Fn(u32) -> Worker) -> Vec<TowerExplanation> {
    let tower = |record: &TowerRecord| {
        let arrived_micros = commit.gather_micros.saturating_sub(record.waited_micros);
        TowerExplanation {
            tower: record.of.tower,
            worker: worker(record.worker),
            given_micros: arrived_micros.saturating_sub(record.held_micros),
            compute_micros: record.compute_micros,
            arrived_micros,
            waited_micros: record.waited_micros,
            loss: record.loss,
            norm: record.norm,
        }
    };
    commit.towers.iter().map(tower).collect()
}

fn events_of(history: &History, step: GlobalStep) -> Vec<String> {
    let of_step = history
        .events
        .iter()
        .filter(|event| unit_of(&event.record).is_some_and(|of| of.global_step == step));
    let sentence = |event: &Event| {
        let undone = if event.undone {
            ", before the run went back"
        } else {
            ""
        };
        let worker = |number| history.worker(event.server_start, number);
        format!("{}{undone}", told(&event.record, &worker))
    };
    of_step.map(sentence).collect()
}

impl fmt::Display for StepExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Step {} was committed at {}, after {} ms.",
            count(self.step.0),
            moment(self.at_micros),
            millis(self.total_micros)
        )?;
        writeln!(
            f,
            "Loss {:.4}, learning rate {}; digest of the state after it: {}",
            self.loss, self.learning_rate, self.digest
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "  {:>5}{:>12}{:>13}{:>12}{:>12}{:>9}{:>10}  worker",
            "tower", "given at ms", "computes ms", "there at ms", "waits ms", "loss", "norm"
        )?;
        for tower in &self.towers {
            writeln!(f, "  {tower}")?;
        }
        writeln!(f)?;
        if let Some((tower, worker)) = &self.last {
            writeln!(f, "Tower {tower} came last, from {worker}.")?;
        }
        let Phases {
            apply_micros,
            digest_micros,
            write_micros,
            ledger_micros,
        } = self.phases;
        writeln!(
            f,
            "Then, in ms: update {}, digest {}, state into its file {}, record before into the ledger {}.",
            millis(apply_micros),
            millis(digest_micros),
            millis(write_micros),
            millis(ledger_micros)
        )?;
        if !self.events.is_empty() {
            writeln!(f)?;
            writeln!(f, "What else happened in it:")?;
            write_lines(f, &self.events)?;
        }
        Ok(())
    }
}

impl fmt::Display for TowerExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5}{:>12}{:>13}{:>12}{:>12}{:>9.4}{:>10.4}  {}",
            self.tower.0,
            millis(self.given_micros),
            millis(self.compute_micros),
            millis(self.arrived_micros),
            millis(self.waited_micros),
            self.loss,
            self.norm,
            self.worker
        )
    }
}

#[cfg(test)]
mod tests {
    use pserver_run::TowerStep;

    use super::*;
    use crate::fixtures::{commit, committed, history, rewound, undisturbed};
    use crate::record::{Dropped, Record};

    fn dropped(step: u64) -> Record {
        Record::Dropped {
            of: TowerStep {
                global_step: GlobalStep(step),
                tower: Tower(0),
            },
            worker: 1,
            reason: Dropped::Duplicate,
        }
    }

    #[test]
    fn a_step_tells_who_did_what_when() {
        let mut records = undisturbed(1);
        let mut commit = commit(1, &[(0, 1), (1, 0)]);
        commit.gather_micros = 40_000;
        for (record, (held, waited)) in commit.towers.iter_mut().zip([(40, 0), (25, 10)]) {
            record.held_micros = held * 1000;
            record.waited_micros = waited * 1000;
        }
        records.extend([Record::Commit(commit), dropped(1), dropped(0)]);
        let step = explain_step(&history(records), GlobalStep(1)).unwrap();
        let moments: Vec<_> = step
            .towers
            .iter()
            .map(|tower| (tower.given_micros, tower.arrived_micros))
            .collect();
        assert_eq!(moments, [(0, 40_000), (5000, 30_000)]);
        assert_eq!(step.events.len(), 1);
        let text = step.to_string();
        assert!(
            text.contains("Tower 0 came last, from worker 1 (host/11).\n"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "  a gradient of step 1 tower 0 by worker 1 (host/11) did not count: \
                 another had come before\n"
            ),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn what_happened_before_the_run_went_back_is_told_as_such() {
        let mut records = undisturbed(2);
        records.extend([dropped(1), rewound(1), committed(1)]);
        let step = explain_step(&history(records), GlobalStep(1)).unwrap();
        assert!(step.events[0].ends_with(", before the run went back"));
    }

    #[test]
    fn a_step_that_is_not_there_says_which_are() {
        let asked = |steps| {
            let history = history(undisturbed(steps));
            explain_step(&history, GlobalStep(9))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(asked(3), "step 9 is not committed; give one from 0 to 2");
        assert_eq!(asked(0), "step 9 is not committed, nor is any other yet");

        let mut records = undisturbed(2);
        records.push(committed(4));
        let gap = explain_step(&history(records), GlobalStep(2)).unwrap_err();
        assert!(
            gap.to_string().starts_with("step 2 is not on record"),
            "{gap}"
        );
    }
}
