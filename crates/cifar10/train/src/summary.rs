//! What is said when a run has ended well: how it went, where everything is, what to try next.

use std::env;
use std::path::{Path, PathBuf};

use pserver_cli::console;
use pserver_cli::shell::{quoted, word};
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_ledger::{EvalDir, History, ScoreRecord, Summary, count};
use pserver_run::{EvalData, ScoredVariables};
use tracing::info;

use crate::processes::Programs;

/// A command of the end of a run, and what it does, have this much between and after them at most.
const LONGEST_COMMENT: usize = 45;

/// The end of a run, told to people.
///
/// The ledger and the scores are what it is made of; where one cannot be read, the rest is told.
#[must_use]
pub fn text(train_dir: &Path, programs: &Programs) -> String {
    let mut text = String::new();
    let summary = summary_of(train_dir);
    if let Some(summary) = &summary {
        text += &summary.to_string();
    }
    if let Some(record) = last_score(train_dir, summary.as_ref()) {
        text += &score_line(&record);
    }
    let dir = quoted(train_dir);
    text += &format!("Checkpoints, ledger and scores are in {dir}. Next steps:");
    let reached = summary.map_or(0, |summary| summary.reached.0);
    let further = (2 * reached).to_string();
    let commands = [
        (
            &programs.eval,
            format!("predict --checkpoint-dir {dir} IMAGE"),
            "classify a picture",
        ),
        (
            &programs.server,
            format!("explain --train-dir {dir}"),
            "where the time went, and who did what",
        ),
        (
            &programs.launcher,
            format!("--train-dir {dir} --max-steps {further}"),
            "train on",
        ),
    ];
    let lines = commands.map(|(program, flags, what)| {
        let program = quoted(&from_here(program));
        (format!("{program} {flags}"), what)
    });
    let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0);
    let columns = console::size().map_or(usize::MAX, |size| size.columns);
    for (line, what) in lines {
        text += &match width + LONGEST_COMMENT <= columns {
            true => format!("\n  {line:width$}  # {what}"),
            false => format!("\n  # {what}\n  {line}"),
        };
    }
    text
}

/// What is told of a run that was interrupted: what there is of it, and how to go on.
#[must_use]
pub fn of_interrupted(train_dir: &Path) -> String {
    let step = summary_of(train_dir).map_or(0, |summary| summary.reached.0);
    let words = env::args_os().filter(|word| word != "--fresh");
    let command: Vec<String> = words.map(|typed| word(&typed.to_string_lossy())).collect();
    format!(
        "Stopped at step {step}. Its checkpoint is in {}.\nTo go on:\n  {}",
        quoted(train_dir),
        command.join(" ")
    )
}

/// The same for machines: a line of the log.
pub fn log(train_dir: &Path) {
    let summary = summary_of(train_dir);
    let score = last_score(train_dir, summary.as_ref());
    let precision_at_1 = score.map(|record| record.score.confusion.precision_at_1());
    let Some(Summary {
        reached,
        training: Some(training),
        ..
    }) = summary
    else {
        return;
    };
    info!(
        global_step = reached.0,
        loss = training.loss,
        examples_per_sec = training.examples_per_sec(),
        wall_secs = training.wall_micros as f64 / 1e6,
        precision_at_1,
        train_dir = %train_dir.display(),
        "run is complete"
    );
}

fn summary_of(train_dir: &Path) -> Option<Summary> {
    let history = History::read(&train_dir.join(LEDGER_FILE)).ok()?;
    Some(Summary::of(&history))
}

/// The score of the state that the run came to, by the averages on the test examples.
fn last_score(train_dir: &Path, summary: Option<&Summary>) -> Option<ScoreRecord> {
    let reached = summary?.reached;
    let scores = EvalDir::of_train_dir(train_dir).scores().ok()?;
    scores.into_iter().rev().find(|record| {
        let score = &record.score;
        score.global_step == reached
            && score.eval_data == EvalData::Test
            && score.variables == ScoredVariables::Averages
    })
}

fn score_line(record: &ScoreRecord) -> String {
    let confusion = &record.score.confusion;
    format!(
        "precision @ 1 = {:.4} on {} test examples of {}.\n",
        confusion.precision_at_1(),
        count(confusion.num_examples()),
        record.data
    )
}

/// A program as it can be started from the folder that this one was started in.
pub fn from_here(program: &Path) -> PathBuf {
    let below = env::current_dir().ok().and_then(|here| {
        let below = program.strip_prefix(here).ok()?;
        // A bare name would be looked for elsewhere.
        (below.components().count() > 1).then(|| below.to_owned())
    });
    below.unwrap_or_else(|| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_which_nothing_is_known_still_has_its_next_commands() {
        let folder = tempfile::tempdir().unwrap();
        let program = || PathBuf::from("/opt/cifar/cifar-eval");
        let programs = Programs {
            launcher: program(),
            server: program(),
            worker: program(),
            eval: program(),
        };
        let text = text(folder.path(), &programs);
        assert!(
            text.contains("/opt/cifar/cifar-eval predict --checkpoint-dir "),
            "{text}"
        );
        assert_eq!(text.lines().count(), 4);
    }
}
