//! Whether a gradient may count: a second worker is asked about one that looks wrong, and about a
//! random share of those that look right.
//!
//! A tower step is a pure function, so two workers of the same numerics come to the same bits. Where
//! one worker makes sense of what others came to nonsense with, those are at fault; where nobody
//! does, it is the model. No number of bad workers outvotes a good one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use multiversion::multiversion;
use pserver_run::TowerStep;
use pserver_wire::messages::WorkerId;

use crate::aggregator::TowerGradient;

/// Steps that the median of norms is taken of; nothing is absurd before there are as many.
const WINDOW: usize = 100;

/// A gradient is absurd when its norm is above this many medians: in a healthy run it is below
/// ten.
const ABSURD_MEDIANS: f32 = 100.0;

/// What is wrong with a gradient at first sight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doubt {
    /// Its loss or one of its numbers is infinite or no number.
    NotFinite,
    /// Its norm is far above those of the last steps.
    Absurd {
        /// Its norm.
        norm: f32,
        /// The median of the last steps.
        median: f32,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::NotFinite => f.write_str("it is not finite"),
            Doubt::Absurd { norm, median } => {
                write!(
                    f,
                    "its norm is {norm}, the median of the last steps {median}"
                )
            }
        }
    }
}

/// The norms of the last steps' gradients.
#[derive(Debug, Default)]
pub struct Norms {
    last: VecDeque<f32>,
}

impl Norms {
    /// A step was committed, whose gradients have this norm in the mean.
    pub fn note(&mut self, norm: f32) {
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(norm);
    }

    /// What is wrong with a gradient of this loss and norm, if anything.
    #[must_use]
    pub fn doubt(&self, loss: f32, norm: f32) -> Option<Doubt> {
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

/// One worker's gradient of a tower step.
#[derive(Debug)]
pub struct Answer {
    /// The gradient.
    pub gradient: TowerGradient,
    /// What is wrong with it at first sight.
    pub doubt: Option<Doubt>,
}

/// The answers to the tower steps that are not settled yet.
#[derive(Debug, Default)]
pub struct Questions {
    answers: BTreeMap<TowerStep, Vec<Answer>>,
}

impl Questions {
    /// Adds an answer; all of its tower step, in order of arrival.
    pub fn add(&mut self, answer: Answer) -> &[Answer] {
        let answers = self.answers.entry(answer.gradient.of).or_default();
        answers.push(answer);
        answers
    }

    /// Whether every tower step that was answered is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The answers to a tower step so far.
    #[must_use]
    pub fn answers(&self, of: TowerStep) -> &[Answer] {
        self.answers.get(&of).map_or(&[], Vec::as_slice)
    }

    /// The answers to a tower step, which is settled with this.
    pub fn settle(&mut self, of: TowerStep) -> Vec<Answer> {
        self.answers.remove(&of).unwrap_or_default()
    }

    /// Forgets the answers of a worker that is not to be believed.
    pub fn forget(&mut self, worker: WorkerId) {
        for answers in self.answers.values_mut() {
            answers.retain(|answer| answer.gradient.worker != worker);
        }
    }

    /// Forgets all of them: their step is over.
    pub fn clear(&mut self) {
        self.answers.clear();
    }
}

/// What is to be done about the answers to a tower step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
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
#[must_use]
pub fn rule(answers: &[Answer], is_audited: bool, has_others: bool) -> Ruling {
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
pub fn are_comparable<'a>(answers: impl Iterator<Item = &'a Answer> + Clone) -> bool {
    let mut workers: Vec<WorkerId> = answers.clone().map(|a| a.gradient.worker).collect();
    let count = workers.len();
    workers.sort_unstable();
    workers.dedup();
    let mut numerics = answers.map(|answer| &answer.gradient.numerics);
    let first = numerics.next();
    workers.len() == count && numerics.all(|other| Some(other) == first)
}

/// Whether two answers agree in every bit.
#[must_use]
pub fn same_bits(a: &Answer, b: &Answer) -> bool {
    a.gradient.values.as_bytes() == b.gradient.values.as_bytes()
}

/// Euclidean norm; not finite if one of the numbers is not, or if it is beyond the largest number.
#[must_use]
pub fn norm(numbers: &[f32]) -> f32 {
    let mut norm = Norm::default();
    norm.add(numbers);
    norm.get()
}

/// A Euclidean norm that is taken piece by piece, with the same bits as at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Norm {
    /// Sums of squares that grow side by side, so that the compiler may use vectors.
    sums: [f32; Norm::LANES],
}

impl Norm {
    const LANES: usize = 32;

    /// Takes in more numbers: a multiple of 32 of them, unless they are the last.
    pub fn add(&mut self, numbers: &[f32]) {
        self.sums = add_squares(self.sums, numbers);
    }

    /// The norm of all that was taken in.
    #[must_use]
    pub fn get(&self) -> f32 {
        let sum: f64 = self.sums.into_iter().map(f64::from).sum();
        sum.sqrt() as f32
    }
}

/// Adds each number's square to one of the sums, in turns. The sums are a copy, which stays in registers.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn add_squares(mut sums: [f32; Norm::LANES], numbers: &[f32]) -> [f32; Norm::LANES] {
    let (chunks, rest) = numbers.as_chunks::<{ Norm::LANES }>();
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum += number * number;
        }
    }
    for (sum, number) in sums.iter_mut().zip(rest) {
        *sum += number * number;
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use pserver_state::Values;

    use super::*;
    use crate::training::fixtures::{numerics, some_time, tower_gradient};

    fn answer(worker: u32, number: f32) -> Answer {
        let mut gradient = tower_gradient(0, 0, &[number]);
        gradient.worker = WorkerId(worker);
        gradient.arrived = some_time() + Duration::from_secs(u64::from(worker));
        Answer {
            gradient,
            doubt: (!number.is_finite()).then_some(Doubt::NotFinite),
        }
    }

    /// What is ruled about answers with these numbers, when there are others to ask.
    fn ruling(numbers: &[f32], is_audited: bool) -> Ruling {
        let answers: Vec<Answer> = (0..).zip(numbers).map(|(w, n)| answer(w, *n)).collect();
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
        otherwise.gradient.numerics = numerics(8);
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

    proptest! {
        #[test]
        fn the_norm_is_that_of_double_precision(numbers in prop::collection::vec(-1e3_f32..1e3, 0..200)) {
            let exact = numbers.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>().sqrt();
            prop_assert!((f64::from(norm(&numbers)) - exact).abs() <= exact * 1e-6);
        }

        #[test]
        fn a_norm_taken_piece_by_piece_has_the_same_bits(
            numbers in prop::collection::vec(-1e3_f32..1e3, 0..300), chunks in 1_usize..5,
        ) {
            let mut pieces = Norm::default();
            numbers.chunks(chunks * 32).for_each(|piece| pieces.add(piece));
            prop_assert_eq!(pieces.get().to_bits(), norm(&numbers).to_bits());
        }

        #[test]
        fn one_number_that_is_not_finite_shows_in_the_norm(
            at in 0_usize..100, wrong in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        ) {
            let mut numbers = [1.0; 100];
            numbers[at] = wrong;
            prop_assert!(!norm(&numbers).is_finite());
        }
    }

    #[test]
    fn answers_are_compared_bit_by_bit() {
        let mut zero = answer(0, 0.0);
        zero.gradient.values = Values::from([0.0].as_slice());
        let mut minus_zero = answer(1, 0.0);
        minus_zero.gradient.values = Values::from([-0.0].as_slice());
        assert!(!same_bits(&zero, &minus_zero));
    }
}
