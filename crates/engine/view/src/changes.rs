//! What changed in a view since somebody looked last, in the form that the page reads.
//!
//! The first update is the whole view. Later ones hold the points, tower steps and happenings that
//! came since, and whatever else is small as a whole.

use pserver_ledger::Damage;
use pserver_run::RunConfig;
use serde::Serialize;

use crate::counts::Counts;
use crate::curve::Point;
use crate::happenings::Happening;
use crate::lane::{Lane, LaneStep, Slowness};
use crate::run_view::{RunState, RunView};
use crate::scores::Score;
use crate::times::MedianStep;

/// How far somebody has seen a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    has_looked: bool,
    starts: u64,
    curve_shape: u64,
    num_points: usize,
    lane_serial: u64,
    happening_serial: u64,
    scores_version: u64,
}

/// What changed.
#[derive(Debug, Serialize)]
pub struct Changes<'a> {
    /// Whether this is the whole view, and what was known before is of another run.
    pub is_whole: bool,
    /// How the run stands.
    pub state: RunState,
    /// The step that it is at.
    pub global_step: u64,
    /// Mean total loss of the last step.
    pub loss: Option<f32>,
    /// Learning rate of the last step.
    pub learning_rate: Option<f32>,
    /// Over the last steps.
    pub examples_per_sec: f64,
    /// When the first line was written, in microseconds since 1970.
    pub began_micros: u64,
    /// When the newest line was written, in microseconds since 1970.
    pub last_micros: u64,
    /// Time of all steps, in microseconds.
    pub trained_micros: u64,
    /// Step of the newest checkpoint on record.
    pub checkpoint: Option<u64>,
    /// What the run is, if it was not told before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunFacts>,
    /// Points that changed.
    pub curve: CurveChange<'a>,
    /// All workers, each with its newest tower steps.
    pub workers: Vec<WorkerChange<'a>>,
    /// The median of the last steps.
    pub median_step: Option<MedianStep>,
    /// What happened, the newest last.
    pub happenings: Vec<&'a Happening>,
    /// How often things happened.
    pub counts: Counts,
    /// The lines of the ledger that were skipped.
    pub damage: &'a Damage,
    /// All scores, if there is a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scores: Option<&'a [Score]>,
}

/// The run, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunFacts {
    /// Version and commit of the server's program.
    pub version: String,
    /// Settings by name.
    pub settings: Vec<(&'static str, String)>,
    /// Examples of one update.
    pub examples_per_update: u64,
    /// Examples of an epoch.
    pub num_train_examples: u32,
}

/// Points of the curve from an index on.
#[derive(Debug, Serialize)]
pub struct CurveChange<'a> {
    /// The points before it stay as they were; there are no others after those that follow.
    pub from: usize,
    /// The points from there.
    pub points: &'a [Point],
}

/// A worker.
#[derive(Debug, Serialize)]
pub struct WorkerChange<'a> {
    /// What it is and did, without its tower steps.
    #[serde(flatten)]
    pub lane: &'a Lane,
    /// Median time of its last tower steps, in microseconds.
    pub held_micros: Option<u64>,
    /// Median time that it computed one, in microseconds.
    pub compute_micros: u64,
    /// How slow it is beside the others.
    pub slowness: Option<Slowness>,
    /// Its tower steps that are new.
    pub steps: Vec<&'a LaneStep>,
}

impl RunView {
    /// What changed since `cursor`, which then stands at what there is now.
    pub fn since(&self, cursor: &mut Cursor) -> Changes<'_> {
        let before = *cursor;
        let (curve, lanes, happenings) = (self.curve(), self.lanes(), self.happenings());
        *cursor = Cursor {
            has_looked: true,
            starts: self.counts().starts,
            curve_shape: curve.shape(),
            num_points: curve.points().len(),
            lane_serial: lanes.last_serial(),
            happening_serial: happenings.last_serial(),
            scores_version: self.scores().version(),
        };
        let from = match before.curve_shape == cursor.curve_shape {
            // The last point may have grown.
            true => before.num_points.saturating_sub(1),
            false => 0,
        };
        let run = self.run().filter(|_| before.starts != cursor.starts);
        let is_new = |happening: &&Happening| happening.serial > before.happening_serial;
        let has_scores = before.scores_version != cursor.scores_version;
        Changes {
            is_whole: !before.has_looked,
            state: self.state(),
            global_step: self.global_step().0,
            loss: self.last().map(|last| last.loss),
            learning_rate: self.last().map(|last| last.learning_rate),
            examples_per_sec: self.times().examples_per_sec(),
            began_micros: self.began_micros(),
            last_micros: self.last_micros(),
            trained_micros: self.trained_micros(),
            checkpoint: self.checkpoint().map(|step| step.0),
            run: run.map(|run| facts_of(run, self.version())),
            curve: CurveChange {
                from,
                points: &curve.points()[from..],
            },
            workers: self.workers_since(before.lane_serial),
            median_step: self.times().median_step(),
            happenings: happenings.iter().filter(is_new).collect(),
            counts: self.counts(),
            damage: self.damage(),
            scores: has_scores.then(|| self.scores().iter()),
        }
    }

    /// All workers, each with its tower steps that are newer than `serial`.
    fn workers_since(&self, serial: u64) -> Vec<WorkerChange<'_>> {
        let lanes = self.lanes().iter().iter().zip(self.lanes().slowness());
        let changes = lanes.map(|(lane, slowness)| WorkerChange {
            lane,
            held_micros: lane.median_held_micros(),
            compute_micros: lane.median_compute_micros(),
            slowness,
            steps: lane
                .steps
                .iter()
                .filter(|step| step.serial > serial)
                .collect(),
        });
        changes.collect()
    }
}

fn facts_of(run: &RunConfig, version: &str) -> RunFacts {
    let mut settings = vec![
        ("data set", run.data.to_string()),
        (
            "training examples",
            run.data.num_train_examples().to_string(),
        ),
        ("input", run.input.to_string()),
        ("towers", run.num_towers.to_string()),
        ("batch size", run.batch_size.to_string()),
        ("mode", run.mode.to_string()),
        ("seed", run.seed.to_string()),
        ("learning rate", run.learning_rate.to_string()),
        ("epochs per decay", run.num_epochs_per_decay.to_string()),
        ("decay by", run.decay_by.to_string()),
        ("moving average decay", run.moving_average_decay.to_string()),
        ("kernels", run.kernels.to_string()),
        ("threads", run.threads.to_string()),
        ("initial state", run.initial_digest.to_string()),
    ];
    if let Some(numerics) = &run.numerics {
        settings.push(("numerics", numerics.to_string()));
    }
    RunFacts {
        version: version.to_owned(),
        settings,
        examples_per_update: run.examples_per_update(),
        num_train_examples: run.data.num_train_examples(),
    }
}

#[cfg(test)]
mod tests {
    use pserver_ledger::fixtures::{committed, joined, lines, rewound, started};
    use pserver_ledger::record::Record;
    use serde_json::{Value, json};

    use super::*;

    fn add(view: &mut RunView, records: impl IntoIterator<Item = Record>) {
        lines(records).for_each(|line| view.add(&line));
    }

    fn look(view: &RunView, cursor: &mut Cursor) -> Value {
        serde_json::to_value(view.since(cursor)).unwrap()
    }

    #[test]
    fn the_first_look_sees_everything_and_the_next_what_is_new() {
        let mut view = RunView::default();
        add(&mut view, [started(0), joined(0, "host/10")]);
        add(&mut view, (0..3).map(committed));
        let mut cursor = Cursor::default();
        let whole = look(&view, &mut cursor);
        assert_eq!(whole["is_whole"], true);
        assert_eq!(whole["curve"]["points"].as_array().unwrap().len(), 3);
        assert_eq!(whole["workers"][0]["steps"].as_array().unwrap().len(), 3);
        assert_eq!(whole["happenings"].as_array().unwrap().len(), 2);
        assert_eq!(
            whole["run"]["settings"][0],
            json!(["data set", "synthetic:20"])
        );

        add(&mut view, [committed(3)]);
        let change = look(&view, &mut cursor);
        assert_eq!(change["is_whole"], false);
        assert_eq!(change["curve"]["from"], 2);
        assert_eq!(change["curve"]["points"].as_array().unwrap().len(), 2);
        assert_eq!(change["workers"][0]["steps"].as_array().unwrap().len(), 1);
        assert_eq!(change["happenings"], json!([]));
        assert!(change.get("run").is_none() && change.get("scores").is_none());
    }

    #[test]
    fn a_run_that_went_back_is_drawn_anew() {
        let mut view = RunView::default();
        add(&mut view, [started(0)]);
        add(&mut view, (0..5).map(committed));
        let mut cursor = Cursor::default();
        look(&view, &mut cursor);
        add(&mut view, [rewound(2), started(2)]);
        let change = look(&view, &mut cursor);
        assert_eq!(change["curve"]["from"], 0);
        assert_eq!(change["curve"]["points"].as_array().unwrap().len(), 2);
        assert!(change.get("run").is_some());
    }

    #[test]
    fn an_empty_view_is_told_too() {
        let empty = look(&RunView::default(), &mut Cursor::default());
        assert_eq!(empty["state"], "empty");
        assert_eq!(empty["loss"], Value::Null);
    }
}
