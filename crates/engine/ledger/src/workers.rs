//! What each worker did, over all starts of the server.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Committed, History, Worker};
use crate::record::Record;
use crate::step_time::last_of;
use crate::units::{count, median, millis, percent};

/// Longer names lose their beginning, so that a table fits into 100 columns.
const MAX_NAME: usize = 25;

/// What one worker did, at all starts of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerShare {
    /// Its name, and the number that it had last.
    pub worker: Worker,
    /// Gradients of it that count.
    pub tower_steps: u64,
    /// Median time that it computed one, in microseconds.
    pub median_compute_micros: u64,
    /// Median time from giving it a tower step to having the gradient, in microseconds.
    pub median_held_micros: u64,
    /// Steps whose last gradient was its own.
    pub last_of_steps: u64,
    /// Its tower steps that were also given to another.
    pub overdue: u64,
    /// Gradients of it that did not count.
    pub dropped: u64,
    /// Gradients of it that were not believed.
    pub in_doubt: u64,
}

/// The shares of all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// By number, then by name.
    pub shares: Vec<WorkerShare>,
    /// Steps that count.
    pub num_steps: u64,
}

/// What is counted of a worker: its share without the medians, and what these are of.
#[derive(Default)]
struct Tally {
    share: WorkerShare,
    compute: Vec<u64>,
    held: Vec<u64>,
}

/// The tallies of a run.
struct Tallies<'a> {
    history: &'a History,
    tallies: Vec<Tally>,
    /// Where the tally of a worker is: by its name, under which it is known at each start of the server, or by a
    /// start and its number there.
    places: BTreeMap<Result<&'a str, (usize, u32)>, usize>,
}

impl Tallies<'_> {
    fn of(&mut self, server_start: usize, number: u32) -> &mut Tally {
        let registered = self.history.starts[server_start].workers.get(&number);
        let name = registered.map(|registered| registered.name.as_str());
        let key = name.ok_or((server_start, number));
        let next = self.tallies.len();
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            let mut tally = Tally::default();
            tally.share.worker = self.history.worker(server_start, number);
            self.tallies.push(tally);
        }
        &mut self.tallies[place]
    }
}

impl Workers {
    /// Counts what each worker did.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut tallies = Tallies {
            history,
            tallies: Vec::new(),
            places: BTreeMap::new(),
        };
        // In the order of starts, so that the number a worker had last is kept.
        for (index, start) in history.starts.iter().enumerate() {
            for number in start.workers.keys() {
                tallies.of(index, *number).share.worker.number = *number;
            }
        }
        for Committed {
            server_start,
            commit,
            ..
        } in history.commits.values()
        {
            for record in &commit.towers {
                let tally = tallies.of(*server_start, record.worker);
                tally.compute.push(record.compute_micros);
                tally.held.push(record.held_micros);
            }
            if let Some(last) = last_of(commit) {
                tallies.of(*server_start, last.worker).share.last_of_steps += 1;
            }
        }
        for event in &history.events {
            let start = event.server_start;
            match event.record {
                Record::Overdue { slow, .. } => tallies.of(start, slow).share.overdue += 1,
                Record::Dropped { worker, .. } => tallies.of(start, worker).share.dropped += 1,
                Record::InDoubt { worker, .. } => tallies.of(start, worker).share.in_doubt += 1,
                _ => {}
            }
        }
        let share = |tally: Tally| WorkerShare {
            tower_steps: tally.held.len() as u64,
            median_compute_micros: median(tally.compute),
            median_held_micros: median(tally.held),
            ..tally.share
        };
        let mut shares: Vec<WorkerShare> = tallies.tallies.into_iter().map(share).collect();
        shares.sort_by(|one, other| one.worker.cmp(&other.worker));
        Workers {
            shares,
            num_steps: history.commits.len() as u64,
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = 2 + 6 + 2 + MAX_NAME;
        writeln!(
            f,
            "{:indent$}{:>9}{:>10}{:>9}{:>9}",
            "", "tower", "computes", "held", "last of"
        )?;
        writeln!(
            f,
            "  worker  {:MAX_NAME$}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}{:>10}",
            "name", "steps", "ms", "ms", "steps", "overdue", "dropped", "in doubt"
        )?;
        for share in &self.shares {
            writeln!(
                f,
                "  {:>6}  {:MAX_NAME$}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}{:>10}",
                share.worker.number,
                short_name(&share.worker),
                count(share.tower_steps),
                millis(share.median_compute_micros),
                millis(share.median_held_micros),
                percent(share.last_of_steps, self.num_steps),
                count(share.overdue),
                count(share.dropped),
                count(share.in_doubt),
            )?;
        }
        writeln!(
            f,
            "  (medians of a tower step; held: from giving it out to having its gradient)"
        )
    }
}

/// A name that fits into a table; the end of a long one tells most.
fn short_name(worker: &Worker) -> String {
    let name = worker.name.as_deref().unwrap_or("?");
    let excess = name.chars().count().saturating_sub(MAX_NAME);
    if excess == 0 {
        return name.to_owned();
    }
    let end: String = name.chars().skip(excess + 2).collect();
    format!("..{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{committed, history, joined, started, undisturbed};

    #[test]
    fn a_worker_is_the_same_after_a_restart_of_the_server() {
        let mut records = undisturbed(3);
        records.extend([started(3), joined(1, "host/10"), joined(0, "host/12")]);
        records.push(committed(3));
        let shares = Workers::of(&history(records)).shares;
        let told: Vec<_> = shares
            .iter()
            .map(|share| (share.worker.to_string(), share.tower_steps))
            .collect();
        assert_eq!(
            told,
            [
                ("worker 0 (host/12)".to_owned(), 1),
                ("worker 1 (host/10)".to_owned(), 4),
                ("worker 1 (host/11)".to_owned(), 3)
            ]
        );
    }

    #[test]
    fn the_table_fits_into_100_columns() {
        let mut history = history(undisturbed(9));
        let workers = &mut history.starts[0].workers;
        let name = "a-pod-with-a-name-as-long-as-they-have-them-0/17";
        name.clone_into(&mut workers.get_mut(&1).unwrap().name);
        let text = Workers::of(&history).to_string();
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(lengths.iter().all(|length| *length <= 100), "{text}");
        assert_eq!(lengths[1..4], [lengths[1]; 3], "{text}");
        assert!(text.contains(" ..") && text.contains("-0/17 "), "{text}");
    }
}
