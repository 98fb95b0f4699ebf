//! The workers of the run: who they are and when they last gave a sign of life.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cifar_params::Numerics;
use cifar_wire::messages::{Member, Session, WorkerId};

/// One worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// For people: host and process.
    pub name: String,
    /// What it computes with.
    pub numerics: Numerics,
    /// Its last sign of life.
    pub last_seen: Instant,
    /// Its last pull or push: signs of life come from a worker that hangs as well.
    pub last_asked: Instant,
    /// Tower steps of this worker that counted.
    pub tower_steps: u64,
    /// Compute time of its last tower step.
    pub compute_time: Duration,
    /// Whether it was told that the run is over.
    pub told_goodbye: bool,
}

/// The workers that hold a lease.
///
/// Pure: the caller says what time it is.
#[derive(Debug)]
pub struct Members {
    session: Session,
    lease: Duration,
    next: WorkerId,
    workers: BTreeMap<WorkerId, Worker>,
    quarantined: BTreeSet<WorkerId>,
}

impl Members {
    /// No workers yet. `lease` is how long a worker stays without a sign of life.
    #[must_use]
    pub fn new(session: Session, lease: Duration) -> Self {
        Members {
            session,
            lease,
            next: WorkerId(0),
            workers: BTreeMap::new(),
            quarantined: BTreeSet::new(),
        }
    }

    /// How long a worker stays without a sign of life.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Adds a worker.
    pub fn admit(&mut self, now: Instant, name: String, numerics: Numerics) -> Member {
        let id = self.next;
        self.next = WorkerId(id.0 + 1);
        let worker = Worker {
            name,
            numerics,
            last_seen: now,
            last_asked: now,
            tower_steps: 0,
            compute_time: Duration::ZERO,
            told_goodbye: false,
        };
        self.workers.insert(id, worker);
        Member {
            session: self.session,
            worker: id,
        }
    }

    /// The worker, whose lease begins anew; `None` if it is no member: of an earlier session, or
    /// given up.
    pub fn seen(&mut self, now: Instant, member: Member) -> Option<&mut Worker> {
        if member.session != self.session {
            return None;
        }
        let worker = self.workers.get_mut(&member.worker)?;
        worker.last_seen = now;
        Some(worker)
    }

    /// Whether this is one of the workers.
    #[must_use]
    pub fn contains(&self, member: Member) -> bool {
        member.session == self.session && self.workers.contains_key(&member.worker)
    }

    /// The worker of that number, whose lease goes on as it was.
    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    /// The worker of that number.
    #[must_use]
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// The numbers of the workers.
    pub fn ids(&self) -> impl Iterator<Item = WorkerId> {
        self.workers.keys().copied()
    }

    /// Ends a membership.
    pub fn remove(&mut self, member: Member) -> Option<Worker> {
        if member.session != self.session {
            return None;
        }
        self.workers.remove(&member.worker)
    }

    /// Ends a membership for good: the worker computed something wrong.
    pub fn quarantine(&mut self, id: WorkerId) -> Option<Worker> {
        self.quarantined.insert(id);
        self.workers.remove(&id)
    }

    /// Whether this member was [put into quarantine](Self::quarantine).
    #[must_use]
    pub fn is_quarantined(&self, member: Member) -> bool {
        member.session == self.session && self.quarantined.contains(&member.worker)
    }

    /// Everything was at rest for this long: the leases go on where they were.
    pub fn extend(&mut self, now: Instant, pause: Duration) {
        for worker in self.workers.values_mut() {
            worker.last_seen = now.min(worker.last_seen + pause);
            worker.last_asked = now.min(worker.last_asked + pause);
        }
    }

    /// Ends the memberships whose lease is over.
    pub fn expire(&mut self, now: Instant) -> Vec<(WorkerId, Worker)> {
        let lease = self.lease;
        let over = |worker: &Worker| now.saturating_duration_since(worker.last_seen) > lease;
        self.workers
            .extract_if(.., |_, worker| over(worker))
            .collect()
    }

    /// The workers by number.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }
}
