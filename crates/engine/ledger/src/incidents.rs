//! What happened besides commits, in sentences.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Event, History, Worker};
use crate::record::{Dropped, Outcome, Record};
use crate::units::{count, duration, times, write_lines};

/// What happened to a run besides its commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incidents {
    /// Gradients that did not count, by worker and reason.
    pub dropped: Vec<String>,
    /// Tower steps that were computed twice, to compare.
    pub audits: u64,
    /// Whatever needs a look, each with its time.
    pub notable: Vec<String>,
}

impl Incidents {
    /// What happened to a run.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut incidents = Incidents::default();
        let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
        for event in &history.events {
            match &event.record {
                Record::Dropped { worker, reason, .. } => {
                    let worker = history.worker(event.server_start, *worker);
                    let what = format!("{worker}: {}", why(*reason));
                    *dropped.entry(what).or_default() += 1;
                }
                Record::Audited { equal: true, .. } => incidents.audits += 1,
                Record::Audited { .. } => {
                    incidents.audits += 1;
                    incidents.note(history, event);
                }
                Record::Lost { .. }
                | Record::InDoubt { .. }
                | Record::Quarantined { .. }
                | Record::StoodStill { .. }
                | Record::Suspended { .. } => incidents.note(history, event),
                _ => {}
            }
        }
        let told = |(what, number): (String, u64)| format!("{what}, {}", times(number));
        incidents.dropped = dropped.into_iter().map(told).collect();
        incidents
    }

    fn note(&mut self, history: &History, event: &Event) {
        let since = event.at_micros.saturating_sub(history.starts[0].at_micros);
        let worker = |number| history.worker(event.server_start, number);
        let told = told(&event.record, &worker);
        self.notable.push(format!("{:>9}  {told}", duration(since)));
    }
}

/// A record as a sentence about its workers, whom `worker` knows by number; nothing for a start, a
/// rewind or a commit, of which more is to be told.
#[must_use]
pub fn told(record: &Record, worker: &dyn Fn(u32) -> Worker) -> String {
    match record {
        Record::Joined { worker: by, .. } => format!("{} joined", worker(*by)),
        Record::Left { worker: by } => format!("{} left", worker(*by)),
        Record::Lost { worker: by } => {
            format!("{} sent no heartbeat and was given up", worker(*by))
        }
        Record::Overdue {
            of,
            slow,
            also_given_to,
        } => format!(
            "step {} tower {} was overdue at {} and also given to {}",
            of.global_step,
            of.tower,
            worker(*slow),
            worker(*also_given_to)
        ),
        Record::Dropped {
            of,
            worker: by,
            reason,
        } => format!(
            "a gradient of step {} tower {} by {} did not count: {}",
            of.global_step,
            of.tower,
            worker(*by),
            why(*reason)
        ),
        Record::InDoubt {
            of,
            worker: by,
            reason,
        } => format!(
            "the gradient of step {} tower {} by {} was not believed: {reason}",
            of.global_step,
            of.tower,
            worker(*by)
        ),
        Record::Audited {
            of,
            workers: [one, other],
            equal,
        } => format!(
            "step {} tower {} is {} from {} and {}",
            of.global_step,
            of.tower,
            if *equal { "the same" } else { "NOT the same" },
            worker(*one),
            worker(*other)
        ),
        Record::Quarantined { worker: by, reason } => {
            format!("{} takes no further part: {reason}", worker(*by))
        }
        Record::Checkpoint { global_step } => {
            format!("the checkpoint of step {global_step} is written")
        }
        Record::StoodStill { waits_for } => format!("the run stood still, waiting for {waits_for}"),
        Record::Suspended { pause_micros } => {
            let pause = duration(*pause_micros);
            format!("the server itself was suspended for {pause}")
        }
        Record::End { outcome, .. } => format!("the server left: {}", how(*outcome)),
        Record::Start(_) | Record::Rewind(_) | Record::Commit(_) => String::new(),
    }
}

fn why(reason: Dropped) -> &'static str {
    match reason {
        Dropped::Stale => "its step was over",
        Dropped::Duplicate => "another had come before",
        Dropped::Ahead => "the server had gone back to an older state",
        Dropped::OtherState => "it was taken at other variables than those of its step",
    }
}

/// How a server left, in a word.
pub(crate) fn how(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::Stopped => "stopped",
        Outcome::Diverged => "diverged",
    }
}

impl fmt::Display for Incidents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped.is_empty() {
            writeln!(f, "Every gradient that came counted.")?;
        } else {
            writeln!(f, "Gradients that did not count:")?;
            write_lines(f, &self.dropped)?;
        }
        if self.audits > 0 {
            let audits = count(self.audits);
            writeln!(
                f,
                "Tower steps computed by two workers, to compare: {audits}."
            )?;
        }
        if !self.notable.is_empty() {
            writeln!(f)?;
            writeln!(f, "What needs a look, by the time since the run began:")?;
            write_lines(f, &self.notable)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{history, undisturbed, unit};

    fn dropped(worker: u32, reason: Dropped) -> Record {
        Record::Dropped {
            of: unit(1, 0),
            worker,
            reason,
        }
    }

    #[test]
    fn what_was_dropped_is_counted_by_worker_and_reason() {
        let mut records = undisturbed(2);
        records.extend([
            dropped(1, Dropped::Stale),
            dropped(0, Dropped::Duplicate),
            dropped(1, Dropped::Stale),
        ]);
        assert_eq!(
            Incidents::of(&history(records)).dropped,
            [
                "worker 0 (host/10): another had come before, once",
                "worker 1 (host/11): its step was over, twice"
            ]
        );
    }

    #[test]
    fn what_needs_a_look_is_told_with_its_time() {
        let mut records = undisturbed(2);
        let audit = |equal| Record::Audited {
            of: unit(1, 0),
            workers: [0, 1],
            equal,
        };
        records.extend([
            audit(true),
            audit(false),
            Record::Quarantined {
                worker: 1,
                reason: "wrong bits".to_owned(),
            },
        ]);
        let incidents = Incidents::of(&history(records));
        assert_eq!(incidents.audits, 2);
        let told: Vec<&str> = incidents.notable.iter().map(|line| line.trim()).collect();
        assert_eq!(
            told,
            [
                "6.0 s  step 1 tower 0 is NOT the same from worker 0 (host/10) and worker 1 (host/11)",
                "7.0 s  worker 1 (host/11) takes no further part: wrong bits"
            ]
        );
    }

    #[test]
    fn a_quiet_run_says_so() {
        let text = Incidents::of(&history(undisturbed(2))).to_string();
        assert_eq!(text, "Every gradient that came counted.\n");
    }
}
