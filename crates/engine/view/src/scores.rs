//! Scores of checkpoints, as they stand in a file of one JSON object a line.

use pserver_run::{EvalData, ScoredVariables};
use serde::{Deserialize, Serialize};

/// Scores that are kept; of more, every other one goes.
pub const MAX_SCORES: usize = 1024;

/// Times that a run went back which are remembered, to tell scores that no longer count.
const MAX_REWINDS: usize = 64;

/// The score of a checkpoint. A line may tell more, which is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Step of the checkpoint.
    pub global_step: u64,
    /// Correct of all, from 0 to 1.
    pub precision_at_1: f64,
    /// Examples that were evaluated.
    #[serde(default)]
    pub num_examples: u64,
    /// When, in microseconds since 1970; 0 if that is not known.
    #[serde(default)]
    pub at_micros: u64,
}

/// What a line tells besides, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    score: Score,
    #[serde(default)]
    eval_data: EvalData,
    #[serde(default)]
    variables: ScoredVariables,
}

/// The scores of a run, by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    scores: Vec<Score>,
    rewinds: Vec<Rewound>,
    /// Grows with every change.
    version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rewound {
    at_micros: u64,
    to: u64,
}

impl Rewound {
    /// Whether a score is of a state that no longer counts.
    fn undoes(self, score: &Score) -> bool {
        score.global_step > self.to && score.at_micros <= self.at_micros
    }
}

impl Scores {
    /// The scores, by step.
    #[must_use]
    pub fn iter(&self) -> &[Score] {
        &self.scores
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Reads a line of a file of scores. One that is none is passed over, and so are scores of other
    /// examples than the test's or of other variables than the averages: one curve is of one kind.
    pub fn add_line(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            return;
        };
        if line.eval_data == EvalData::Test && line.variables == ScoredVariables::Averages {
            self.add(line.score);
        }
    }

    /// A checkpoint was scored. The newest score of a step counts.
    pub fn add(&mut self, score: Score) {
        let is_undone = self.rewinds.iter().any(|rewound| rewound.undoes(&score));
        if is_undone || !(0.0..=1.0).contains(&score.precision_at_1) {
            return;
        }
        self.version += 1;
        let of_step = |other: &Score| other.global_step;
        match self
            .scores
            .binary_search_by_key(&score.global_step, of_step)
        {
            Ok(index) => self.scores[index] = score,
            Err(index) => self.scores.insert(index, score),
        }
        if self.scores.len() > MAX_SCORES {
            let mut index = self.scores.len();
            // Counted from the end, so that the newest stays.
            self.scores.retain(|_| {
                index -= 1;
                index.is_multiple_of(2)
            });
        }
    }

    /// The run went back to a step: scores of later ones that were made before no longer count.
    pub(crate) fn go_back(&mut self, at_micros: u64, to: u64) {
        let rewound = Rewound { at_micros, to };
        if self.rewinds.len() == MAX_REWINDS {
            self.rewinds.remove(0);
        }
        self.rewinds.push(rewound);
        self.scores.retain(|score| !rewound.undoes(score));
        self.version += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(global_step: u64, precision_at_1: f64, at_micros: u64) -> Score {
        Score {
            global_step,
            precision_at_1,
            num_examples: 10_000,
            at_micros,
        }
    }

    #[test]
    fn a_line_may_tell_more_or_be_no_score() {
        let mut scores = Scores::default();
        for line in [
            r#"{"global_step":1000,"precision_at_1":0.62,"num_examples":10000,"per_class":[1,2]}"#,
            r#"{"global_step":2000,"precision_at_1":7}"#,
            r#"{"global_step":-1}"#,
            r#"{"global_step":3000,"precision_at_1":0.9,"eval_data":"train_eval"}"#,
            r#"{"global_step":3000,"precision_at_1":0.9,"variables":"raw"}"#,
            "half a li",
            "",
        ] {
            scores.add_line(line);
        }
        assert_eq!(scores.iter(), [score(1000, 0.62, 0)]);
    }

    #[test]
    fn scores_stand_by_step_and_the_newest_of_a_step_counts() {
        let mut scores = Scores::default();
        for (step, precision) in [(2000, 0.7), (1000, 0.6), (2000, 0.71)] {
            scores.add(score(step, precision, 5));
        }
        assert_eq!(scores.iter(), [score(1000, 0.6, 5), score(2000, 0.71, 5)]);
        assert_eq!(scores.version(), 3);
    }

    #[test]
    fn many_scores_are_thinned_out_and_the_last_stays() {
        let mut scores = Scores::default();
        (0..10_000).for_each(|step| scores.add(score(step, 0.5, 1)));
        assert!((MAX_SCORES / 2..=MAX_SCORES).contains(&scores.iter().len()));
        assert_eq!(scores.iter().last().unwrap().global_step, 9999);
    }

    #[test]
    fn a_score_of_what_was_undone_does_not_count_whenever_it_is_read() {
        let mut scores = Scores::default();
        let undone = score(2000, 0.7, 10);
        scores.add(undone);
        scores.add(score(1000, 0.6, 5));
        scores.go_back(20, 1500);
        scores.add(undone);
        assert_eq!(scores.iter(), [score(1000, 0.6, 5)]);
        scores.add(score(2000, 0.72, 30));
        assert_eq!(scores.iter().len(), 2);
    }
}
