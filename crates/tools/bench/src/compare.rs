//! Measures rows in turns: A B C A B C.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use pserver_cli::args::number_of_seconds;
use pserver_cli::console::say;
use rustix::process::{Pid, Signal, kill_process};

use crate::figures::Figures;
use crate::report::{Setting, report};
use crate::results::{Failed, Measurement, Results};
use crate::rows::{self, Programs, Row, figure_of, is_wanted};
use crate::{browser, hardware};

/// What starting a row may take besides its measurement: TensorFlow warms up for 15 seconds.
const TIME_TO_START: Duration = Duration::from_secs(240);

/// What a program may take to end once it was asked to.
const TIME_TO_END: Duration = Duration::from_secs(10);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What is compared.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// How often each row is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// For how long each time
    #[arg(long, value_name = "SECS", value_parser = number_of_seconds)]
    pub seconds: f64,

    /// Rows whose names hold one of these words, instead of all
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Measure the programs of an older build in this folder too, and tell the ratios
    #[arg(long, value_name = "DIR")]
    pub against: Option<PathBuf>,

    /// What the older build is called
    #[arg(long, value_name = "NAME", requires = "against", default_value = "old")]
    pub old: String,

    /// Folder of the peers' scripts
    #[arg(long, value_name = "DIR")]
    pub peer_scripts: PathBuf,

    /// A Python with PyTorch; without it, its rows are left out
    #[arg(long, value_name = "FILE")]
    pub torch_python: Option<PathBuf>,

    /// A Python with TensorFlow; without it, its rows are left out
    #[arg(long, value_name = "FILE")]
    pub tensorflow_python: Option<PathBuf>,

    /// Folder that gets a folder of the day with the results
    #[arg(long, value_name = "DIR")]
    pub runs: PathBuf,
}

/// Measures, and writes a folder with the results; the text of its README.
///
/// # Errors
///
/// If nothing can be measured, or the results cannot be written.
pub fn compare(args: &CompareArgs) -> anyhow::Result<String> {
    let programs = Programs {
        bench: env::current_exe().context("cannot tell where this program lies")?,
        peers: args.peer_scripts.clone(),
        torch_python: args.torch_python.clone(),
        tensorflow_python: args.tensorflow_python.clone(),
        browser: browser::find(),
    };
    let mut rows = rows::all(&programs, args.seconds);
    rows.retain(|row| is_wanted(row, &args.only));
    if let Some(folder) = &args.against {
        let pair = |row: Row| [row.of_old(folder), Some(row)];
        rows = rows.into_iter().flat_map(pair).flatten().collect();
    }
    ensure!(
        !rows.is_empty(),
        "no row has one of these words in its name"
    );

    let setting = Setting {
        date: pserver_cli::logging::timestamp()[..10].to_owned(),
        command: command_of(args),
        commit: pserver_cli::VERSION.to_owned(),
        hardware: hardware::of_this_machine(),
        load: hardware::load(),
        rounds: args.rounds,
        seconds: args.seconds,
    };
    let results = measure_in_turns(args, &rows);
    ensure!(
        !results.measurements.is_empty(),
        "not one measurement came to its end"
    );
    let text = report(&setting, &rows, &results);
    write(&args.runs, &setting, &results, &text)?;
    Ok(text)
}

fn command_of(args: &CompareArgs) -> String {
    let mut command = format!(
        "cargo xtask bench --rounds {} --seconds {}",
        args.rounds, args.seconds
    );
    if !args.only.is_empty() {
        command += &format!(" --only '{}'", args.only.join(","));
    }
    if args.against.is_some() {
        command += &format!(" --against {}", args.old);
    }
    command
}

fn measure_in_turns(args: &CompareArgs, rows: &[Row]) -> Results {
    let mut results = Results::default();
    let deadline = Duration::from_secs_f64(args.seconds) + TIME_TO_START;
    let mut rows: Vec<&Row> = rows.iter().collect();
    for round in 1..=args.rounds {
        // Of two neighbours each is first in every other round: what the machine is about to do falls on both.
        rows.reverse();
        for row in &rows {
            let rounds = args.rounds;
            match run(row, deadline) {
                Ok(figures) => {
                    let told = told(row, &figures);
                    say(&format!("round {round} of {rounds}: {}: {told}", row.name));
                    results.measurements.push(Measurement {
                        round,
                        row: row.name.clone(),
                        figures,
                    });
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    say(&format!(
                        "round {round} of {rounds}: {}: failed: {reason}",
                        row.name
                    ));
                    results.failed.push(Failed {
                        round,
                        row: row.name.clone(),
                        reason,
                    });
                }
            }
        }
    }
    results
}

fn told(row: &Row, figures: &Figures) -> String {
    let (figure, unit) = figure_of(row);
    let number = figures.get(figure).unwrap_or(f64::NAN);
    format!("{number:.1} {unit}")
}

/// Runs the program of a row to its end, and reads what it printed.
fn run(row: &Row, deadline: Duration) -> anyhow::Result<Figures> {
    // Files, not pipes: what a program leaves running may hold a pipe open.
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Command::new(&row.program)
        .args(&row.arguments)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {}", row.program.display()))?;
    let Some(status) = wait(&mut child, deadline)? else {
        end(&mut child)?;
        bail!("it was still running after {} s", deadline.as_secs());
    };
    if !status.success() {
        let last = last_words(&text_of(&mut stderr)?);
        bail!("it ended with {status}: {last}");
    }
    Figures::printed(&text_of(&mut stdout)?)
}

/// The last line with a word in it: some programs end what they say with a rule.
fn last_words(text: &str) -> String {
    let mut backwards = text.lines().rev();
    let last = backwards.find(|line| line.contains(char::is_alphanumeric));
    last.map_or("it said nothing", str::trim).to_owned()
}

fn wait(child: &mut Child, deadline: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(None)
}

/// Asks a program to end, so that it can end what it started; then ends it by force.
fn end(child: &mut Child) -> anyhow::Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM)?;
    if wait(child, TIME_TO_END)?.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn text_of(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A record is never changed: a second one of the same day has a folder of its own.
fn write(runs: &Path, setting: &Setting, results: &Results, text: &str) -> anyhow::Result<()> {
    let folder = new_folder(runs, &format!("{}-bench", setting.date))?;
    let raw = serde_json::json!({ "setting": setting, "results": results });
    for (name, text) in [
        ("README.md", text.to_owned()),
        ("results.json", format!("{raw:#}\n")),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(&format!("written to {}", folder.display()));
    Ok(())
}

fn new_folder(runs: &Path, name: &str) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(runs).with_context(|| format!("cannot create {}", runs.display()))?;
    let names = (2..).map(|number| format!("{name}-{number}"));
    for name in std::iter::once(name.to_owned()).chain(names) {
        let folder = runs.join(name);
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}", folder.display()));
            }
        }
    }
    unreachable!("the numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::EXAMPLES_PER_SEC;
    use crate::rows::Kind;

    fn shell(script: &str) -> Row {
        Row {
            name: "a row".to_owned(),
            kind: Kind::Peer,
            program: "sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
        }
    }

    #[test]
    fn what_a_program_says_last_is_told() {
        let said = "Failures:\n  [1]: no memory\n=====\n\n";
        assert_eq!(last_words(said), "[1]: no memory");
        assert_eq!(last_words("\n-----\n"), "it said nothing");
    }

    #[test]
    fn what_a_program_prints_last_is_its_result() {
        let row = shell("echo noise >&2; echo noise; echo '{\"examples_per_sec\": 7}'");
        let figures = run(&row, TIME_TO_START).unwrap();
        assert_eq!(figures.get(EXAMPLES_PER_SEC), Some(7.0));
        assert_eq!(told(&row, &figures), "7.0 examples/s");
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let failed = |script: &str, deadline| {
            let error = run(&shell(script), deadline).unwrap_err();
            format!("{error:#}")
        };
        let reason = failed("echo no such kernels >&2; exit 3", TIME_TO_START);
        assert!(reason.contains("no such kernels"), "{reason}");
        assert!(reason.contains('3'), "{reason}");
        let reason = failed("exec sleep 60", Duration::ZERO);
        assert!(reason.contains("still running"), "{reason}");
    }

    #[test]
    fn records_of_one_day_do_not_overwrite_each_other() {
        let runs = tempfile::tempdir().unwrap();
        let names = [(); 3].map(|()| new_folder(runs.path(), "day-bench").unwrap());
        let expected = ["day-bench", "day-bench-2", "day-bench-3"];
        assert_eq!(names, expected.map(|name| runs.path().join(name)));
    }

    #[test]
    fn a_row_is_judged_by_its_median() {
        let measurement = |round, row: &str, number| Measurement {
            round,
            row: row.to_owned(),
            figures: Figures::default().with(EXAMPLES_PER_SEC, number),
        };
        let results = Results {
            measurements: vec![
                measurement(1, "a", 3.0),
                measurement(1, "b", 9.0),
                measurement(2, "a", 1.0),
                measurement(3, "a", 2.0),
            ],
            failed: Vec::new(),
        };
        assert_eq!(results.median("a", EXAMPLES_PER_SEC), Some(2.0));
        assert_eq!(results.smallest("a", EXAMPLES_PER_SEC), Some(1.0));
        assert_eq!(results.median("c", EXAMPLES_PER_SEC), None);
        assert_eq!(results.ratio("b", "a", EXAMPLES_PER_SEC), Some(3.0));
        assert_eq!(results.ratio("a", "c", EXAMPLES_PER_SEC), None);
    }
}
