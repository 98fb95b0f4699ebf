//! What everybody in a simulation has heard, held against what must be true.

use std::fmt;
use std::time::Duration;

use pserver_run::GlobalStep;
use pserver_wire::messages::{Delivery, Goodbye, Gradients, Push, Verdict, Work};

use crate::plan::Plan;
use crate::reference::Reference;

/// Events that are shown when a check fails.
const SHOWN: usize = 60;

/// What has been done and has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) server_kills: u64,
    pub(crate) kills_at_a_moment: u64,
    pub(crate) worker_kills: u64,
    pub(crate) link_faults: u64,
    pub(crate) duplicates: u64,
    pub(crate) impersonations: u64,
    pub(crate) fetched: u64,
    pub(crate) in_slots: u64,
    pub(crate) stale: u64,
    pub(crate) lost_leases: u64,
    pub(crate) overdue: u64,
    pub(crate) doubts: u64,
    pub(crate) commits: u64,
    pub(crate) checkpoints: u64,
    pub(crate) simulated: Duration,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Totals) {
        self.seeds += other.seeds;
        self.server_kills += other.server_kills;
        self.kills_at_a_moment += other.kills_at_a_moment;
        self.worker_kills += other.worker_kills;
        self.link_faults += other.link_faults;
        self.duplicates += other.duplicates;
        self.impersonations += other.impersonations;
        self.fetched += other.fetched;
        self.in_slots += other.in_slots;
        self.stale += other.stale;
        self.lost_leases += other.lost_leases;
        self.overdue += other.overdue;
        self.doubts += other.doubts;
        self.commits += other.commits;
        self.checkpoints += other.checkpoints;
        self.simulated += other.simulated;
    }
}

/// What was heard, in order, and the first thing that is not as it must be.
pub(crate) struct History {
    reference: Reference,
    num_towers: u32,
    /// The highest step that any worker has heard of.
    heard: GlobalStep,
    /// One line each, with its time.
    events: Vec<String>,
    violation: Option<String>,
    /// Every push that was ever sent, for those who send one again.
    pub(crate) pushes: Vec<(Push, Gradients)>,
    pub(crate) totals: Totals,
}

impl History {
    pub(crate) fn new(plan: &Plan) -> Self {
        History {
            reference: Reference::new(plan.seed, plan.num_towers, plan.num_steps),
            num_towers: plan.num_towers,
            heard: GlobalStep(0),
            events: Vec::new(),
            violation: None,
            pushes: Vec::new(),
            totals: Totals {
                seeds: 1,
                ..Totals::default()
            },
        }
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// What an answer to a request that is sent now cannot be older than.
    pub(crate) fn heard(&self) -> GlobalStep {
        self.heard
    }

    /// The first thing that went wrong.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The last events, one a line.
    pub(crate) fn recent(&self) -> String {
        let shown = self.events.len().saturating_sub(SHOWN);
        self.events[shown..].join("\n")
    }

    /// All events, which are left behind.
    pub(crate) fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// Notes an event.
    pub(crate) fn note(&mut self, now: Duration, event: fmt::Arguments<'_>) {
        self.events
            .push(format!("{:>7} ms  {event}", now.as_millis()));
    }

    /// Something that must not be.
    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(what());
        }
    }

    /// A server starts at this state.
    pub(crate) fn server_starts(&mut self, step: GlobalStep, digest: pserver_run::StateDigest) {
        let heard = self.heard;
        self.check(step >= heard, || {
            format!("the server came back at step {step}, a worker had heard of step {heard}")
        });
        self.check_digest(step, digest, "the server came back");
    }

    /// The server gave out work; `floor` is what had been heard when it was asked.
    pub(crate) fn work(&mut self, floor: GlobalStep, work: &Work) {
        let step = work.tower_step.global_step;
        let last = self.reference.last_step();
        self.check_step(floor, step, "gave out");
        self.check(step < last, || {
            format!("step {step} was given out, {last} is the last state")
        });
        let (tower, towers) = (work.tower_step.tower, self.num_towers);
        self.check(tower.0 < towers, || {
            format!("tower {tower} was given out, of {towers}")
        });
        self.check_digest(step, work.state_digest, "the server gave out");
        if let (Delivery::Sent(sent), Some(known)) = (&work.variables, self.reference.at(step)) {
            let same = *sent == known.variables;
            self.check(same, || {
                format!("the variables of step {step} have other bits")
            });
        }
    }

    /// The server judged a push; `floor` is what had been heard when it was sent.
    pub(crate) fn verdict(&mut self, floor: GlobalStep, push: &Push, verdict: Verdict) {
        let step = push.tower_step.global_step;
        match verdict {
            Verdict::Accepted | Verdict::InDoubt => {
                self.check_step(floor, step, "accepted a gradient of");
                self.check_digest(step, push.state_digest, "the server accepted a gradient");
            }
            Verdict::Stale { staleness } => {
                self.totals.stale += 1;
                self.check(staleness > 0, || {
                    format!("a push of step {step} was called stale at that very step")
                });
                self.check_step(floor, GlobalStep(step.0 + staleness), "is at");
            }
            Verdict::Ahead { global_step } => self.violate(format!(
                "the server is at step {global_step}, a push is of step {step}"
            )),
            Verdict::Goodbye(goodbye) => self.goodbye(goodbye),
            Verdict::Unregistered => {}
        }
    }

    /// A worker was told that the run is over.
    pub(crate) fn goodbye(&mut self, goodbye: Goodbye) {
        if goodbye == Goodbye::Quarantined {
            return;
        }
        let last = self.reference.last_step();
        self.check(goodbye == Goodbye::Complete, || {
            format!("the run ended as {goodbye:?}")
        });
        self.heard = last;
    }

    fn check_step(&mut self, floor: GlobalStep, step: GlobalStep, did: &str) {
        self.check(step >= floor, || {
            format!("the server {did} step {step} after a worker had heard of step {floor}")
        });
        let last = self.reference.last_step();
        self.check(step <= last, || {
            format!("the server {did} step {step}, the run has {last}")
        });
        self.heard = self.heard.max(step);
    }

    fn check_digest(&mut self, step: GlobalStep, digest: pserver_run::StateDigest, did: &str) {
        let same = self
            .reference
            .at(step)
            .is_some_and(|known| known.digest == digest);
        self.check(same, || {
            format!("{did} at step {step} with state {digest}, which is not the reference's")
        });
    }
}
