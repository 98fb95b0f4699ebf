//! What a server that starts has to append before anything else, so that the ledger agrees with the
//! state that it goes on with.

use crate::ledger_file::Head;
use crate::record::{Line, Record, Rewind, Start};

/// The lines to append to a ledger that ends with `head`, by a server that goes on as `start` says,
/// at a time.
///
/// `last` is the line of the commit that led to the state, where that is known: a kill may have kept
/// it from being appended.
#[must_use]
pub fn opening_lines(
    at_micros: u64,
    head: Option<Head>,
    start: Start,
    last: Option<Line>,
) -> Vec<Line> {
    let line = |record| Line { at_micros, record };
    let mut lines = Vec::new();
    if let Some(head) = head {
        let missing = last.filter(|line| {
            matches!(&line.record, Record::Commit(commit)
                if commit.global_step == head.global_step && commit.digest == start.digest)
        });
        let is_ahead = head.global_step > start.global_step;
        let is_another = head.global_step == start.global_step && head.digest != start.digest;
        match missing {
            Some(missing) => lines.push(missing),
            None if is_ahead || is_another => lines.push(line(Record::Rewind(Rewind {
                to: start.global_step,
                digest: start.digest,
            }))),
            None => {}
        }
    }
    lines.push(line(Record::Start(start)));
    lines
}

#[cfg(test)]
mod tests {
    use pserver_run::GlobalStep;

    use super::*;
    use crate::fixtures::{committed, digest_at, rewound, start, started};

    fn head(step: u64) -> Head {
        Head {
            global_step: GlobalStep(step),
            digest: digest_at(step),
        }
    }

    /// The records of a server that starts at `step`, with the commit that led to it.
    fn opening(head: Option<Head>, step: u64) -> Vec<Record> {
        let last = step.checked_sub(1).map(|before| Line {
            at_micros: 1,
            record: committed(before),
        });
        let lines = opening_lines(2, head, start(step), last);
        lines.into_iter().map(|line| line.record).collect()
    }

    #[test]
    fn a_ledger_that_agrees_is_only_gone_on_with() {
        assert_eq!(opening(None, 0), [started(0)]);
        assert_eq!(opening(Some(head(7)), 7), [started(7)]);
    }

    #[test]
    fn a_record_that_a_kill_kept_back_is_appended() {
        assert_eq!(opening(Some(head(6)), 7), [committed(6), started(7)]);
    }

    #[test]
    fn a_ledger_that_is_ahead_or_of_another_history_is_rewound() {
        assert_eq!(opening(Some(head(9)), 7), [rewound(7), started(7)]);
        let other = Head {
            digest: digest_at(1),
            ..head(7)
        };
        assert_eq!(opening(Some(other), 7), [rewound(7), started(7)]);
    }
}
