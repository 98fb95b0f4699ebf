//! Which workers hold the others up.

use crate::units::{count, counted, median, millis};
use crate::workers::{WorkerShare, Workers};

/// A worker is slow when its median time is more than this many tenths of the others'.
const SLOW_TENTHS: u64 = 15;

/// Fewer tower steps than this say nothing: the first of a worker include its warm-up.
pub const MIN_TOWER_STEPS: u64 = 5;

/// The workers of a run that hold the others up, each in a sentence without its end.
#[must_use]
pub fn stragglers(workers: &Workers) -> Vec<String> {
    let shares = &workers.shares;
    let straggler = |share| slow(share, shares).or_else(|| overdue(share));
    shares.iter().filter_map(straggler).collect()
}

/// The median of the times that others take for a tower step, and whether a worker that takes `held_micros` holds
/// them up; `None` if there are no others.
#[must_use]
pub fn beside(held_micros: u64, others: impl IntoIterator<Item = u64>) -> Option<(u64, bool)> {
    let mut others = others.into_iter().peekable();
    others.peek()?;
    let others_micros = median(others);
    let is_slow = held_micros.saturating_mul(10) > others_micros.saturating_mul(SLOW_TENTHS);
    Some((others_micros, is_slow))
}

/// Of a worker that takes much longer than the others.
fn slow(share: &WorkerShare, shares: &[WorkerShare]) -> Option<String> {
    let is_known = |share: &WorkerShare| share.tower_steps >= MIN_TOWER_STEPS;
    let others = shares
        .iter()
        .filter(|other| other.worker != share.worker && is_known(other));
    let held_micros = share.median_held_micros;
    let (others_micros, is_slow) =
        beside(held_micros, others.map(|other| other.median_held_micros))?;
    (is_known(share) && is_slow).then(|| {
        format!(
            "{} is slow: {} ms a tower step, the others {} ms",
            share.worker,
            millis(held_micros),
            millis(others_micros)
        )
    })
}

/// Of a worker more than a tenth of whose tower steps were overdue: others do much of its work, whose times are then
/// not on record.
fn overdue(share: &WorkerShare) -> Option<String> {
    let &WorkerShare {
        overdue,
        tower_steps,
        ..
    } = share;
    let is_often = overdue >= MIN_TOWER_STEPS && overdue.saturating_mul(10) > tower_steps;
    is_often.then(|| {
        format!(
            "{} is slow: {} overdue and also given to others, {} counted",
            share.worker,
            counted(overdue, "tower step"),
            count(tower_steps)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{commit, history, joined, started, undisturbed};
    use crate::record::{Record, TowerRecord};

    /// The stragglers of a run in which the workers' tower steps take these milliseconds.
    fn told(steps: u64, held_millis: [u64; 2]) -> Vec<String> {
        let mut records = undisturbed(0);
        for step in 0..steps {
            let mut commit = commit(step, &[0, 1]);
            for (record, millis) in commit.towers.iter_mut().zip(held_millis) {
                record.held_micros = millis * 1000;
            }
            records.push(Record::Commit(commit));
        }
        told_of(records)
    }

    fn told_of(records: Vec<Record>) -> Vec<String> {
        stragglers(&Workers::of(&history(records)))
    }

    #[test]
    fn a_worker_that_takes_more_than_half_as_long_again_is_named() {
        assert_eq!(
            told(5, [312, 104]),
            ["worker 0 (host/10) is slow: 312.0 ms a tower step, the others 104.0 ms"]
        );
        assert_eq!(told(5, [150, 100]), [""; 0]);
    }

    #[test]
    fn a_few_tower_steps_make_no_straggler() {
        assert_eq!(told(4, [312, 104]), [""; 0]);
    }

    #[test]
    fn a_worker_by_itself_is_never_slow() {
        let mut records = vec![started(0), joined(0, "host/10")];
        records.extend((0..9).map(|step| Record::Commit(commit(step, &[0, 0]))));
        assert_eq!(told_of(records), [""; 0]);
    }

    #[test]
    fn a_worker_whose_work_others_do_is_named_too() {
        let mut records = undisturbed(0);
        for step in 0..6 {
            let commit = commit(step, &[0, 0]);
            let TowerRecord { of, .. } = commit.towers[1];
            records.push(Record::Overdue {
                of,
                slow: 1,
                also_given_to: 0,
            });
            records.push(Record::Commit(commit));
        }
        assert_eq!(
            told_of(records),
            [
                "worker 1 (host/11) is slow: 6 tower steps overdue and also given to others, 0 counted"
            ]
        );
    }
}
