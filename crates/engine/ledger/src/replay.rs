//! How a history is made of the lines of a ledger.
//!
//! A ledger may be read while a server writes to it: it is read once, line by line, and a last
//! line without an end is one that is being written. A line that is damaged, or cannot come next in a run, is
//! skipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pserver_run::{GlobalStep, RunConfig, StateDigest};

use crate::damage::Damage;
use crate::history::{Committed, Event, History, Registered, Rewound, ServerStart, unit_of};
use crate::ledger_file::LedgerError;
use crate::line_reader::LineReader;
use crate::record::{Commit, FORMAT_VERSION, Line, Record, Rewind, Start};

impl History {
    /// Reads the ledger at `path`.
    ///
    /// # Errors
    ///
    /// [`LedgerError`] if it cannot be read, or no line in it tells of the start of a server.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let file = File::open(path).map_err(LedgerError::reading(path))?;
        History::read_from(path, file)
    }

    /// Reads a ledger from `reader`, as [`read`](Self::read) does. `path` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_from(path: &Path, mut reader: impl Read) -> Result<Self, LedgerError> {
        let mut history: Option<History> = None;
        let (mut lines, mut damage) = (LineReader::default(), Damage::default());
        let mut add = |place, line: Result<Line, String>| {
            let line = line.and_then(|line| {
                check_next(&line.record, history.as_ref())?;
                Ok(line)
            });
            match line {
                Ok(line) => history = History::after(history.take(), line),
                Err(reason) => damage.add(place, &reason),
            }
        };
        let mut read_piece = || lines.read_piece(&mut reader, &mut add);
        while read_piece().map_err(LedgerError::reading(path))? {}
        let path = path.to_owned();
        match history {
            Some(history) => Ok(History { damage, ..history }),
            None if damage.is_empty() => Err(LedgerError::Empty { path }),
            None => Err(LedgerError::NoStart { path, damage }),
        }
    }

    /// The history with one more line. What stands before the first start belongs to nothing.
    pub(crate) fn after(history: Option<History>, line: Line) -> Option<History> {
        let Line { at_micros, record } = line;
        let mut history = match (history, &record) {
            (Some(history), _) => history,
            (None, Record::Start(start)) => History::begun(start),
            (None, _) => return None,
        };
        match record {
            Record::Start(start) => history.add_start(at_micros, start),
            Record::Rewind(rewind) => history.add_rewind(at_micros, rewind),
            Record::Commit(commit) => history.add_commit(at_micros, commit),
            record => history.add_event(at_micros, record),
        }
        if let Some(latest) = history.starts.last_mut() {
            latest.last_at_micros = latest.last_at_micros.max(at_micros);
        }
        Some(history)
    }

    fn begun(start: &Start) -> Self {
        History {
            run: start.run.clone(),
            starts: Vec::new(),
            commits: BTreeMap::new(),
            rewinds: Vec::new(),
            contradictions: Vec::new(),
            events: Vec::new(),
            reached: start.global_step,
            damage: Damage::default(),
        }
    }

    fn add_start(&mut self, at_micros: u64, start: Start) {
        let step = start.global_step;
        let differences = self.run.differences(&start.run);
        if !differences.is_empty() {
            self.contradictions.push(format!(
                "the server went on at step {step} with another configuration: {}",
                differences.join(", ")
            ));
        }
        self.run.numerics = self.run.numerics.take().or(start.run.numerics.clone());
        self.go_on(step, start.digest);
        self.starts.push(ServerStart {
            at_micros,
            last_at_micros: at_micros,
            lowest_step: step,
            start,
            workers: BTreeMap::new(),
        });
    }

    fn add_rewind(&mut self, at_micros: u64, rewind: Rewind) {
        let Rewind { to, digest } = rewind;
        let undone = self.commits.split_off(&to).len();
        for event in &mut self.events {
            event.undone |= unit_of(&event.record).is_some_and(|of| of.global_step >= to);
        }
        self.go_on(to, digest);
        if let Some(latest) = self.starts.last_mut() {
            latest.lowest_step = latest.lowest_step.min(to);
        }
        self.rewinds.push(Rewound {
            at_micros,
            to,
            undone,
        });
    }

    /// A server goes on at a step, with a state of this digest.
    fn go_on(&mut self, step: GlobalStep, digest: StateDigest) {
        if self.digest_at(step).is_some_and(|before| before != digest) {
            self.contradict_state(step);
        }
        self.reached = step;
    }

    fn add_commit(&mut self, at_micros: u64, commit: Commit) {
        let step = commit.global_step;
        let latest = self.starts.len() - 1;
        // The record that a killed server could not write any more is written by the next one.
        let is_late = step < self.starts[latest].lowest_step;
        let start = &self.starts[latest].start;
        if is_late && start.global_step == step.next() && start.digest != commit.digest {
            self.contradict_state(step.next());
        }
        self.reached = self.reached.max(step.next());
        let committed = Committed {
            at_micros,
            server_start: latest.saturating_sub(usize::from(is_late)),
            commit,
        };
        if self.commits.insert(step, committed).is_some() {
            // The newer commit is kept.
            self.contradictions.push(format!(
                "step {step} was committed twice, without going back"
            ));
        }
    }

    /// A server went on at a step, but not with the state that the commit before it had left.
    fn contradict_state(&mut self, step: GlobalStep) {
        self.contradictions.push(format!(
            "the server went on at step {step} with another state than the step before had left"
        ));
    }

    fn add_event(&mut self, at_micros: u64, record: Record) {
        let server_start = self.starts.len() - 1;
        match &record {
            Record::Joined {
                worker,
                name,
                numerics,
            } => {
                let registered = Registered {
                    name: name.clone(),
                    numerics: numerics.clone(),
                };
                self.starts[server_start]
                    .workers
                    .insert(*worker, registered);
            }
            Record::End { global_step, .. } => self.reached = *global_step,
            _ => {}
        }
        self.events.push(Event {
            at_micros,
            server_start,
            record,
            undone: false,
        });
    }
}

/// Whether a record can be the next of a run, or why not: what stands in a file may be anything.
fn check_next(record: &Record, history: Option<&History>) -> Result<(), String> {
    let run = match (record, history) {
        (Record::Start(start), _) if start.format_version != FORMAT_VERSION => {
            let version = start.format_version;
            return Err(format!(
                "its ledger has format {version}, and this program reads format {FORMAT_VERSION}"
            ));
        }
        (Record::Start(start), _) => &start.run,
        (_, Some(history)) => &history.run,
        (_, None) => return Err("it stands before the first start of a server".to_owned()),
    };
    let step = match record {
        Record::Start(start) => start.global_step,
        Record::Commit(commit) => commit.global_step,
        Record::Rewind(rewind) => rewind.to,
        Record::End { global_step, .. } => *global_step,
        _ => return Ok(()),
    };
    match has_samples(run, step) {
        true => Ok(()),
        false => Err(format!("no run can come to its step {step}")),
    }
}

/// Whether the sample sequence of a run reaches as far as a step.
fn has_samples(run: &RunConfig, step: GlobalStep) -> bool {
    let steps = step.0.checked_add(1);
    let tower_steps = steps.and_then(|steps| steps.checked_mul(u64::from(run.num_towers)));
    let end = tower_steps.and_then(|batches| batches.checked_mul(u64::from(run.batch_size)));
    end.is_some_and(|end| end > 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::damage::DamagedLine;
    use crate::fixtures::{
        commit, committed, digest_at, ended, history, joined, lines, new_ledger, rewound, started,
        text, undisturbed,
    };

    /// Reads a file with this text.
    fn read(text: &str) -> Result<History, LedgerError> {
        let (_dir, path) = new_ledger();
        fs::write(&path, text).expect("a file can be written");
        History::read(&path)
    }

    fn steps(history: &History) -> Vec<u64> {
        history.commits.keys().map(|step| step.0).collect()
    }

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let records = undisturbed(3);
        let read = read(&text(records.clone())).unwrap();
        assert_eq!(read, history(records));
        assert_eq!(steps(&read), [0, 1, 2]);
        assert_eq!(read.worker(0, 1).to_string(), "worker 1 (host/11)");
        assert_eq!(read.worker(0, 7).to_string(), "worker 7");
        assert_eq!(read.reached, GlobalStep(3));
    }

    #[test]
    fn the_line_that_is_being_written_is_no_line_yet() {
        let text = text(undisturbed(3));
        let read = read(&text[..text.len() - 1]).unwrap();
        assert_eq!(steps(&read), [0, 1]);
    }

    /// The lines that were skipped and why, of a history that can be read.
    fn skipped(text: &str) -> Vec<(u64, String)> {
        let damage = read(text).expect("a start can be read").damage;
        let line = |line: &DamagedLine| (line.place.line, line.reason.clone());
        damage.first().iter().map(line).collect()
    }

    #[test]
    fn a_damaged_line_is_named_and_the_others_are_the_history() {
        let text = text(undisturbed(4));
        let wrong = text.replacen("\"record\":\"joined\"", "\"record\":\"sung\"", 1);
        let [(2, reason)] = &skipped(&wrong)[..] else {
            panic!("{:?}", skipped(&wrong));
        };
        assert!(reason.starts_with("unknown variant `sung`"), "{reason}");
        assert_eq!(steps(&read(&wrong).unwrap()), [0, 1, 2, 3]);

        let without_step_1 = text.replace("\"global_step\":1,", "\"global_step\":,");
        assert_eq!(skipped(&without_step_1)[0].0, 5);
        assert_eq!(steps(&read(&without_step_1).unwrap()), [0, 2, 3]);

        let far = text.replace("\"global_step\":1,", "\"global_step\":9000000000000000000,");
        let reason = "no run can come to its step 9000000000000000000";
        assert_eq!(skipped(&far), [(5, reason.to_owned())]);
    }

    #[test]
    fn what_stands_before_the_first_start_that_can_be_read_is_skipped() {
        let mut records = undisturbed(3);
        records.extend([started(3), committed(3)]);
        let text = text(records);
        let headless = text.split_once('\n').unwrap().1;
        assert_eq!(steps(&read(headless).unwrap()), [3]);
        let skipped = skipped(headless);
        assert_eq!(skipped.len(), 5);
        assert_eq!(skipped[0].1, "it stands before the first start of a server");
    }

    #[test]
    fn a_ledger_without_a_start_is_no_history() {
        let text = text(undisturbed(2));
        let headless = text.split_once('\n').unwrap().1;
        let no_towers = text.replace("\"num_towers\":2", "\"num_towers\":0");
        let newer = text.replace("\"format_version\":1", "\"format_version\":2");
        for text in [headless, &no_towers, &newer, "no record\n"] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, LedgerError::NoStart { .. }), "{error}");
            let error = error.to_string();
            assert!(
                error.contains("line 1, at byte 0: ") && !error.contains('\n'),
                "{error}"
            );
        }
        assert!(matches!(read(""), Err(LedgerError::Empty { .. })));
    }

    #[test]
    fn times_that_add_up_to_too_much_are_told_as_the_largest() {
        let mut text = String::new();
        for at_micros in [0, u64::MAX, 0, u64::MAX] {
            let mut line = lines(vec![started(0)]).next().unwrap();
            line.at_micros = at_micros;
            text += &(serde_json::to_string(&line).unwrap() + "\n");
            line.record = joined(0, "host/10");
            line.at_micros = u64::MAX;
            text += &(serde_json::to_string(&line).unwrap() + "\n");
        }
        let explanation = crate::explain(&read(&text).unwrap()).to_string();
        let served = format!("A server ran for {} of it", crate::duration(u64::MAX));
        assert!(explanation.contains(&served), "{explanation}");
    }

    #[test]
    fn the_record_that_a_killed_server_owed_belongs_to_its_workers() {
        let mut records = undisturbed(2);
        records.extend([started(3), committed(2), joined(0, "other/1"), committed(3)]);
        let history = history(records);
        let server_starts: Vec<usize> = history
            .commits
            .values()
            .map(|committed| committed.server_start)
            .collect();
        assert_eq!(server_starts, [0, 0, 0, 1]);
        assert!(history.contradictions.is_empty());
    }

    #[test]
    fn a_server_that_goes_on_from_another_state_contradicts_the_ledger() {
        let mut other = commit(2, &[0, 1]);
        other.digest = digest_at(99);
        let at_step_3 =
            ["the server went on at step 3 with another state than the step before had left"];
        for later in [
            vec![Record::Commit(other.clone()), started(3)],
            vec![started(3), Record::Commit(other)],
        ] {
            let mut records = undisturbed(2);
            records.extend(later);
            assert_eq!(history(records).contradictions, at_step_3);
        }
    }

    #[test]
    fn a_step_that_is_committed_again_without_a_rewind_is_noted() {
        let mut records = undisturbed(3);
        records.push(committed(1));
        let twice = "step 1 was committed twice, without going back";
        assert_eq!(history(records).contradictions, [twice]);
    }

    #[test]
    fn the_end_of_a_server_tells_how_far_the_run_is() {
        let mut records = undisturbed(3);
        records.push(ended(4));
        assert_eq!(history(records).reached, GlobalStep(4));
    }

    proptest! {
        #[test]
        fn what_counts_after_rewinds_is_what_was_committed_last(
            parts in prop::collection::vec((0_u64..6, 0_u64..6), 1..8),
        ) {
            // Each part commits some steps, then goes back by some of those that count.
            let (mut records, mut counting, mut undone) = (vec![started(0)], 0, Vec::new());
            for (forth, back) in parts {
                records.extend((counting..counting + forth).map(committed));
                counting += forth;
                let back = back.min(counting);
                counting -= back;
                undone.push(back as usize);
                records.push(rewound(counting));
            }
            let history = history(records);
            prop_assert_eq!(steps(&history), (0..counting).collect::<Vec<_>>());
            prop_assert_eq!(history.reached, GlobalStep(counting));
            prop_assert!(history.contradictions.is_empty());
            let of_rewinds: Vec<usize> =
                history.rewinds.iter().map(|rewound| rewound.undone).collect();
            prop_assert_eq!(of_rewinds, undone);
        }
    }
}
