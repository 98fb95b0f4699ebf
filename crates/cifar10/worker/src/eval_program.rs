//! `main` of cifar-eval.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cifar_data::args::DataArgs;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use pserver_cli::args::{self, seconds};
use pserver_cli::console::{self, Reader};
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_cli::host::host_name;
use pserver_cli::logging::LogArgs;
use pserver_cli::{logging, signals};
use pserver_guard::Credentials;
use pserver_guard::address::to_connect_to;
use pserver_guard::args::CredentialArgs;
use pserver_ledger::eval_dir::SCORES_FILE;
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_ledger::record::Outcome;
use pserver_ledger::{EvalDir, EvalWriter, LedgerTail, Record, ScoreRecord};
use pserver_run::{DataSet, EvalData};
use pserver_state::checkpoint::{self, Scorable};
use pserver_wire::messages::Goodbye;
use pserver_worker::follower_link::{Followed, FollowerLink};
use tracing::info;

use crate::checkpoint_folder::{CheckpointFolder, is_checkpoint};
use crate::device::set_threads;
use crate::evaluator::{Evaluator, Settings, scored_variables};
use crate::predict::{PredictArgs, predict};
use crate::score_text::{class_table, text_lines};
use crate::training_loop::or_exit;

/// Scores the newest checkpoint of a run on the test examples: precision @ 1, by the moving
/// averages of the variables.
///
/// Without --run-once it waits for further checkpoints and scores each. It ends after the last one of a
/// run that is complete.
#[derive(Clone, Debug, Parser)]
#[command(name = "cifar-eval", version = pserver_cli::VERSION, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do instead of scoring.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// Folder of the checkpoints: the train dir of the run. Or a checkpoint, which is scored alone
    #[arg(
        long,
        visible_alias = "checkpoint",
        default_value = "runs/default",
        value_name = "DIR"
    )]
    pub checkpoint_dir: PathBuf,

    /// Folder that scores are kept in [default: eval in the folder of the checkpoints]
    #[arg(long, value_name = "DIR")]
    pub eval_dir: Option<PathBuf>,

    /// Get the checkpoints from the server at this address, HOST:PORT, instead of a folder, and tell it
    /// the scores: it keeps them in its train dir
    #[arg(long, value_name = "ADDR", value_parser = to_connect_to, conflicts_with_all = ["checkpoint_dir", "eval_dir", "eval_interval_secs"])]
    pub server: Option<String>,

    /// Give up when the server stays away for this long
    #[arg(long, default_value = "300", value_name = "SECS", value_parser = seconds, requires = "server")]
    pub retry_window_secs: Duration,

    /// Which examples to score: those kept for testing, or the training examples without distortion
    #[arg(long, default_value = "test", value_parser = eval_data())]
    pub eval_data: EvalData,

    /// Number of examples to score, each once
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub num_examples: u32,

    /// Score by the variables themselves instead of their moving averages
    #[arg(long)]
    pub raw: bool,

    /// Score the newest checkpoint and end
    #[arg(long)]
    pub run_once: bool,

    /// Time between two looks for a newer checkpoint
    #[arg(long, default_value = "300", value_name = "SECS", value_parser = seconds)]
    pub eval_interval_secs: Duration,

    /// Also tell for each class how much of it was recognised, and what it was taken for
    #[arg(long)]
    pub per_class: bool,

    /// Write one JSON object per score instead of text: the line of scores.jsonl
    #[arg(long)]
    pub json: bool,

    /// Data set of a checkpoint that does not name its own [default: cifar10]
    #[arg(long, value_name = "SET")]
    pub data: Option<DataSet>,

    /// Compute on this GPU, counted from 0; without this flag, on the CPU
    #[arg(long, value_name = "K")]
    pub gpu: Option<usize>,

    /// Threads on a CPU [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,

    /// Where the data set is.
    #[command(flatten)]
    pub data_args: DataArgs,

    /// How to show the server who this is, and to know the server.
    #[command(flatten)]
    pub credentials: CredentialArgs,

    /// Where logs go and what is in them.
    #[command(flatten)]
    pub log: LogArgs,

    /// Leave when the process that started this one ends, and with it the pipe that is stdin.
    #[arg(long, hide = true)]
    pub leave_with_parent: bool,
}

/// What a trained model can be used for.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Classify PNG or JPEG files: the three likeliest classes of each, and how likely they are
    Predict(PredictArgs),
}

/// The values of --eval-data.
fn eval_data() -> impl TypedValueParser<Value = EvalData> {
    let test = PossibleValue::new("test").help("Those kept for testing");
    let train_eval = PossibleValue::new("train_eval");
    let train_eval = train_eval.help("The training examples, without distortion");
    PossibleValuesParser::new([test, train_eval]).map(|name| match name.as_str() {
        "test" => EvalData::Test,
        _ => EvalData::TrainEval,
    })
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args: Args = args::parse();
    let result = match &args.verb {
        Some(Verb::Predict(args)) => predict(args),
        None => run(&args),
    };
    console::report("cifar-eval", result)
}

fn run(args: &Args) -> Result<Exit, Failure> {
    logging::init(&args.log).or_exit(Exit::Usage)?;
    if args.leave_with_parent {
        signals::leave_with_parent()?;
    }
    // Scores and files are written as a whole or not at all: there is nothing to finish.
    signals::end_when_asked()?;
    set_threads(args.threads);
    let settings = Settings {
        eval_data: args.eval_data,
        num_examples: args.num_examples,
        data: args.data.unwrap_or(DataSet::Cifar10),
    };
    let evaluator = Evaluator::new(settings, args.data_args.clone(), args.gpu)?;
    match &args.server {
        Some(server) => follow_server(args, server, evaluator),
        None => follow_folder(args, evaluator),
    }
}

/// Scores the checkpoints that appear in a folder, or the one that is named, and keeps the scores.
fn follow_folder(args: &Args, mut evaluator: Evaluator) -> Result<Exit, Failure> {
    let path = &args.checkpoint_dir;
    if is_checkpoint(path) {
        return score_file(args, path, evaluator);
    }
    let eval_dir = eval_dir_of(args, path);
    let new_writer = || eval_dir.clone().writer(&host_name());
    let mut writer = new_writer();
    let variables = scored_variables(args.raw);
    let mut folder = CheckpointFolder::new(path, evaluator.layout(), variables);
    let mut ledger = LedgerTail::new(&path.join(LEDGER_FILE));
    let (mut outcome, mut scored) = (None, None);
    loop {
        if !args.run_once {
            // Before the look for checkpoints: a run writes the last one before it ends.
            outcome = last_outcome(&mut ledger, outcome);
        }
        let found = folder.look().or_exit(Exit::Permanent)?;
        let is_new = found.is_some();
        if let Some(found) = found {
            let path = path.display();
            if found.begins_anew {
                info!(%path, "the folder holds another run now, which is scored from here on");
                writer = new_writer();
            }
            let step = found.scorable.global_step;
            let name = checkpoint::name_of(step);
            let (record, shown) = score(args, &mut evaluator, name, &found.scorable)?;
            keep(&mut writer, &record)?;
            scored = Some(step);
            if shown? == Reader::Gone {
                return Ok(Exit::Complete);
            }
        }
        match (scored, outcome) {
            (None, _) => console::say(&format!("No checkpoint file found in {}", path.display())),
            (Some(_), Some(Outcome::Complete)) => return Ok(Exit::Complete),
            (Some(_), Some(Outcome::Diverged)) => return Ok(Exit::Diverged),
            (Some(step), _) if is_new && !args.run_once => console::say(&format!(
                "waiting for a checkpoint of a step above {step} in {}, looking every {:?}; \
                 --run-once scores one and ends",
                path.display(),
                args.eval_interval_secs
            )),
            _ => {}
        }
        if args.run_once {
            return Ok(match scored {
                Some(_) => Exit::Complete,
                None => Exit::TryAgain,
            });
        }
        thread::sleep(args.eval_interval_secs);
    }
}

/// Scores the checkpoint that is named, and keeps the score.
fn score_file(args: &Args, path: &Path, mut evaluator: Evaluator) -> Result<Exit, Failure> {
    let variables = scored_variables(args.raw);
    let scorable = checkpoint::load_scorable(path, evaluator.layout(), variables);
    let scorable = scorable.or_exit(Exit::Permanent)?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = name.to_string_lossy().into_owned();
    let (record, shown) = score(args, &mut evaluator, name, &scorable)?;
    let dir = path.parent().unwrap_or(path);
    keep(&mut eval_dir_of(args, dir).writer(&host_name()), &record)?;
    // The score is kept whether or not anybody reads it.
    shown.map(|_| Exit::Complete)
}

/// Where the scores of the checkpoints in `dir` are kept.
fn eval_dir_of(args: &Args, dir: &Path) -> EvalDir {
    let chosen = args.eval_dir.as_deref().map(EvalDir::new);
    chosen.unwrap_or_else(|| EvalDir::of_train_dir(dir))
}

/// Keeps a score, and says so if it was kept before.
fn keep(writer: &mut EvalWriter, record: &ScoreRecord) -> Result<(), Failure> {
    let is_new = writer
        .keep(record)
        .context("--eval-dir names another folder for scores")
        .or_exit(Exit::Disk)?;
    if !is_new {
        console::say(&format!("{SCORES_FILE} has this score already"));
    }
    Ok(())
}

/// How the run has ended, if it has: by what is new in its ledger, or else as `before`. A ledger that is not
/// there, or cannot be read, does not say.
fn last_outcome(ledger: &mut LedgerTail, before: Option<Outcome>) -> Option<Outcome> {
    let mut outcome = before;
    while let Ok(news) = ledger.look() {
        if let Some(line) = news.lines.last() {
            outcome = match line.record {
                Record::End { outcome, .. } => Some(outcome),
                _ => None,
            };
        }
        if !news.has_more() {
            break;
        }
    }
    outcome
}

/// Scores the checkpoints that a server has, and tells it the scores.
fn follow_server(args: &Args, server: &str, mut evaluator: Evaluator) -> Result<Exit, Failure> {
    let credentials = Credentials::new(&args.credentials).or_exit(Exit::Permanent)?;
    let window = args.retry_window_secs;
    let link = FollowerLink::new(server, evaluator.layout(), &credentials, window);
    let mut link = link.map_err(or_exit)?;
    let mut scored = None;
    loop {
        let (step, checkpoint) = match link.next(scored).map_err(or_exit)? {
            Followed::Checkpoint(step, checkpoint) => (step, checkpoint),
            Followed::Over(Goodbye::Diverged) => return Ok(Exit::Diverged),
            Followed::Over(_) => return Ok(Exit::Complete),
        };
        let scorable = checkpoint.scorable(scored_variables(args.raw));
        let name = checkpoint::name_of(step);
        let (record, shown) = score(args, &mut evaluator, name, &scorable)?;
        link.report(&record.score).map_err(or_exit)?;
        scored = Some(step);
        if shown? == Reader::Gone || args.run_once {
            return Ok(Exit::Complete);
        }
    }
}

/// Scores the checkpoint of this name, and writes the score to stdout: whether that worked, and who reads it, is
/// told beside the score.
fn score(
    args: &Args,
    evaluator: &mut Evaluator,
    checkpoint: String,
    scorable: &Scorable,
) -> Result<(ScoreRecord, Result<Reader, Failure>), Failure> {
    let (data, score) = evaluator.score(scorable)?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since_1970.unwrap_or_default().as_micros();
    let record = ScoreRecord {
        at_micros: u64::try_from(micros).unwrap_or(u64::MAX),
        checkpoint,
        data,
        score,
    };
    let mut text = match args.json {
        true => record.to_line(),
        false => text_lines(&record),
    };
    if args.per_class && !args.json {
        text += &class_table(&record);
    }
    let shown = console::print(&text);
    Ok((record, shown))
}
