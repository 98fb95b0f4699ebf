//! What each worker did, over all starts of the server.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{History, Worker};
use crate::record::Record;
use crate::step_time::last_of;
use crate::units::{count, median, millis, percent};

/// Longer names lose their beginning, so that a table fits into 100 columns.
const MAX_NAME: usize = 25;

/// What one worker did, at all starts of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What is counted of a worker.
#[derive(Debug)]
struct Tally {
    worker: Worker,
    compute: Vec<u64>,
    held: Vec<u64>,
    last_of_steps: u64,
    overdue: u64,
    dropped: u64,
    in_doubt: u64,
}

/// The tallies of a run. One worker has a number at each start of the server; by its name it is
/// known as the same.
struct Tallies<'a> {
    history: &'a History,
    tallies: Vec<Tally>,
    by_number: BTreeMap<(usize, u32), usize>,
    by_name: BTreeMap<String, usize>,
}

impl Tallies<'_> {
    fn of(&mut self, server_start: usize, number: u32) -> &mut Tally {
        let key = (server_start, number);
        let index = match self.by_number.get(&key) {
            Some(index) => *index,
            None => {
                let worker = self.history.worker(server_start, number);
                let index = self.place(worker);
                self.by_number.insert(key, index);
                index
            }
        };
        &mut self.tallies[index]
    }

    fn place(&mut self, worker: Worker) -> usize {
        let known = worker.name.as_ref().and_then(|name| self.by_name.get(name));
        if let Some(index) = known {
            self.tallies[*index].worker = worker;
            return *index;
        }
        let index = self.tallies.len();
        if let Some(name) = &worker.name {
            self.by_name.insert(name.clone(), index);
        }
        self.tallies.push(Tally {
            worker,
            compute: Vec::new(),
            held: Vec::new(),
            last_of_steps: 0,
            overdue: 0,
            dropped: 0,
            in_doubt: 0,
        });
        index
    }
}

impl Workers {
    /// Counts what each worker did.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut tallies = Tallies {
            history,
            tallies: Vec::new(),
            by_number: BTreeMap::new(),
            by_name: BTreeMap::new(),
        };
        // In the order of starts, so that the number a worker had last is kept.
        for (index, start) in history.starts.iter().enumerate() {
            for number in start.workers.keys() {
                tallies.of(index, *number);
            }
        }
        for committed in history.commits.values() {
            for record in &committed.commit.towers {
                let tally = tallies.of(committed.server_start, record.worker);
                tally.compute.push(record.compute_micros);
                tally.held.push(record.held_micros);
            }
            if let Some(last) = last_of(&committed.commit) {
                tallies
                    .of(committed.server_start, last.worker)
                    .last_of_steps += 1;
            }
        }
        for event in &history.events {
            match event.record {
                Record::Overdue { slow, .. } => tallies.of(event.server_start, slow).overdue += 1,
                Record::Dropped { worker, .. } => {
                    tallies.of(event.server_start, worker).dropped += 1;
                }
                Record::InDoubt { worker, .. } => {
                    tallies.of(event.server_start, worker).in_doubt += 1;
                }
                _ => {}
            }
        }
        let mut shares: Vec<WorkerShare> = tallies.tallies.into_iter().map(Tally::share).collect();
        shares.sort_by(|one, other| one.worker.cmp(&other.worker));
        Workers {
            shares,
            num_steps: history.commits.len() as u64,
        }
    }
}

impl Tally {
    fn share(self) -> WorkerShare {
        WorkerShare {
            worker: self.worker,
            tower_steps: self.held.len() as u64,
            median_compute_micros: median(self.compute),
            median_held_micros: median(self.held),
            last_of_steps: self.last_of_steps,
            overdue: self.overdue,
            dropped: self.dropped,
            in_doubt: self.in_doubt,
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
