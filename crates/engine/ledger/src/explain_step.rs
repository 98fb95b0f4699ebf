//! One step, told to people: who did which tower, when, and who was last.

use std::fmt;

use pserver_run::GlobalStep;

use crate::history::{Committed, Event, History, Worker, unit_of};
use crate::incidents::told;
use crate::record::{Commit, Phases, TowerRecord};
use crate::step_time::{last_of, total_of};
use crate::units::{count, millis, moment, write_lines};

/// A step, told to people. Times are in milliseconds, the moments since the commit before.
#[derive(Clone, Copy, Debug)]
pub struct StepExplanation<'a> {
    history: &'a History,
    committed: &'a Committed,
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
pub fn explain_step(
    history: &History,
    step: GlobalStep,
) -> Result<StepExplanation<'_>, NoSuchStep> {
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
    Ok(StepExplanation { history, committed })
}

impl StepExplanation<'_> {
    fn commit(&self) -> &Commit {
        &self.committed.commit
    }

    fn worker(&self, number: u32) -> Worker {
        self.history.worker(self.committed.server_start, number)
    }

    fn tell_tower(&self, f: &mut fmt::Formatter<'_>, record: &TowerRecord) -> fmt::Result {
        let gather_micros = self.commit().gather_micros;
        let arrived_micros = gather_micros.saturating_sub(record.waited_micros);
        let given_micros = arrived_micros.saturating_sub(record.held_micros);
        writeln!(
            f,
            "  {:>5}{:>12}{:>13}{:>12}{:>12}{:>9.4}{:>10.4}  {}",
            record.of.tower.0,
            millis(given_micros),
            millis(record.compute_micros),
            millis(arrived_micros),
            millis(record.waited_micros),
            record.loss,
            record.norm,
            self.worker(record.worker)
        )
    }

    /// What else happened in the step, in sentences.
    fn events(&self) -> Vec<String> {
        let step = self.commit().global_step;
        let events = self.history.events.iter();
        let of_step =
            events.filter(|event| unit_of(&event.record).is_some_and(|of| of.global_step == step));
        let sentence = |event: &Event| {
            let undone = if event.undone {
                ", before the run went back"
            } else {
                ""
            };
            let worker = |number| self.history.worker(event.server_start, number);
            format!("{}{undone}", told(&event.record, &worker))
        };
        of_step.map(sentence).collect()
    }
}

impl fmt::Display for StepExplanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit();
        writeln!(
            f,
            "Step {} was committed at {}, after {} ms.",
            count(commit.global_step.0),
            moment(self.committed.at_micros),
            millis(total_of(commit))
        )?;
        writeln!(
            f,
            "Loss {:.4}, learning rate {}; digest of the state after it: {}",
            commit.loss, commit.learning_rate, commit.digest
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "  {:>5}{:>12}{:>13}{:>12}{:>12}{:>9}{:>10}  worker",
            "tower", "given at ms", "computes ms", "there at ms", "waits ms", "loss", "norm"
        )?;
        for record in &commit.towers {
            self.tell_tower(f, record)?;
        }
        writeln!(f)?;
        if let Some(last) = last_of(commit) {
            let (tower, worker) = (last.of.tower, self.worker(last.worker));
            writeln!(f, "Tower {tower} came last, from {worker}.")?;
        }
        let Phases {
            apply_micros,
            digest_micros,
            write_micros,
            ledger_micros,
        } = commit.phases;
        writeln!(
            f,
            "Then, in ms: update {}, digest {}, state into its file {}, record before into the ledger {}.",
            millis(apply_micros),
            millis(digest_micros),
            millis(write_micros),
            millis(ledger_micros)
        )?;
        let events = self.events();
        if !events.is_empty() {
            writeln!(f)?;
            writeln!(f, "What else happened in it:")?;
            write_lines(f, &events)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{commit, committed, history, rewound, undisturbed, unit};
    use crate::record::{Dropped, Record};

    fn dropped(step: u64) -> Record {
        Record::Dropped {
            of: unit(step, 0),
            worker: 1,
            reason: Dropped::Duplicate,
        }
    }

    #[test]
    fn a_step_tells_who_did_what_when() {
        let mut records = undisturbed(1);
        let mut commit = commit(1, &[1, 0]);
        commit.gather_micros = 40_000;
        for (record, (held, waited)) in commit.towers.iter_mut().zip([(40, 0), (25, 10)]) {
            record.held_micros = held * 1000;
            record.waited_micros = waited * 1000;
        }
        records.extend([Record::Commit(commit), dropped(1), dropped(0)]);
        let history = history(records);
        let step = explain_step(&history, GlobalStep(1)).unwrap();
        assert_eq!(step.events().len(), 1);
        let text = step.to_string();
        for moments in [
            "      0         0.0          0.9        40.0         0.0",
            "      1         5.0          0.9        30.0        10.0",
        ] {
            assert!(text.contains(moments), "{text}");
        }
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
        let history = history(records);
        let step = explain_step(&history, GlobalStep(1)).unwrap();
        assert!(step.events()[0].ends_with(", before the run went back"));
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
        let history = history(records);
        let gap = explain_step(&history, GlobalStep(2)).unwrap_err();
        assert!(
            gap.to_string().starts_with("step 2 is not on record"),
            "{gap}"
        );
    }
}
