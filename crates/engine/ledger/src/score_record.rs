//! The record of a score, as it stands in a line of `scores.jsonl`.

use pserver_run::{Confusion, DataSet, EvalData, GlobalStep, Score, ScoredVariables};
use serde::{Deserialize, Serialize, Serializer};

/// A score, and what it is of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Read")]
pub struct ScoreRecord {
    /// When it was made, in microseconds since 1970.
    pub at_micros: u64,
    /// File name of the checkpoint.
    pub checkpoint: String,
    /// Data set of the examples.
    pub data: DataSet,
    /// What was seen.
    pub score: Score,
}

/// The fields of a line that the others follow from.
#[derive(Deserialize)]
struct Read {
    at_micros: u64,
    checkpoint: String,
    data: DataSet,
    global_step: GlobalStep,
    eval_data: EvalData,
    variables: ScoredVariables,
    confusion: Confusion,
}

impl From<Read> for ScoreRecord {
    fn from(read: Read) -> Self {
        ScoreRecord {
            at_micros: read.at_micros,
            checkpoint: read.checkpoint,
            data: read.data,
            score: Score {
                global_step: read.global_step,
                eval_data: read.eval_data,
                variables: read.variables,
                confusion: read.confusion,
            },
        }
    }
}

/// All fields of a line, in the order in which they stand there.
#[derive(Serialize)]
struct Written<'a> {
    global_step: GlobalStep,
    precision_at_1: f64,
    num_examples: u64,
    num_correct: u64,
    data: DataSet,
    eval_data: EvalData,
    variables: ScoredVariables,
    checkpoint: &'a str,
    at_micros: u64,
    classes: Vec<Class>,
    confusion: Confusion,
}

/// One class of the examples.
#[derive(Serialize)]
struct Class {
    name: String,
    examples: u64,
    correct: u64,
}

impl Serialize for ScoreRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let confusion = self.score.confusion;
        let names = self.data.class_names().into_iter().enumerate();
        let classes = names.map(|(label, name)| Class {
            name,
            examples: confusion.examples_of(label),
            correct: confusion.correct_of(label),
        });
        let written = Written {
            global_step: self.score.global_step,
            precision_at_1: confusion.precision_at_1(),
            num_examples: confusion.num_examples(),
            num_correct: confusion.num_correct(),
            data: self.data,
            eval_data: self.score.eval_data,
            variables: self.score.variables,
            checkpoint: &self.checkpoint,
            at_micros: self.at_micros,
            classes: classes.collect(),
            confusion,
        };
        written.serialize(serializer)
    }
}

impl ScoreRecord {
    /// Whether both say the same of the same checkpoint, whenever they were made.
    pub(crate) fn is_same(&self, other: &ScoreRecord) -> bool {
        let at_micros = other.at_micros;
        let moved = ScoreRecord {
            at_micros,
            ..self.clone()
        };
        moved == *other
    }

    /// The record as a line of `scores.jsonl`, with its end.
    ///
    /// # Panics
    ///
    /// Never: a record is numbers and names.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a record is numbers and names") + "\n"
    }
}

/// A score for the tests of this crate: 9 of 10 examples of each class are recognised, and the tenth
/// is taken for the next class.
#[cfg(test)]
pub(crate) fn example(step: u64) -> ScoreRecord {
    let mut confusion = Confusion::default();
    for label in 0..10 {
        (0..9).for_each(|_| confusion.note(label, label));
        confusion.note(label, (label + 1) % 10);
    }
    ScoreRecord {
        at_micros: 1_700_000_000_000_000,
        checkpoint: format!("model.ckpt-{step}.safetensors"),
        data: DataSet::Cifar10,
        score: Score {
            global_step: GlobalStep(step),
            eval_data: EvalData::Test,
            variables: ScoredVariables::Averages,
            confusion,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_survives_its_text_form() {
        let line = example(7).to_line();
        assert_eq!(
            serde_json::from_str::<ScoreRecord>(&line).unwrap(),
            example(7)
        );
        let begin = r#"{"global_step":7,"precision_at_1":0.9,"num_examples":100,"num_correct":90,"data":"cifar10","eval_data":"test","variables":"averages","checkpoint":"model.ckpt-7.safetensors","at_micros":1700000000000000,"classes":[{"name":"airplane","examples":10,"correct":9},"#;
        assert!(line.starts_with(begin), "{line}");
        assert!(
            line.contains(r#""confusion":[[9,1,0,0,0,0,0,0,0,0],"#),
            "{line}"
        );
        assert_eq!(line.find('\n'), Some(line.len() - 1));
    }
}
