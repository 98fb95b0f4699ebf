//! The run as metrics, in Prometheus' text form.
//!
//! What is counted is counted over the whole ledger: a server that is started again goes on where the
//! one before it was.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use pserver_ledger::Record;
use pserver_ledger::step_time::{parts_of, total_of};
use pserver_view::lane::WorkerState;
use pserver_wire::traffic::Traffic;

use crate::page::watch::Watch;

/// The form that [`text`] has.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names of the parts of a step, in the order of [`pserver_ledger::step_time::PARTS`].
const PHASES: [&str; 7] = [
    "assign", "compute", "travel", "apply", "digest", "write", "ledger",
];

type Label = [(&'static str, &'static str); 1];

/// The times of all steps of a run.
#[derive(Clone, Debug)]
pub(crate) struct StepTimes {
    whole: Histogram,
    phases: Family<Label, Histogram, fn() -> Histogram>,
    examples: u64,
    batch_size: u64,
}

/// From a tenth of a millisecond to a minute and a half.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 2.0, 20))
}

impl Default for StepTimes {
    fn default() -> Self {
        StepTimes {
            whole: histogram(),
            phases: Family::new_with_constructor(histogram),
            examples: 0,
            batch_size: 0,
        }
    }
}

impl StepTimes {
    /// Takes in the next record of the ledger.
    pub(crate) fn add(&mut self, record: &Record) {
        match record {
            Record::Start(start) => self.batch_size = u64::from(start.run.batch_size),
            Record::Commit(commit) => {
                let examples = self.batch_size.saturating_mul(commit.towers.len() as u64);
                self.examples = self.examples.saturating_add(examples);
                self.whole.observe(seconds(total_of(commit)));
                for (phase, micros) in PHASES.into_iter().zip(parts_of(commit)) {
                    let of_phase = self.phases.get_or_create(&[("phase", phase)]);
                    of_phase.observe(seconds(micros));
                }
            }
            _ => {}
        }
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// All metrics of a run at a moment, in microseconds since 1970.
pub(crate) fn text(watch: &Watch, traffic: Option<&Traffic>, now_micros: u64) -> String {
    let mut scrape = Scrape {
        registry: Registry::with_prefix("cifar"),
    };
    scrape.progress(watch);
    scrape.damage(watch);
    scrape.steps(&watch.step_times);
    scrape.workers(watch);
    scrape.verdicts(watch);
    scrape.checkpoint(watch, now_micros);
    if let Some(traffic) = traffic {
        scrape.traffic(traffic);
    }
    let mut text = String::new();
    encode(&mut text, &scrape.registry).expect("a string takes whatever is written to it");
    text
}

struct Scrape {
    registry: Registry,
}

impl Scrape {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.registry.register(name, help, ConstGauge::new(value));
    }

    fn gauge_in(&mut self, unit: Unit, name: &str, help: &str, value: f64) {
        self.registry
            .register_with_unit(name, help, unit, ConstGauge::new(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.registry.register(name, help, ConstCounter::new(value));
    }

    fn progress(&mut self, watch: &Watch) {
        let view = &watch.view;
        let build = Info::new([("version", pserver_cli::VERSION)]);
        self.registry
            .register("build", "The program that serves this", build);
        if let Some(run) = view.run() {
            let labels = vec![
                ("data", run.data.to_string()),
                ("mode", run.mode.to_string()),
                ("towers", run.num_towers.to_string()),
                ("batch_size", run.batch_size.to_string()),
                ("seed", run.seed.to_string()),
            ];
            self.registry
                .register("run", "What the run is", Info::new(labels));
        }
        let step = view.global_step().0 as f64;
        self.gauge("global_step", "Updates applied so far", step);
        if let Some(live) = &watch.live {
            let max_steps = live.max_steps as f64;
            self.gauge(
                "max_steps",
                "The step at which the run is complete",
                max_steps,
            );
        }
        if let Some(last) = view.last() {
            let (loss, rate) = (f64::from(last.loss), f64::from(last.learning_rate));
            self.gauge("loss", "Mean total loss of the last step", loss);
            self.gauge("learning_rate", "Learning rate of the last step", rate);
            self.gauge_in(
                Unit::Seconds,
                "last_commit_timestamp",
                "When the last step was committed, since 1970",
                seconds(last.at_micros),
            );
        }
        if let Some(score) = view.scores().iter().last() {
            let (precision, step) = (score.precision_at_1, score.global_step as f64);
            self.gauge("precision_at_1", "Precision of the newest score", precision);
            self.gauge("score_step", "Step of the newest score", step);
        }
    }

    fn damage(&mut self, watch: &Watch) {
        let damaged = "Lines of the ledger that are damaged and were skipped";
        let num_lines = watch.view.damage().num_lines();
        self.counter("damaged_ledger_lines", damaged, num_lines);
    }

    fn steps(&mut self, times: &StepTimes) {
        self.counter("examples", "Examples of all updates", times.examples);
        self.registry.register_with_unit(
            "step",
            "Time from one commit to the next",
            Unit::Seconds,
            times.whole.clone(),
        );
        self.registry.register_with_unit(
            "step_phase",
            "Time of each part of a step",
            Unit::Seconds,
            times.phases.clone(),
        );
    }

    fn workers(&mut self, watch: &Watch) {
        let (view, counts) = (&watch.view, watch.view.counts());
        let lanes = view.lanes().iter();
        let active = lanes
            .iter()
            .filter(|lane| lane.state == WorkerState::Active);
        let active = active.count() as f64;
        let is_busy = |live: &crate::page::live::Live| {
            let workers = live.workers.iter();
            workers.filter(|worker| worker.tower.is_some()).count() as f64
        };
        let workers = Family::<Label, Gauge<f64, AtomicU64>>::default();
        let set = |state, value| {
            workers.get_or_create(&[("state", state)]).set(value);
        };
        match watch.live.as_ref().map(is_busy) {
            Some(busy) => {
                set("computing", busy);
                set("waiting", (active - busy).max(0.0));
            }
            None => set("registered", active),
        }
        let stragglers = view.lanes().slowness();
        let stragglers = stragglers.iter().flatten().filter(|slow| slow.is_straggler);
        self.registry
            .register("workers", "Workers by what they do", workers);
        self.gauge(
            "stragglers",
            "Workers that take more than half as long again as the others",
            stragglers.count() as f64,
        );
        self.family(
            "worker_events",
            "Comings and goings of workers",
            "event",
            &[
                ("joined", counts.joined),
                ("left", counts.left),
                ("lost", counts.lost),
                ("quarantined", counts.quarantined),
            ],
        );
        let overdue = "Tower steps that were overdue and also given to another worker";
        self.counter("overdue_tower_steps", overdue, counts.overdue);
    }

    fn verdicts(&mut self, watch: &Watch) {
        let counts = watch.view.counts();
        self.family(
            "gradients",
            "Gradients that came, by what became of them",
            "verdict",
            &[
                ("accepted", counts.accepted),
                ("stale", counts.stale),
                ("duplicate", counts.duplicate),
                ("ahead", counts.ahead),
                ("other_state", counts.other_state),
                ("in_doubt", counts.in_doubt),
            ],
        );
        self.family(
            "audits",
            "Tower steps that two workers computed, by whether they agreed",
            "outcome",
            &[
                ("equal", counts.audits_equal),
                ("different", counts.audits_different),
            ],
        );
    }

    fn checkpoint(&mut self, watch: &Watch, now_micros: u64) {
        if let Some((step, _, at_micros)) = watch.checkpoint() {
            self.gauge(
                "checkpoint_step",
                "Step of the newest checkpoint",
                step.0 as f64,
            );
            self.gauge_in(
                Unit::Seconds,
                "checkpoint_age",
                "Time since the newest checkpoint was written",
                seconds(now_micros.saturating_sub(at_micros)),
            );
        }
    }

    fn traffic(&mut self, traffic: &Traffic) {
        let received = ConstCounter::new(traffic.received());
        let sent = ConstCounter::new(traffic.sent());
        let came = "Bytes that came from workers over the network, since the server's start";
        let went = "Bytes that went to workers over the network, since the server's start";
        self.registry
            .register_with_unit("grpc_received", came, Unit::Bytes, received);
        self.registry
            .register_with_unit("grpc_sent", went, Unit::Bytes, sent);
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &[(&'static str, u64)],
    ) {
        let family = Family::<Label, Counter>::default();
        for (name, value) in values {
            family.get_or_create(&[(label, *name)]).inc_by(*value);
        }
        self.registry.register(name, help, family);
    }
}
