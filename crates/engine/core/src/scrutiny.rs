//! Whether a gradient may count: a second worker is asked about one that looks wrong, and about a
//! random share of those that look right.
//!
//! A tower step is a pure function, so two workers of the same numerics come to the same bits. Where
//! one worker makes sense of what others came to nonsense with, those are at fault; where nobody
//! does, it is the model. No number of bad workers outvotes a good one.
//!
//! A gradient that is not finite, or whose norm is over 100 times the median of the last 100 steps, does not count at
//! first sight: the same tower step goes to another worker, and to the next, until one makes sense of it. A worker that
//! is alone computes it once more itself. `--audit-fraction` asks two workers about a random share of all tower steps.

use std::collections::{BTreeMap, VecDeque};

use pserver_run::member::WorkerId;
use pserver_run::{Evidence, TowerStep};

use crate::contribution::{Contribution, Doubt};

/// Steps that the median of norms is taken of; nothing is absurd before there are as many.
const WINDOW: usize = 100;

/// A gradient is absurd when its norm is above this many medians: in a healthy run it is below
/// ten.
const ABSURD_MEDIANS: f32 = 100.0;

/// The norms of the last steps' gradients.
#[derive(Debug, Default)]
pub(crate) struct Norms {
    last: VecDeque<f32>,
}

impl Norms {
    /// A step was committed, whose gradients have this norm in the mean.
    pub(crate) fn note(&mut self, norm: f32) {
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(norm);
    }

    /// What is wrong with a gradient of this loss and norm, if anything.
    pub(crate) fn doubt(&self, loss: f32, norm: f32) -> Option<Doubt> {
        if !loss.is_finite() || !norm.is_finite() {
            return Some(Doubt::NotFinite);
        }
        if self.last.len() < WINDOW {
            return None;
        }
        let mut sorted: Vec<f32> = self.last.iter().copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let median = sorted[WINDOW / 2];
        (norm > ABSURD_MEDIANS * median).then_some(Doubt::Absurd { norm, median })
    }
}

/// The answers to the tower steps that are not settled yet.
#[derive(Debug)]
pub(crate) struct Questions<G> {
    answers: BTreeMap<TowerStep, Vec<Contribution<G>>>,
}

impl<G> Default for Questions<G> {
    fn default() -> Self {
        Questions {
            answers: BTreeMap::new(),
        }
    }
}

impl<G> Questions<G> {
    /// Adds an answer; all of its tower step, in order of arrival.
    pub(crate) fn add(&mut self, answer: Contribution<G>) -> &[Contribution<G>] {
        let answers = self.answers.entry(answer.of()).or_default();
        answers.push(answer);
        answers
    }

    /// Whether every tower step that was answered is settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The answers to a tower step so far.
    pub(crate) fn answers(&self, of: TowerStep) -> &[Contribution<G>] {
        self.answers.get(&of).map_or(&[], Vec::as_slice)
    }

    /// The answers to a tower step, which is settled with this.
    pub(crate) fn settle(&mut self, of: TowerStep) -> Vec<Contribution<G>> {
        self.answers.remove(&of).unwrap_or_default()
    }

    /// Forgets the answers of a worker that is not to be believed.
    pub(crate) fn forget(&mut self, worker: WorkerId) {
        for answers in self.answers.values_mut() {
            answers.retain(|answer| answer.worker() != worker);
        }
    }

    /// Forgets all of them: their step is over.
    pub(crate) fn clear(&mut self) {
        self.answers.clear();
    }
}

/// What is to be done about the answers to a tower step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// This answer counts, and those are wrong.
    Count {
        /// Index of the answer.
        answer: usize,
        /// Indices of answers that are wrong.
        wrong: Vec<usize>,
    },
    /// One more worker computes the tower step.
    AskAnother,
    /// Every worker at hand, or the only one twice, came to nonsense: the model diverged.
    Diverged,
}

/// Rules about `answers`, of which there is at least one.
///
/// `is_audited`: a second answer is wanted even though nothing is wrong with the first.
/// `has_others`: there is a worker that has not answered yet.
pub(crate) fn rule<G: Evidence>(
    answers: &[Contribution<G>],
    is_audited: bool,
    has_others: bool,
) -> Ruling {
    let of_doubt = |in_doubt: bool| {
        let indices = 0..answers.len();
        indices
            .filter(|index| answers[*index].doubt.is_some() == in_doubt)
            .collect::<Vec<_>>()
    };
    let (fine, bad) = (of_doubt(false), of_doubt(true));
    let count = |answer, wrong| Ruling::Count { answer, wrong };
    match fine[..] {
        [] if bad.len() < 2 || has_others => Ruling::AskAnother,
        [] => Ruling::Diverged,
        [_] if bad.is_empty() && is_audited && has_others => Ruling::AskAnother,
        [only] => count(only, bad),
        [first, ..] if !are_comparable(fine.iter().map(|index| &answers[*index])) => {
            count(first, bad)
        }
        [first, second] if same_bits(&answers[first], &answers[second]) => count(first, bad),
        // Which of them is wrong takes a third to tell.
        [_, _] if bad.is_empty() && has_others => Ruling::AskAnother,
        [first, _] => count(first, bad),
        [first, second, third, ..] => {
            if same_bits(&answers[first], &answers[third]) {
                count(first, vec![second])
            } else if same_bits(&answers[second], &answers[third]) {
                count(second, vec![first])
            } else {
                count(first, bad)
            }
        }
    }
}

/// Whether answers that differ say something about their workers: those compute alike, and none of
/// them was asked twice.
pub(crate) fn are_comparable<'a, G: 'a>(
    answers: impl Iterator<Item = &'a Contribution<G>> + Clone,
) -> bool {
    let mut workers: Vec<WorkerId> = answers.clone().map(|a| a.worker()).collect();
    let count = workers.len();
    workers.sort_unstable();
    workers.dedup();
    let mut numerics = answers.map(|answer| &answer.numerics);
    let first = numerics.next();
    workers.len() == count && numerics.all(|other| Some(other) == first)
}

/// Whether two answers agree in every bit.
pub(crate) fn same_bits<G: Evidence>(a: &Contribution<G>, b: &Contribution<G>) -> bool {
    a.gradient.same_bits(&b.gradient)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pserver_run::Numerics;

    use super::*;
    use crate::fixtures::{Toy, contribution, some_time};

    fn answer(worker: u32, number: f32) -> Contribution<Toy> {
        let mut answer = contribution(0, 0, [number, 0.0]);
        answer.push.member.worker = WorkerId(worker);
        answer.arrived = some_time() + Duration::from_secs(u64::from(worker));
        answer.doubt = (!number.is_finite()).then_some(Doubt::NotFinite);
        answer
    }

    /// What is ruled about answers with these numbers, when there are others to ask.
    fn ruling(numbers: &[f32], is_audited: bool) -> Ruling {
        let answers: Vec<Contribution<Toy>> =
            (0..).zip(numbers).map(|(w, n)| answer(w, *n)).collect();
        rule(&answers, is_audited, true)
    }

    fn count(answer: usize, wrong: &[usize]) -> Ruling {
        Ruling::Count {
            answer,
            wrong: wrong.to_vec(),
        }
    }

    #[test]
    fn a_fine_answer_counts_at_once_unless_it_is_audited() {
        assert_eq!(ruling(&[1.0], false), count(0, &[]));
        assert_eq!(ruling(&[1.0], true), Ruling::AskAnother);
        assert_eq!(rule(&[answer(0, 1.0)], true, false), count(0, &[]));
    }

    #[test]
    fn nonsense_is_the_workers_fault_if_another_makes_sense_of_it_and_the_models_if_not() {
        assert_eq!(ruling(&[f32::NAN], false), Ruling::AskAnother);
        assert_eq!(
            rule(&[answer(0, f32::NAN)], false, false),
            Ruling::AskAnother
        );
        assert_eq!(ruling(&[f32::NAN, 1.0], false), count(1, &[0]));
        assert_eq!(ruling(&[1.0, f32::NAN], true), count(0, &[1]));
        let two = [answer(0, f32::NAN), answer(1, f32::INFINITY)];
        assert_eq!(rule(&two, false, true), Ruling::AskAnother);
        assert_eq!(rule(&two, false, false), Ruling::Diverged);
        assert_eq!(ruling(&[f32::NAN, f32::NAN, 1.0], false), count(2, &[0, 1]));
    }

    #[test]
    fn of_three_answers_the_odd_one_is_wrong() {
        assert_eq!(ruling(&[1.0, 1.0], true), count(0, &[]));
        assert_eq!(ruling(&[1.0, 2.0], true), Ruling::AskAnother);
        assert_eq!(ruling(&[1.0, 2.0, 2.0], true), count(1, &[0]));
        assert_eq!(ruling(&[1.0, 2.0, 1.0], true), count(0, &[1]));
        assert_eq!(ruling(&[1.0, 2.0, 3.0], true), count(0, &[]));
        assert_eq!(ruling(&[1.0, 2.0, f32::NAN], true), count(0, &[2]));
        let two = [answer(0, 1.0), answer(1, 2.0)];
        assert_eq!(rule(&two, true, false), count(0, &[]), "nobody left to ask");
    }

    #[test]
    fn nobody_is_convicted_by_one_witness_or_by_one_who_computes_otherwise() {
        let twice = [answer(0, 1.0), answer(1, 2.0), answer(0, 1.0)];
        assert_eq!(rule(&twice, true, true), count(0, &[]));
        let mut otherwise = answer(1, 2.0);
        otherwise.numerics = Numerics::example(8);
        assert_eq!(
            rule(&[answer(0, 1.0), otherwise], true, true),
            count(0, &[])
        );
    }

    #[test]
    fn a_norm_is_absurd_only_against_a_full_window() {
        let mut norms = Norms::default();
        for _ in 1..WINDOW {
            norms.note(2.0);
        }
        assert_eq!(norms.doubt(1.0, 1e9), None);
        norms.note(2.0);
        assert_eq!(norms.doubt(1.0, 200.0), None);
        assert!(matches!(
            norms.doubt(1.0, 201.0),
            Some(Doubt::Absurd { median: 2.0, .. })
        ));
        assert_eq!(norms.doubt(f32::NAN, 1.0), Some(Doubt::NotFinite));
    }

    #[test]
    fn answers_are_compared_bit_by_bit() {
        let mut zero = answer(0, 0.0);
        zero.gradient = Toy([0.0; 2]);
        let mut minus_zero = answer(1, 0.0);
        minus_zero.gradient = Toy([-0.0; 2]);
        assert!(!same_bits(&zero, &minus_zero));
    }
}
