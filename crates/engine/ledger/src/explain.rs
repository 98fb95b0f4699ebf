//! A whole run, told to people: how far and how fast it went, where the time goes, and who is slow.

use std::fmt;

use crate::history::{History, Rewound, ServerStart};
use crate::incidents::{Incidents, how};
use crate::record::Record;
use crate::step_time::StepTime;
use crate::straggler::stragglers;
use crate::units::{count, counted, duration, moment, steps, write_lines};
use crate::workers::Workers;

/// A run, told to people. Its `Display` fits into 100 columns, but for long names.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a>(&'a History);

/// Tells of a whole run.
#[must_use]
pub fn explain(history: &History) -> Explanation<'_> {
    Explanation(history)
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation(history) = self;
        let commits = history.commits.values().map(|committed| &committed.commit);
        let step_time = StepTime::of(commits);
        match &step_time {
            None => writeln!(f, "No step is committed yet.")?,
            Some(step_time) => tell_course(f, history, step_time)?,
        }
        tell_starts(f, history)?;
        if !history.rewinds.is_empty() {
            writeln!(f, "Going back:")?;
            write_lines(f, &history.rewinds)?;
        }
        if !history.contradictions.is_empty() {
            let places = counted(history.contradictions.len() as u64, "place");
            writeln!(
                f,
                "The ledger contradicts itself in {places}: `cifar-ps verify` names them."
            )?;
        }
        write!(f, "{}", history.damage)?;
        writeln!(f)?;
        if let Some(step_time) = step_time {
            writeln!(f, "{step_time}")?;
            let workers = Workers::of(history);
            writeln!(f, "{workers}")?;
            let stragglers = stragglers(&workers);
            for straggler in &stragglers {
                writeln!(f, "{straggler}")?;
            }
            if !stragglers.is_empty() {
                writeln!(f)?;
            }
        }
        Incidents::of(history).fmt(f)
    }
}

/// How far the steps that count came, and how fast.
fn tell_course(f: &mut fmt::Formatter<'_>, history: &History, step_time: &StepTime) -> fmt::Result {
    let ends = history.commits.first_key_value();
    if let Some(((first, begin), (last, end))) = ends.zip(history.commits.last_key_value()) {
        let (steps, begin, end) = (steps(*first, *last), begin.commit.loss, end.commit.loss);
        writeln!(
            f,
            "Committed: {steps}, loss {begin:.3} in the first and {end:.3} in the last."
        )?;
    }
    let (num_towers, batch_size) = (history.run.gradients_per_update(), history.run.batch_size);
    let examples = u64::from(num_towers) * u64::from(batch_size);
    let seconds = step_time.median_micros.max(1) as f64 / 1e6;
    writeln!(
        f,
        "A step has {} of {}: {} examples/s in the median.",
        counted(u64::from(num_towers), "tower step"),
        counted(u64::from(batch_size), "example"),
        count((examples as f64 / seconds) as u64)
    )
}

/// When the run began, how long it went on, and each start of its server with how it ended.
fn tell_starts(f: &mut fmt::Formatter<'_>, history: &History) -> fmt::Result {
    let starts = &history.starts;
    let begun_micros = starts[0].at_micros;
    let ends = starts.iter().map(|start| start.last_at_micros);
    let wall_micros = ends.fold(begun_micros, u64::max) - begun_micros;
    let (begun, wall) = (moment(begun_micros), duration(wall_micros));
    writeln!(f, "Begun at {begun}; the last record is from {wall} later.")?;
    if starts.len() > 1 {
        let served = starts.iter().map(ServerStart::served_micros);
        let served = duration(served.fold(0, u64::saturating_add));
        writeln!(f, "A server ran for {served} of it.")?;
    }
    writeln!(f)?;
    writeln!(f, "Starts of the server:")?;
    let started = |(start, ending): (&ServerStart, _)| {
        format!(
            "{}  at step {:>9}, {:>11}, {ending}",
            moment(start.at_micros),
            count(start.start.global_step.0),
            counted(start.workers.len() as u64, "worker"),
        )
    };
    let started: Vec<String> = starts.iter().zip(endings(history)).map(started).collect();
    write_lines(f, &started)
}

/// How each server left.
fn endings(history: &History) -> Vec<&'static str> {
    let mut endings = vec!["killed"; history.starts.len()];
    if let Some(last) = endings.last_mut() {
        *last = "runs, or was killed";
    }
    for event in &history.events {
        if let Record::End { outcome, .. } = event.record {
            endings[event.server_start] = how(outcome);
        }
    }
    endings
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
        let text = explain(&history(records)).to_string();
        for part in [
            "Committed: steps 0 to 2, loss 4.500 in the first and 4.500 in the last.\n",
            "A step has 2 tower steps of 4 examples: 7,920 examples/s in the median.\n",
            "11.0 s later.\nA server ran for 10.0 s of it.\n",
            "at step         0,   2 workers, killed\n",
            "at step         2,    1 worker, complete\n",
            "to step         2, 2 commits undone\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
