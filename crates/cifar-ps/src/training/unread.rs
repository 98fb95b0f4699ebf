//! Gradients that count before they are read.
//!
//! A gradient that a worker has handed over in shared memory counts where it lies. It is read in the update
//! itself, once, and only then is known whether it makes sense and whether it is whole. So an update is
//! believed or not after it was applied and before it is committed; one that is not is taken apart, and
//! its gradients are judged as any others.
//!
//! ```text
//!   push -> counts -> (the last one) -> apply -> believes -> commit
//!                |                         ^          |
//!                | its worker is           |          | no
//!                | answered first          |          v
//!                +-------- keep ---------> + <-- reconsider
//! ```

use std::time::Instant;

use cifar_params::Values;
use cifar_sequence::TowerStep;
use cifar_wire::messages::{Goodbye, Member, Push, Verdict};

use super::{Pushed, Training};
use crate::aggregator::TowerGradient;
use crate::gradient::Gradient;
use crate::scrutiny::Answer;
use crate::update::Update;

impl Training {
    /// Whether the gradient of a push may count before it is read: nobody is to compute its tower step once
    /// more, and no summary is made of it.
    #[must_use]
    pub fn may_count_unread(&self, push: &Push) -> bool {
        let of = push.tower_step;
        push.losses.total.is_finite()
            && !self.is_audited(of)
            && self.questions.answers(of).is_empty()
            && !self.summaries.includes(self.snapshot.state.global_step)
    }

    /// Whether all that an update has read out of slots was whole and makes sense.
    #[must_use]
    pub fn believes(&self, update: &Update) -> bool {
        update.in_slots().all(|(gradient, slot)| {
            let doubt = self.norms.doubt(gradient.losses.total, gradient.norm);
            doubt.is_none() && slot.are_there()
        })
    }

    /// An update was not carried out: a variable would not be finite, or it is not
    /// [believed](Self::believes). `pusher` waits for the answer.
    ///
    /// # Panics
    ///
    /// If the update is not one that [`push`](Self::push) made: those have gradients.
    pub fn reconsider(&mut self, now: Instant, update: Update, pusher: Member) -> Pushed {
        let in_slots: Vec<TowerStep> = update.in_slots().map(|(gradient, _)| gradient.of).collect();
        if in_slots.is_empty() {
            return Pushed::Answered(self.overflowed(&update));
        }
        for gradient in update.gradients {
            self.aggregator.add(gradient);
        }
        let mut answer = Verdict::Accepted;
        for of in in_slots {
            let Some(gradient) = self.aggregator.remove(of) else {
                continue;
            };
            let worker = gradient.worker;
            let verdict = self.read(gradient);
            if worker == pusher.worker {
                answer = verdict;
            }
        }
        match self.complete(now) {
            Some(update) => Pushed::Complete(update),
            None => Pushed::Answered(answer),
        }
    }

    /// A worker is to be answered, and may then do with its slot what it likes: what counts of it is copied
    /// out. Whether a tower step has become open by that, because it does not count after all.
    pub fn keep(&mut self, member: Member) -> bool {
        if !self.is_member(member) {
            return false;
        }
        let of = self.aggregator.in_slot_of(member.worker);
        let gradient = of.and_then(|of| self.aggregator.remove(of));
        gradient.is_some_and(|gradient| self.read(gradient) != Verdict::Accepted)
    }

    /// Reads a gradient that counts unread, and has been taken back; it counts if it is accepted.
    fn read(&mut self, gradient: TowerGradient) -> Verdict {
        let Some(slot) = gradient.numbers.slot() else {
            self.aggregator.add(gradient);
            return Verdict::Accepted;
        };
        let Some(Gradient { numbers, norm }) = Gradient::copied_out(slot, self.gradient_memory())
        else {
            self.discredit(&gradient);
            let of = gradient.of;
            let reason = format!("it has overwritten its gradient of {of} before it was answered");
            self.quarantine(gradient.worker, reason);
            return Verdict::Goodbye(Goodbye::Quarantined);
        };
        let doubt = self.norms.doubt(gradient.losses.total, norm);
        let gradient = TowerGradient {
            numbers,
            norm,
            ..gradient
        };
        if doubt.is_none() {
            self.aggregator.add(gradient);
            return Verdict::Accepted;
        }
        self.discredit(&gradient);
        let (of, worker) = (gradient.of, gradient.worker);
        // The first answer to its tower step, or it would not have counted unread.
        self.questions.add(Answer { gradient, doubt });
        self.ask_another(of, worker, doubt)
    }

    /// Takes back what a gradient that counted has done for its worker and its tower step.
    fn discredit(&mut self, gradient: &TowerGradient) {
        self.towers.open_one(gradient.of);
        if let Some(worker) = self.members.get_mut(gradient.worker) {
            worker.tower_steps -= 1;
        }
    }

    /// Memory for a gradient, with anything in it: that of one that was applied, if there is any.
    pub fn gradient_memory(&mut self) -> Values {
        let len = self.snapshot.state.variables.len();
        self.spare_gradients
            .pop()
            .unwrap_or_else(|| Values::zeros(len))
    }
}
