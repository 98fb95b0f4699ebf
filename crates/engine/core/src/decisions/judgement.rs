//! Whether a gradient counts: is it of the present state, does it make sense, do others agree?

use std::time::Instant;

use pserver_run::member::WorkerId;
use pserver_run::record::{Dropped, Record};
use pserver_run::request::{Push, Verdict};
use pserver_run::{
    Evidence, Mode, TowerStep,
    stream::{Purpose, Stream},
};

use super::{Core, Decision};
use crate::contribution::Contribution;
use crate::contribution::Doubt;
use crate::fact::Notice;
use crate::scrutiny::{self, Ruling};

impl<G: Evidence> Core<G> {
    /// By how many updates the gradient is too old, 0 in a synchronous run; or why it cannot count.
    pub(super) fn staleness(&mut self, push: &Push) -> Result<u64, (Verdict, Dropped)> {
        let staleness = match self.run.mode {
            Mode::Synchronous | Mode::Quorum { .. } => self.out_of_step(push)?,
            Mode::Asynchronous { max_staleness, .. } => self.overtaken(push, max_staleness)?,
        };
        match self.step.towers.attempt(push.tower_step) {
            Some(attempt) if attempt == push.attempt => Ok(staleness),
            _ => Err((Verdict::Accepted, Dropped::Duplicate)),
        }
    }

    /// How many updates have overtaken the gradient; fails for more than may, and for one that counts
    /// already.
    fn overtaken(&mut self, push: &Push, max: u32) -> Result<u64, (Verdict, Dropped)> {
        let serial = push.tower_step.serial(self.run.num_towers);
        if self.asynchronous.applied.contains(serial) {
            return Err((Verdict::Accepted, Dropped::Duplicate));
        }
        let mut newest_first = self.asynchronous.recent.iter().rev();
        let age = newest_first.position(|digest| *digest == push.state_digest);
        let (staleness, reason) = match age {
            Some(age) if age <= max as usize => return Ok(age as u64),
            Some(age) => (age as u64, Dropped::Stale),
            None => (0, Dropped::OtherState),
        };
        // Somebody, perhaps the same worker, begins anew with the present variables.
        self.step.towers.release(push.member.worker);
        Err((Verdict::Stale { staleness }, reason))
    }

    /// Fails for a gradient that was not taken at the present state.
    fn out_of_step(&self, push: &Push) -> Result<u64, (Verdict, Dropped)> {
        let (step, of_push) = (self.step.at.global_step, push.tower_step.global_step);
        if of_push > step {
            return Err((Verdict::Ahead { global_step: step }, Dropped::Ahead));
        }
        let staleness = step.0 - of_push.0;
        if staleness > 0 {
            return Err((Verdict::Stale { staleness }, Dropped::Stale));
        }
        if push.state_digest != self.step.at.digest {
            return Err((Verdict::Stale { staleness }, Dropped::OtherState));
        }
        Ok(0)
    }

    /// Has the gradient count, or somebody compute it once more.
    pub(super) fn judge(&mut self, now: Instant, answer: Contribution<G>) -> Decision<G> {
        let (of, worker) = (answer.of(), answer.worker());
        let (doubt, loss) = (answer.doubt, answer.push.losses.total);
        let is_audited = self.is_audited(of);
        // Nearly every gradient is the first of its tower step and counts: nobody is looked for.
        let at_hand = if is_audited || !self.step.questions.is_empty() {
            self.workers_at_hand(now)
        } else {
            Vec::new()
        };
        let answers = self.step.questions.add(answer);
        let answered = |id| answers.iter().any(|answer| answer.worker() == id);
        let has_others = at_hand.iter().any(|id| !answered(*id));
        let ruling = scrutiny::rule(answers, is_audited, has_others);
        match ruling {
            Ruling::Count { answer, wrong } => self.count(now, of, answer, &wrong),
            Ruling::AskAnother => Decision::Answer(self.ask_another(of, worker, doubt)),
            Ruling::Diverged => Decision::Answer(self.diverge(of, worker, loss)),
        }
    }

    /// Has somebody compute a tower step once more, which `worker` has answered; what that one is told.
    fn ask_another(&mut self, of: TowerStep, worker: WorkerId, doubt: Option<Doubt>) -> Verdict {
        self.compare(of);
        self.step.towers.ask_another(of, worker);
        let Some(doubt) = doubt else {
            return Verdict::Accepted;
        };
        self.keep(Record::InDoubt {
            of,
            worker: worker.0,
            reason: doubt.to_string(),
        });
        Verdict::InDoubt
    }

    /// Whether two workers are to compute this tower step. Only equals can be compared, and only at
    /// the same variables.
    fn is_audited(&self, of: TowerStep) -> bool {
        if self.limits.audit_fraction <= 0.0 || self.is_asynchronous() {
            return false;
        }
        let (step, tower) = (of.global_step.0, u64::from(of.tower.0));
        let mut stream = Stream::new(self.run.seed, Purpose::Audit, step, tower);
        stream.unit_f64() < self.limits.audit_fraction
    }

    /// Tells of an audit when the second answer to a tower step has come.
    fn compare(&mut self, of: TowerStep) {
        let [first, second] = self.step.questions.answers(of) else {
            return;
        };
        let is_audit = first.doubt.is_none() && second.doubt.is_none();
        if !is_audit || !scrutiny::are_comparable([first, second].into_iter()) {
            return;
        }
        let equal = scrutiny::same_bits(first, second);
        let workers = [first, second].map(|answer| answer.worker().0);
        self.keep(Record::Audited { of, workers, equal });
    }

    /// One of the answers to a tower step counts; the workers of the `wrong` ones are at fault.
    fn count(
        &mut self,
        now: Instant,
        of: TowerStep,
        answer: usize,
        wrong: &[usize],
    ) -> Decision<G> {
        self.compare(of);
        let mut answers = self.step.questions.settle(of);
        let believed = answers[answer].worker();
        for index in wrong {
            let (worker, doubt) = (answers[*index].worker(), answers[*index].doubt);
            // A worker that did better the second time had a bad moment; it was told. And where the
            // variables have moved meanwhile, nobody need be at fault.
            if worker != believed && !self.is_asynchronous() {
                let fault = doubt.map_or("it is another".to_owned(), |doubt| doubt.to_string());
                let reason = format!(
                    "its gradient of {of} is wrong: {fault}, and that of worker {believed} is not"
                );
                self.quarantine(worker, reason);
            }
        }
        let contribution = answers.swap_remove(answer);
        self.credit(now, &contribution);
        self.step.aggregator.add(contribution);
        let Some(complete) = self.step.aggregator.take_complete() else {
            return Decision::Answer(Verdict::Accepted);
        };
        if self.run.numerics.is_none() {
            // From here on they are a part of what the run is.
            self.run.numerics = complete.first().map(|first| first.numerics.clone());
        }
        Decision::Complete(Box::new(self.update(now, complete)))
    }

    fn credit(&mut self, now: Instant, contribution: &Contribution<G>) {
        let worker = contribution.worker();
        self.step.towers.done(contribution.of(), worker);
        self.pace.note(contribution.held);
        if let Some(after) = self.patience.progress(now) {
            self.tell(Notice::GoesOn { after });
        }
        if let Some(worker) = self.members.get_mut(worker) {
            worker.tower_steps += 1;
            worker.compute_time = contribution.push.compute_time;
        }
    }

    /// The worker takes no further part.
    pub(super) fn quarantine(&mut self, worker: WorkerId, reason: String) {
        if self.members.quarantine(worker).is_none() {
            return;
        }
        self.step.towers.release(worker);
        self.step.questions.forget(worker);
        self.keep(Record::Quarantined {
            worker: worker.0,
            reason,
        });
    }
}
