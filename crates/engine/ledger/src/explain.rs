//! A whole run, told to people: how far and how fast it went, where the time goes, and who is slow.

use std::fmt;

use pserver_run::GlobalStep;

use crate::damage::Damage;
use crate::history::{History, Rewound, ServerStart};
use crate::incidents::{Incidents, how};
use crate::record::Record;
use crate::step_time::StepTime;
use crate::straggler::{Straggler, stragglers};
use crate::units::{count, counted, duration, moment, steps, write_lines};
use crate::workers::Workers;

/// A run, told to people. Its `Display` fits into 100 columns, but for long names.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// When the first server started, in microseconds since 1970.
    pub begun_micros: u64,
    /// From then to the last record.
    pub wall_micros: u64,
    /// The part of it that a server ran.
    pub served_micros: u64,
    /// Each start of the server.
    pub starts: Vec<Started>,
    /// Each time that the run went back.
    pub rewinds: Vec<Rewound>,
    /// How many records contradict others.
    pub num_contradictions: usize,
    /// The lines that were skipped.
    pub damage: Damage,
    /// The commits; `None` if there are none.
    pub course: Option<Course>,
    /// What each worker did.
    pub workers: Workers,
    /// The workers that hold the others up.
    pub stragglers: Vec<Straggler>,
    /// What happened besides.
    pub incidents: Incidents,
}

/// A start of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// When, in microseconds since 1970.
    pub at_micros: u64,
    /// The step it went on with.
    pub step: GlobalStep,
    /// Workers that came.
    pub num_workers: usize,
    /// How it ended.
    pub ending: &'static str,
}

/// The commits of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// The first step.
    pub first: GlobalStep,
    /// The last step.
    pub last: GlobalStep,
    /// Mean total loss of the first and of the last step.
    pub losses: [f32; 2],
    /// Tower steps that make a step.
    pub num_towers: u32,
    /// Examples of a tower step.
    pub batch_size: u32,
    /// The time of a step.
    pub step_time: StepTime,
}

/// Tells of a whole run.
#[must_use]
pub fn explain(history: &History) -> Explanation {
    let workers = Workers::of(history);
    let begun_micros = history.starts[0].at_micros;
    let ends = history.starts.iter().map(|start| start.last_at_micros);
    let served = |start: &ServerStart| start.last_at_micros - start.at_micros;
    Explanation {
        begun_micros,
        wall_micros: ends
            .max()
            .unwrap_or(begun_micros)
            .saturating_sub(begun_micros),
        served_micros: history
            .starts
            .iter()
            .map(served)
            .fold(0, u64::saturating_add),
        starts: starts_of(history),
        rewinds: history.rewinds.clone(),
        num_contradictions: history.contradictions.len(),
        damage: history.damage.clone(),
        course: course_of(history),
        stragglers: stragglers(&workers),
        workers,
        incidents: Incidents::of(history),
    }
}

fn starts_of(history: &History) -> Vec<Started> {
    let mut endings = vec!["killed"; history.starts.len()];
    if let Some(last) = endings.last_mut() {
        *last = "runs, or was killed";
    }
    for event in &history.events {
        if let Record::End { outcome, .. } = event.record {
            endings[event.server_start] = how(outcome);
        }
    }
    let started = |(start, ending): (&ServerStart, _)| Started {
        at_micros: start.at_micros,
        step: start.start.global_step,
        num_workers: start.workers.len(),
        ending,
    };
    history.starts.iter().zip(endings).map(started).collect()
}

fn course_of(history: &History) -> Option<Course> {
    let (first, first_committed) = history.commits.first_key_value()?;
    let (last, last_committed) = history.commits.last_key_value()?;
    let commits = history.commits.values().map(|committed| &committed.commit);
    Some(Course {
        first: *first,
        last: *last,
        losses: [first_committed.commit.loss, last_committed.commit.loss],
        num_towers: history.run.gradients_per_update(),
        batch_size: history.run.batch_size,
        step_time: StepTime::of(commits)?,
    })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.course {
            None => writeln!(f, "No step is committed yet.")?,
            Some(course) => course.fmt(f)?,
        }
        let (begun, wall) = (moment(self.begun_micros), duration(self.wall_micros));
        writeln!(f, "Begun at {begun}; the last record is from {wall} later.")?;
        if self.starts.len() > 1 {
            let served = duration(self.served_micros);
            writeln!(f, "A server ran for {served} of it.")?;
        }
        writeln!(f)?;
        writeln!(f, "Starts of the server:")?;
        write_lines(f, &self.starts)?;
        if !self.rewinds.is_empty() {
            writeln!(f, "Going back:")?;
            write_lines(f, &self.rewinds)?;
        }
        if self.num_contradictions > 0 {
            let places = counted(self.num_contradictions as u64, "place");
            writeln!(
                f,
                "The ledger contradicts itself in {places}: `cifar-ps verify` names them."
            )?;
        }
        write!(f, "{}", self.damage)?;
        writeln!(f)?;
        if let Some(course) = &self.course {
            writeln!(f, "{}", course.step_time)?;
            writeln!(f, "{}", self.workers)?;
            for straggler in &self.stragglers {
                writeln!(f, "{straggler}")?;
            }
            if !self.stragglers.is_empty() {
                writeln!(f)?;
            }
        }
        self.incidents.fmt(f)
    }
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}  at step {:>9}, {:>11}, {}",
            moment(self.at_micros),
            count(self.step.0),
            counted(self.num_workers as u64, "worker"),
            self.ending
        )
    }
}

impl fmt::Display for Rewound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}  to step {:>9}, {} undone",
            moment(self.at_micros),
            count(self.to.0),
            counted(self.undone as u64, "commit")
        )
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first_loss, last_loss] = self.losses;
        writeln!(
            f,
            "Committed: {}, loss {first_loss:.3} in the first and {last_loss:.3} in the last.",
            steps(self.first, self.last)
        )?;
        let examples = u64::from(self.num_towers) * u64::from(self.batch_size);
        let seconds = self.step_time.median_micros.max(1) as f64 / 1e6;
        writeln!(
            f,
            "A step has {} of {}: {} examples/s in the median.",
            counted(u64::from(self.num_towers), "tower step"),
            counted(u64::from(self.batch_size), "example"),
            count((examples as f64 / seconds) as u64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{committed, ended, history, joined, rewound, started, undisturbed};

    #[test]
    fn a_run_without_a_step_is_told_without_tables() {
        let text = explain(&history(undisturbed(0))).to_string();
        assert_eq!(
            text,
            "No step is committed yet.\n\
             Begun at 2023-11-14 22:13:20 UTC; the last record is from 2.0 s later.\n\
             \n\
             Starts of the server:\n  \
               2023-11-14 22:13:20 UTC  at step         0,   2 workers, runs, or was killed\n\
             \n\
             Every gradient that came counted.\n"
        );
    }

    #[test]
    fn starts_and_rewinds_are_told() {
        let mut records = undisturbed(4);
        records.extend([
            started(2),
            rewound(2),
            joined(0, "host/10"),
            committed(2),
            ended(3),
        ]);
        let explanation = explain(&history(records));
        let endings: Vec<&str> = explanation
            .starts
            .iter()
            .map(|start| start.ending)
            .collect();
        assert_eq!(endings, ["killed", "complete"]);
        assert_eq!(explanation.rewinds[0].undone, 2);
        assert_eq!(explanation.served_micros, 6_000_000 + 4_000_000);
        let text = explanation.to_string();
        for part in [
            "Committed: steps 0 to 2, loss 4.500 in the first and 4.500 in the last.\n",
            "A step has 2 tower steps of 4 examples: 7,920 examples/s in the median.\n",
            "11.0 s later.\nA server ran for 10.0 s of it.\n",
            "to step         2, 2 commits undone\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
