//! The workers of the run: who they are and when they were last heard of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pserver_run::Numerics;
use pserver_run::member::{Member, Secret, WorkerId};

/// One worker.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    /// What its requests show.
    secret: Secret,
    /// For people: host and process.
    pub(crate) name: String,
    /// What it computes with.
    pub(crate) numerics: Numerics,
    /// Its last request of any kind.
    pub(crate) last_seen: Instant,
    /// Its last pull or push: heartbeats come from a worker that hangs as well.
    pub(crate) last_asked: Instant,
    /// Tower steps of this worker that counted.
    pub(crate) tower_steps: u64,
    /// Compute time of its last tower step.
    pub(crate) compute_time: Duration,
    /// Whether it was told that the run is over.
    pub(crate) told_goodbye: bool,
}

/// The workers that hold a lease.
///
/// Pure: the caller says what time it is.
#[derive(Debug)]
pub(crate) struct Members {
    lease: Duration,
    next: WorkerId,
    workers: BTreeMap<WorkerId, Worker>,
    quarantined: BTreeMap<WorkerId, Secret>,
}

impl Members {
    /// No workers yet. `lease` is how long a worker stays without a request.
    pub(crate) fn new(lease: Duration) -> Self {
        Members {
            lease,
            next: WorkerId(0),
            workers: BTreeMap::new(),
            quarantined: BTreeMap::new(),
        }
    }

    /// How long a worker stays without a request.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Adds a worker, whose requests will show `secret`.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        secret: Secret,
        name: String,
        numerics: Numerics,
    ) -> Member {
        let id = self.next;
        self.next = WorkerId(id.0 + 1);
        let worker = Worker {
            secret,
            name,
            numerics,
            last_seen: now,
            last_asked: now,
            tower_steps: 0,
            compute_time: Duration::ZERO,
            told_goodbye: false,
        };
        self.workers.insert(id, worker);
        Member { worker: id, secret }
    }

    /// The worker, whose lease begins anew; `None` if it is no member: of an earlier start of the
    /// server, given up, or somebody who knows its number and not its secret.
    pub(crate) fn seen(&mut self, now: Instant, member: Member) -> Option<&mut Worker> {
        let worker = self.workers.get_mut(&member.worker);
        let worker = worker.filter(|worker| worker.secret == member.secret)?;
        worker.last_seen = now;
        Some(worker)
    }

    /// Whether this is one of the workers.
    pub(crate) fn contains(&self, member: Member) -> bool {
        let worker = self.workers.get(&member.worker);
        worker.is_some_and(|worker| worker.secret == member.secret)
    }

    /// The worker of that number, whose lease goes on as it was.
    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    /// The worker of that number.
    pub(crate) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// The numbers of the workers.
    pub(crate) fn ids(&self) -> impl Iterator<Item = WorkerId> {
        self.workers.keys().copied()
    }

    /// Ends a membership.
    pub(crate) fn remove(&mut self, member: Member) -> Option<Worker> {
        match self.contains(member) {
            true => self.workers.remove(&member.worker),
            false => None,
        }
    }

    /// Ends a membership for good: the worker computed something wrong.
    pub(crate) fn quarantine(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        self.quarantined.insert(id, worker.secret);
        Some(worker)
    }

    /// Whether this member was [put into quarantine](Self::quarantine).
    pub(crate) fn is_quarantined(&self, member: Member) -> bool {
        self.quarantined.get(&member.worker) == Some(&member.secret)
    }

    /// Everything was at rest for this long: the leases go on where they were.
    pub(crate) fn extend(&mut self, now: Instant, pause: Duration) {
        for worker in self.workers.values_mut() {
            worker.last_seen = now.min(worker.last_seen + pause);
            worker.last_asked = now.min(worker.last_asked + pause);
        }
    }

    /// Ends the memberships whose lease is over.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<(WorkerId, Worker)> {
        let lease = self.lease;
        let over = |worker: &Worker| now.saturating_duration_since(worker.last_seen) > lease;
        self.workers
            .extract_if(.., |_, worker| over(worker))
            .collect()
    }

    /// The workers by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }
}
