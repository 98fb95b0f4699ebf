//! `main` of cifar-eval.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use cifar_cli::args::seconds;
use cifar_cli::exit::{Exit, Failure, OrExit, report};
use cifar_cli::logging::{self, LogArgs, timestamp};
use cifar_data::args::DataArgs;
use cifar_data::{Dataset, Split};
use cifar_params::{Checkpoint, Layout, checkpoint};
use cifar_sequence::{DataSet, GlobalStep};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tracing::warn;

use crate::device;
use crate::eval::{Score, score};
use crate::model::{Model, Variables};

/// Names of the classes, by label.
pub const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// Scores the newest checkpoint of a run on the test examples: precision @ 1, by the moving
/// averages of the variables.
///
/// Without --run-once it waits for further checkpoints and scores each.
#[derive(Clone, Debug, Parser)]
#[command(name = "cifar-eval", version = cifar_cli::VERSION)]
pub struct Args {
    /// Folder of the checkpoints: the train dir of the run
    #[arg(long, default_value = "runs/default", value_name = "DIR")]
    pub checkpoint_dir: PathBuf,

    /// Which examples to score: those kept for testing, or the training examples without distortion
    #[arg(long, value_enum, default_value_t)]
    pub eval_data: EvalData,

    /// Number of examples to score, each once
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
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

    /// Write one JSON object per score instead of text
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

    /// Where logs go and what is in them.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Which examples are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum EvalData {
    /// Those kept for testing.
    #[default]
    Test,
    /// The training examples, without distortion.
    TrainEval,
}

/// A score as other programs read it.
#[derive(Debug, Serialize)]
struct Scored {
    step: u64,
    examples: u32,
    correct: u32,
    precision_at_1: f64,
    dataset: String,
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    report("cifar-eval", run(&Args::parse()))
}

fn run(args: &Args) -> Result<Exit, Failure> {
    logging::init(&args.log).or_exit(Exit::Usage)?;
    let mut evaluator = Evaluator::new(args)?;
    let mut scored = None;
    loop {
        let found =
            newest(&args.checkpoint_dir, evaluator.layout(), scored).or_exit(Exit::Permanent)?;
        if let Some((step, checkpoint)) = found {
            evaluator.score(&checkpoint)?;
            scored = Some(step);
        } else if scored.is_none() {
            eprintln!("No checkpoint file found");
        }
        if args.run_once {
            return Ok(if scored.is_some() {
                Exit::Complete
            } else {
                Exit::TryAgain
            });
        }
        thread::sleep(args.eval_interval_secs);
    }
}

/// The newest checkpoint that can be read, if it is newer than what was scored. The server may
/// remove an old one between listing and reading; then there is a newer one.
fn newest(
    dir: &Path,
    layout: &Layout,
    scored: Option<GlobalStep>,
) -> anyhow::Result<Option<(GlobalStep, Checkpoint)>> {
    let mut first_error = None;
    for (step, path) in checkpoint::list(dir)? {
        if scored.is_some_and(|scored| step <= scored) {
            break;
        }
        match checkpoint::load(&path, layout) {
            Ok(checkpoint) => return Ok(Some((step, checkpoint))),
            Err(error) => {
                warn!("passes over a checkpoint: {error}");
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(None), |error| Err(error.into()))
}

struct Evaluator<'a> {
    args: &'a Args,
    layout: Layout,
    model: Model,
    dataset: Option<Dataset>,
}

impl<'a> Evaluator<'a> {
    fn new(args: &'a Args) -> Result<Self, Failure> {
        let device = device::select(args.gpu).or_exit(Exit::Permanent)?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // At most 1,024 by the flag; more cores than an i32 counts there are not.
        tch::set_num_threads(args.threads.map_or(cores as i32, |threads| threads as i32));
        let model =
            Model::new(device).with_context(|| format!("cannot set up the model on {device:?}"))?;
        Ok(Evaluator {
            args,
            layout: Layout::cifar10(),
            model,
            dataset: None,
        })
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn score(&mut self, checkpoint: &Checkpoint) -> Result<(), Failure> {
        let named = checkpoint.run.as_ref().map(|run| run.data);
        self.open_dataset(named.or(self.args.data).unwrap_or(DataSet::Cifar10))?;
        let Evaluator {
            args,
            layout,
            model,
            dataset,
        } = self;
        let dataset = dataset.as_ref().expect("it was just opened");

        let state = &checkpoint.state;
        let values = if args.raw {
            &state.variables
        } else {
            &state.averages
        };
        let variables =
            Variables::new(layout, values, model.device()).context("cannot hold the variables")?;
        let split = match args.eval_data {
            EvalData::Test => Split::Test,
            EvalData::TrainEval => Split::Train,
        };
        let score =
            score(model, &variables, dataset, split, args.num_examples).context("cannot score")?;
        let text = match args.json {
            true => json_line(state.global_step, &score, dataset.data_set())?,
            false => text_lines(state.global_step, &score, dataset.data_set()),
        };
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .context("cannot write to stdout")?;
        Ok(())
    }

    fn open_dataset(&mut self, data_set: DataSet) -> Result<(), Failure> {
        if self
            .dataset
            .as_ref()
            .is_some_and(|dataset| dataset.data_set() == data_set)
        {
            return Ok(());
        }
        self.dataset = Some(self.args.data_args.open_or_exit(data_set)?);
        Ok(())
    }
}

fn json_line(global_step: GlobalStep, score: &Score, data_set: DataSet) -> anyhow::Result<String> {
    let scored = Scored {
        step: global_step.0,
        examples: score.num_examples(),
        correct: score.num_correct(),
        precision_at_1: score.precision_at_1(),
        dataset: data_set.to_string(),
    };
    Ok(serde_json::to_string(&scored)? + "\n")
}

/// The tutorial's line and a table by class.
fn text_lines(global_step: GlobalStep, score: &Score, data_set: DataSet) -> String {
    let note = match data_set {
        DataSet::Cifar10 => "",
        DataSet::Synthetic { .. } => " (of the synthetic set, not of CIFAR-10)",
    };
    let precision = score.precision_at_1();
    let (correct, examples) = (score.num_correct(), score.num_examples());
    let mut text = format!("{}: precision @ 1 = {precision:.4}{note}\n", timestamp());
    text += &format!("step {global_step}, {data_set}: {correct} of {examples} examples\n");
    for (label, (correct, examples)) in score.correct.iter().zip(score.examples).enumerate() {
        let class = match data_set {
            DataSet::Cifar10 => CLASSES[label].to_owned(),
            DataSet::Synthetic { .. } => format!("class {label}"),
        };
        let share = f64::from(*correct) / f64::from(examples.max(1));
        text += &format!("  {class:<12} {share:.4}  {correct:>5} of {examples}\n");
    }
    text
}
