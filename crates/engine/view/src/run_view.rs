//! A run as its ledger tells it, folded line by line.

use pserver_ledger::Damage;
use pserver_ledger::incidents::told;
use pserver_ledger::record::{Commit, Line, Outcome, Record, Start};
use pserver_ledger::step_time::total_of;
use pserver_run::{GlobalStep, RunConfig};
use serde::Serialize;

use crate::counts::Counts;
use crate::curve::{Curve, Sample};
use crate::happenings::{Happenings, Kind};
use crate::lane::Lanes;
use crate::scores::Scores;
use crate::times::Times;

/// How a run stands, as far as its ledger tells: a server that is killed says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// There is no line yet.
    #[default]
    Empty,
    /// A server has it, or was killed.
    Running,
    /// The last step is done.
    Complete,
    /// The server left before the last step; it may be started again.
    Stopped,
    /// The model diverged.
    Diverged,
}

/// What can be seen of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunView {
    run: Option<RunConfig>,
    version: String,
    state: RunState,
    began_micros: u64,
    last_micros: u64,
    /// Time of all steps that were committed, in microseconds: pauses of the server left out.
    trained_micros: u64,
    global_step: GlobalStep,
    last: Option<Sample>,
    curve: Curve,
    times: Times,
    lanes: Lanes,
    happenings: Happenings,
    counts: Counts,
    scores: Scores,
    checkpoint: Option<GlobalStep>,
    damage: Damage,
}

impl RunView {
    /// Takes in the next line of the run's ledger.
    pub fn add(&mut self, line: &Line) {
        let Line { at_micros, record } = line;
        if self.began_micros == 0 {
            self.began_micros = *at_micros;
        }
        self.last_micros = self.last_micros.max(*at_micros);
        // A worker that leaves has its name until then.
        let sentence = told(record, &|number| self.lanes.worker(number));
        self.counts.add(record);
        self.lanes.add(*at_micros, record);
        match record {
            Record::Start(start) => self.start(*at_micros, start),
            Record::Rewind(rewind) => {
                self.go_back(*at_micros, rewind.to);
            }
            Record::Commit(commit) => self.commit(*at_micros, commit),
            Record::Checkpoint { global_step } => self.checkpoint = Some(*global_step),
            Record::End {
                global_step,
                outcome,
            } => {
                self.global_step = *global_step;
                self.state = match outcome {
                    Outcome::Complete => RunState::Complete,
                    Outcome::Stopped => RunState::Stopped,
                    Outcome::Diverged => RunState::Diverged,
                };
            }
            _ => {}
        }
        self.tell(*at_micros, record, sentence);
    }

    /// Takes in that lines of the ledger were skipped.
    pub fn add_damage(&mut self, damage: &Damage) {
        self.damage.extend(damage);
    }

    /// Reads a line of the file of scores; one that is none is passed over.
    pub fn add_score_line(&mut self, line: &str) {
        self.scores.add_line(line);
    }

    fn start(&mut self, at_micros: u64, start: &Start) {
        let numerics = self.run.take().and_then(|before| before.numerics);
        let mut run = start.run.clone();
        run.numerics = run.numerics.or(numerics);
        self.run = Some(run);
        self.version.clone_from(&start.version);
        self.state = RunState::Running;
        // Without a rewind this is where the run was.
        if start.global_step < self.global_step {
            self.go_back(at_micros, start.global_step);
        }
        self.global_step = start.global_step;
    }

    fn go_back(&mut self, at_micros: u64, to: GlobalStep) {
        self.curve.go_back(to.0);
        self.scores.go_back(at_micros, to.0);
        self.checkpoint = self.checkpoint.filter(|step| *step <= to);
        self.global_step = to;
    }

    fn commit(&mut self, at_micros: u64, commit: &Commit) {
        let batch_size = self.run.as_ref().map_or(0, |run| u64::from(run.batch_size));
        let examples = batch_size.saturating_mul(commit.towers.len() as u64);
        let micros = total_of(commit);
        self.global_step = GlobalStep(commit.global_step.0.saturating_add(1));
        self.trained_micros = self.trained_micros.saturating_add(micros);
        self.times.add(commit, examples);
        let sample = Sample {
            loss: commit.loss,
            learning_rate: commit.learning_rate,
            examples,
            micros,
            at_micros,
        };
        self.last = Some(sample);
        self.curve.add(commit.global_step.0, sample);
    }

    /// Keeps what people want to hear of.
    fn tell(&mut self, at_micros: u64, record: &Record, sentence: String) {
        let (kind, worker) = match record {
            Record::Joined { worker, .. } => (Kind::Joined, Some(*worker)),
            Record::Left { worker } => (Kind::Left, Some(*worker)),
            Record::Lost { worker } => (Kind::Lost, Some(*worker)),
            Record::Overdue { slow, .. } => (Kind::Overdue, Some(*slow)),
            Record::Dropped { worker, .. } => (Kind::Dropped, Some(*worker)),
            Record::InDoubt { worker, .. } => (Kind::InDoubt, Some(*worker)),
            Record::Audited { equal: true, .. } | Record::Commit(_) => return,
            Record::Audited { .. } => (Kind::Differed, None),
            Record::Quarantined { worker, .. } => (Kind::Quarantined, Some(*worker)),
            Record::Checkpoint { .. } => (Kind::Checkpoint, None),
            Record::StoodStill { .. } | Record::Suspended { .. } => (Kind::StoodStill, None),
            Record::End { .. } => (Kind::End, None),
            Record::Start(_) => (Kind::Start, None),
            Record::Rewind(_) => (Kind::Rewind, None),
        };
        let sentence = match record {
            Record::Start(start) => format!("a server started at step {}", start.global_step),
            Record::Rewind(rewind) => format!("the run went back to step {}", rewind.to),
            Record::Joined {
                worker, numerics, ..
            } => format!("{} joined: {numerics}", self.lanes.worker(*worker)),
            _ => sentence,
        };
        self.happenings.add(at_micros, kind, worker, sentence);
    }

    /// The run's configuration, with the numerics once they are known; `None` before the first line.
    #[must_use]
    pub fn run(&self) -> Option<&RunConfig> {
        self.run.as_ref()
    }

    /// Version and commit of the newest server's program.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How the run stands.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.state
    }

    /// When the first line was written, in microseconds since 1970; 0 before.
    #[must_use]
    pub fn began_micros(&self) -> u64 {
        self.began_micros
    }

    /// When the newest line was written, in microseconds since 1970; 0 before the first.
    #[must_use]
    pub fn last_micros(&self) -> u64 {
        self.last_micros
    }

    /// Time of all steps, in microseconds, without pauses.
    #[must_use]
    pub fn trained_micros(&self) -> u64 {
        self.trained_micros
    }

    /// The step that the run is at.
    #[must_use]
    pub fn global_step(&self) -> GlobalStep {
        self.global_step
    }

    /// What the last commit told; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<Sample> {
        self.last
    }

    /// Loss, learning rate and speed over the steps.
    #[must_use]
    pub fn curve(&self) -> &Curve {
        &self.curve
    }

    /// The times of the last steps.
    #[must_use]
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// The workers.
    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// What happened last.
    #[must_use]
    pub fn happenings(&self) -> &Happenings {
        &self.happenings
    }

    /// How often things happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The scores of checkpoints.
    #[must_use]
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// Step of the newest checkpoint on record.
    #[must_use]
    pub fn checkpoint(&self) -> Option<GlobalStep> {
        self.checkpoint
    }

    /// The lines of the ledger that were skipped: what they told is missing here.
    #[must_use]
    pub fn damage(&self) -> &Damage {
        &self.damage
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pserver_ledger::fixtures::{commit, committed, joined, lines, rewound, started, unit};
    use pserver_ledger::record::Dropped;

    use super::*;

    fn view_of(records: impl IntoIterator<Item = Record>) -> RunView {
        let mut view = RunView::default();
        lines(records).for_each(|line| view.add(&line));
        view
    }

    fn ended(step: u64, outcome: Outcome) -> Record {
        Record::End {
            global_step: GlobalStep(step),
            outcome,
        }
    }

    #[test]
    fn without_a_line_there_is_an_empty_view() {
        let view = RunView::default();
        assert_eq!(view.state(), RunState::Empty);
        assert!(view.run().is_none() && view.last().is_none());
    }

    #[test]
    fn a_run_is_followed_to_its_end() {
        let mut records = vec![started(0), joined(0, "host/10"), joined(1, "host/11")];
        let view = view_of(records.clone());
        assert_eq!(
            (view.state(), view.global_step()),
            (RunState::Running, GlobalStep(0))
        );
        records.extend((0..5).map(committed));
        let view = view_of(records.clone());
        assert_eq!(view.global_step(), GlobalStep(5));
        assert_eq!(view.last().unwrap().loss, 4.5);
        assert_eq!(view.counts().accepted, 10);
        assert_eq!(view.trained_micros(), 5 * 1010);
        assert_eq!(view.curve().points()[4].examples, 8);
        records.extend([
            Record::Checkpoint {
                global_step: GlobalStep(5),
            },
            ended(5, Outcome::Complete),
        ]);
        let view = view_of(records);
        assert_eq!(view.state(), RunState::Complete);
        assert_eq!(view.checkpoint(), Some(GlobalStep(5)));
        let told: Vec<&str> = view
            .happenings()
            .iter()
            .map(|one| one.text.as_str())
            .collect();
        assert_eq!(
            told,
            [
                "a server started at step 0",
                "worker 0 (host/10) joined: cpu",
                "worker 1 (host/11) joined: cpu",
                "the checkpoint of step 5 is written",
                "the server left: complete",
            ]
        );
    }

    #[test]
    fn a_run_that_went_back_shows_nothing_of_what_was_undone() {
        let mut records = vec![started(0)];
        records.extend((0..9).map(committed));
        records.extend([rewound(4), started(4)]);
        let mut view = view_of(records);
        assert_eq!(view.global_step(), GlobalStep(4));
        assert_eq!(view.curve().points().last().unwrap().last_step, 3);
        view.add_score_line(r#"{"global_step":8,"precision_at_1":0.5,"at_micros":9000000}"#);
        assert_eq!(view.scores().iter(), []);
    }

    #[test]
    fn a_run_that_was_stopped_goes_on() {
        let stopped = [started(0), committed(0), ended(1, Outcome::Stopped)];
        assert_eq!(view_of(stopped.clone()).state(), RunState::Stopped);
        let view = view_of(stopped.into_iter().chain([started(1), committed(1)]));
        assert_eq!(view.state(), RunState::Running);
        assert_eq!(view.curve().points().len(), 2);
        assert_eq!(view.counts().starts, 2);
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let step = prop_oneof![0_u64..2000, any::<u64>()];
        let worker = 0_u32..5;
        (0..12, step, worker, any::<u64>()).prop_map(|(kind, step, worker, micros)| match kind {
            0 => started(step),
            1 => rewound(step),
            2 => joined(worker, &format!("host/{}", micros % 40)),
            3 => Record::Left { worker },
            4 => Record::Lost { worker },
            5 => Record::Overdue {
                of: unit(step, 0),
                slow: worker,
                also_given_to: 0,
            },
            6 => Record::Dropped {
                of: unit(step, 0),
                worker,
                reason: Dropped::Stale,
            },
            7 => ended(step, Outcome::Stopped),
            _ => {
                // No run has examples for just any step.
                let mut commit = commit(0, &[worker, 0]);
                commit.global_step = GlobalStep(step);
                commit.towers[0].of = unit(step, 0);
                commit.towers[1].of = unit(step, 1);
                commit.towers[0].held_micros = micros;
                commit.towers[1].waited_micros = micros;
                commit.phases.apply_micros = micros;
                Record::Commit(commit)
            }
        })
    }

    proptest! {
        #[test]
        fn a_view_is_made_of_any_records(records in prop::collection::vec(any_record(), 0..300)) {
            let view = view_of(records);
            prop_assert!(view.lanes().iter().len() <= 5 + crate::lane::MAX_GONE + 5);
            for lane in view.lanes().iter() {
                prop_assert!(lane.steps.len() <= crate::lane::WINDOW);
            }
        }
    }
}
