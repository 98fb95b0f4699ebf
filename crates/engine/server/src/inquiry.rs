//! The verbs of `cifar-ps` that say something about a run from its ledger.
//!
//! Nothing is locked or written: a server may be at work in the same train dir.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::anyhow;
use pserver_cli::console;
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_ledger::{History, LedgerError, diff, explain, explain_step, verify};
use pserver_run::GlobalStep;

use crate::args::Question;

/// Answers a question about a run on stdout.
///
/// The exit is [`Exit::Unexpected`] where something speaks against the proof of a run, or two runs differ, and
/// [`Exit::Permanent`] where only a part of a run can be proven.
///
/// # Errors
///
/// [`Failure`] if a ledger cannot be read, or stdout not be written.
pub(crate) fn answer(question: &Question) -> Result<Exit, Failure> {
    let (text, exit) = text_and_exit(question)?;
    // The answer is the exit code too, however much of the text was read.
    let _ = console::print(&text)?;
    Ok(exit)
}

fn text_and_exit(question: &Question) -> Result<(String, Exit), Failure> {
    let text_and_exit = match question {
        Question::Explain { train_dir, step } => {
            let history = history_of(train_dir)?;
            let text = match step {
                Some(step) => explain_step(&history, GlobalStep(*step))
                    .or_exit(Exit::Usage)?
                    .to_string(),
                None => explain(&history).to_string(),
            };
            (text, Exit::Complete)
        }
        Question::Verify { train_dir } => match verify(&history_of(train_dir)?) {
            Ok(proof) if proof.is_whole() => (proof.to_string(), Exit::Complete),
            Ok(proof) => (proof.to_string(), Exit::Permanent),
            Err(findings) => (findings.to_string(), Exit::Unexpected),
        },
        Question::Diff {
            train_dir_a,
            train_dir_b,
        } => {
            let difference = diff(&history_of(train_dir_a)?, &history_of(train_dir_b)?);
            let exit = match difference.is_equal() {
                true => Exit::Complete,
                false => Exit::Unexpected,
            };
            (difference.to_string(), exit)
        }
    };
    Ok(text_and_exit)
}

/// Reads the ledger of a train dir.
fn history_of(train_dir: &Path) -> Result<History, Failure> {
    History::read(&train_dir.join(LEDGER_FILE)).map_err(|error| failure_of(train_dir, error))
}

/// What is wrong with a ledger, and what to do about it.
fn failure_of(train_dir: &Path, error: LedgerError) -> Failure {
    let train_dir = train_dir.display();
    let advice = match &error {
        LedgerError::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
            format!("{train_dir} holds no ledger; name the train dir of a run")
        }
        LedgerError::Read { .. } | LedgerError::Write { .. } => {
            return Failure::new(Exit::Disk, error);
        }
        LedgerError::Empty { .. } => {
            format!("{train_dir} tells nothing yet; ask again when its server has started")
        }
        LedgerError::NoStart { .. } => format!(
            "the ledger of {train_dir} is damaged or of another release; ask the one that wrote it"
        ),
    };
    Failure::new(Exit::Permanent, anyhow!(error).context(advice))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use pserver_ledger::record::{FORMAT_VERSION, Start};
    use pserver_ledger::{LedgerFile, Line, Record};

    use super::*;
    use crate::fixtures::run_config;

    /// A train dir whose server has started at step 0, with this seed.
    fn begun(seed: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let mut run = run_config();
        run.seed = seed;
        let (mut ledger, _) =
            LedgerFile::open(&dir.path().join(LEDGER_FILE)).expect("a ledger can be made");
        let start = Start {
            format_version: FORMAT_VERSION,
            version: "0.1.0".to_owned(),
            global_step: GlobalStep(0),
            digest: run.initial_digest,
            run,
        };
        let line = Line {
            at_micros: 1,
            record: Record::Start(start),
        };
        ledger.append(&line).expect("a ledger can be written");
        dir
    }

    /// Spoils a line, counted from 1, of the ledger in a train dir.
    fn damage(train_dir: &Path, line: usize) {
        let path = train_dir.join(LEDGER_FILE);
        let text = fs::read_to_string(&path).expect("a ledger can be read");
        let mut lines: Vec<&str> = text.lines().collect();
        lines[line - 1] = "\0\0\0";
        fs::write(&path, lines.join("\n") + "\n").expect("a ledger can be written");
    }

    fn diff_of(a: &Path, b: &Path) -> Question {
        Question::Diff {
            train_dir_a: a.to_owned(),
            train_dir_b: b.to_owned(),
        }
    }

    fn explain_of(train_dir: &Path, step: Option<u64>) -> Question {
        Question::Explain {
            train_dir: train_dir.to_owned(),
            step,
        }
    }

    #[test]
    fn the_exit_code_tells_what_was_found() {
        let (one, same, other) = (begun(1), begun(1), begun(2));
        let exit = |question| text_and_exit(&question).unwrap().1;
        assert_eq!(exit(diff_of(one.path(), same.path())), Exit::Complete);
        assert_eq!(exit(diff_of(one.path(), other.path())), Exit::Unexpected);
        assert_eq!(exit(explain_of(one.path(), None)), Exit::Complete);
        let train_dir = one.path().to_owned();
        assert_eq!(exit(Question::Verify { train_dir }), Exit::Complete);
        let no_step = text_and_exit(&explain_of(one.path(), Some(3)));
        assert_eq!(no_step.unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn a_damaged_line_keeps_no_question_from_its_answer() {
        let (dir, other) = (begun(1), begun(1));
        let (mut ledger, _) = LedgerFile::open(&dir.path().join(LEDGER_FILE)).unwrap();
        for worker in 0..3 {
            let record = Record::Left { worker };
            let at_micros = 2;
            ledger.append(&Line { at_micros, record }).unwrap();
        }
        damage(dir.path(), 3);
        let train_dir = dir.path().to_owned();
        for (question, expected) in [
            (Question::Verify { train_dir }, Exit::Permanent),
            (explain_of(dir.path(), None), Exit::Complete),
            (diff_of(dir.path(), other.path()), Exit::Complete),
        ] {
            let (text, exit) = text_and_exit(&question).unwrap();
            assert!(text.contains("damaged"), "{text}");
            assert_eq!(exit, expected, "{text}");
        }
    }

    #[test]
    fn a_folder_without_a_ledger_is_told_from_one_that_cannot_be_read() {
        let exit = |dir: PathBuf| text_and_exit(&explain_of(&dir, None)).unwrap_err().exit();
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join(LEDGER_FILE);
        assert_eq!(exit(dir.path().to_owned()), Exit::Permanent);
        for text in ["", "no record\n"] {
            fs::write(&ledger, text).unwrap();
            assert_eq!(exit(dir.path().to_owned()), Exit::Permanent, "{text:?}");
        }
        fs::remove_file(&ledger).unwrap();
        fs::create_dir(&ledger).unwrap();
        assert_eq!(exit(dir.path().to_owned()), Exit::Disk);
    }
}
