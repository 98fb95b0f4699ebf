//! A score as people and programs read it on stdout.

use pserver_cli::logging::timestamp;
use pserver_ledger::ScoreRecord;
use pserver_run::DataSet;

/// Letters of a class's name that stand over a column.
const COLUMN_LETTERS: usize = 4;

/// The tutorial's line, and what it is of.
#[must_use]
pub fn text_lines(record: &ScoreRecord) -> String {
    let note = match record.data {
        DataSet::Cifar10 => "",
        DataSet::Synthetic { .. } => " (of the synthetic set, not of CIFAR-10)",
    };
    let confusion = &record.score.confusion;
    format!(
        "{}: precision @ 1 = {:.4}{note}\nstep {}, {}: {} of {} examples\n",
        timestamp(),
        confusion.precision_at_1(),
        record.score.global_step,
        record.data,
        confusion.num_correct(),
        confusion.num_examples()
    )
}

/// A row for each class: how many of its examples were recognised, and what they were taken for.
#[must_use]
pub fn class_table(record: &ScoreRecord) -> String {
    let names = record.data.class_names();
    let columns = names.iter().map(|name| {
        let short: String = match name.strip_prefix("class ") {
            Some(number) => number.to_owned(),
            None => name.chars().take(COLUMN_LETTERS).collect(),
        };
        format!("{short:>6}")
    });
    let mut text = format!("  {:<12} {:>6}   taken for", "class", "right");
    text.push('\n');
    text += &format!("  {:<19}   {}\n", "", columns.collect::<String>());
    for (label, name) in names.iter().enumerate() {
        let confusion = &record.score.confusion;
        let precision = confusion.precision_of(label);
        let counts = confusion.0[label].map(|count| format!("{count:>6}"));
        text += &format!("  {name:<12} {precision:.4}   {}\n", counts.concat());
    }
    text
}

#[cfg(test)]
mod tests {
    use pserver_run::{Confusion, EvalData, GlobalStep, Score, ScoredVariables};

    use super::*;

    #[test]
    fn a_row_tells_what_a_class_was_taken_for() {
        let mut confusion = Confusion::default();
        for predicted in [3, 3, 5, 0] {
            confusion.note(3, predicted);
        }
        let record = ScoreRecord {
            at_micros: 0,
            checkpoint: String::new(),
            data: DataSet::Cifar10,
            score: Score {
                global_step: GlobalStep(1),
                eval_data: EvalData::Test,
                variables: ScoredVariables::Averages,
                confusion,
            },
        };
        let table = class_table(&record);
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 12);
        assert_eq!(
            rows[1].split_whitespace().collect::<Vec<_>>(),
            [
                "airp", "auto", "bird", "cat", "deer", "dog", "frog", "hors", "ship", "truc"
            ]
        );
        assert_eq!(
            rows[5].split_whitespace().collect::<Vec<_>>(),
            [
                "cat", "0.5000", "1", "0", "0", "2", "0", "1", "0", "0", "0", "0"
            ]
        );
        assert!(rows.iter().all(|row| row.len() <= rows[2].len()), "{table}");
        assert!(text_lines(&record).ends_with("step 1, cifar10: 2 of 4 examples\n"));
    }
}
