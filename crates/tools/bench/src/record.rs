//! The record of a training run: a folder that shows what was run, how it went and how good it became,
//! made from a train dir.
//!
//! ```text
//! README.md                       one screen: figures, scores, curves, how to score it again
//! curves.svg                      loss and precision over the steps
//! losses.csv                      every so many steps: loss, learning rate, examples per second
//! scores.jsonl                    what cifar-eval says of each checkpoint
//! model.ckpt-N.safetensors        the moving averages alone
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use cifar_data::Sha256Digest;
use cifar_data::args::DataArgs;
use cifar_worker::evaluator::{Evaluator, Settings};
use clap::Args;
use pserver_cli::console::say;
use pserver_cli::exit::Failure;
use pserver_ledger::history::Committed;
use pserver_ledger::{EvalDir, History, ScoreRecord};
use pserver_run::{DataSet, EvalData, GlobalStep, Layout, RunConfig, ScoredVariables};
use pserver_state::checkpoint::{self, Checkpoint};

use crate::curve_chart::{Panel, curve_chart};
use crate::hardware;
use crate::statistics::{mean, median};

/// Examples that a score counts.
const NUM_EXAMPLES: u32 = 10_000;

/// Lines of `losses.csv`, about.
const LOSS_LINES: u64 = 500;

/// What is recorded.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// Folder of the run
    #[arg(long, default_value = "runs/default", value_name = "DIR")]
    pub train_dir: PathBuf,

    /// Name of the record; its folder is called after the day of the run's end and this
    #[arg(long, value_name = "NAME")]
    pub name: String,

    /// What was typed to make the run, to stand in the record
    #[arg(long, value_name = "TEXT")]
    pub command: String,

    /// Folder of the records
    #[arg(long, default_value = "docs/runs", value_name = "DIR")]
    pub runs: PathBuf,

    /// Where the data set is.
    #[command(flatten)]
    pub data_args: DataArgs,
}

/// Makes the record; the text of its README.
///
/// Checkpoints that have no score yet are scored first.
///
/// # Errors
///
/// If the train dir holds no run with a checkpoint, or the record cannot be written. A folder of the
/// same name is not touched.
pub fn record(args: &RecordArgs) -> Result<String, Failure> {
    let ledger = args.train_dir.join("ledger");
    let history = History::read(&ledger)?;
    let layout = cifar_model::layout();
    let load = |path: &Path| checkpoint::load(path, &layout);
    let passed_over = |_: &Path, error| say(&format!("passes over a checkpoint: {error}"));
    let newest = checkpoint::newest(&args.train_dir, load, passed_over)?.with_context(|| {
        let train_dir = args.train_dir.display();
        format!("{train_dir} holds no checkpoint: let the run write one first")
    })?;
    score_what_has_no_score(args, &layout, newest.state.global_step)?;
    let eval_dir = EvalDir::of_train_dir(&args.train_dir);
    let scores = counted(eval_dir.scores()?);

    let day = &pserver_cli::logging::timestamp()[..10];
    let folder = args.runs.join(format!("{day}-{}", args.name));
    if folder.exists() {
        let folder = folder.display();
        return Err(anyhow!("there is a record {folder} already: give another --name").into());
    }
    let run = Run {
        args,
        day,
        folder: &folder,
        history: &history,
        scores: &scores,
        last: &newest,
    };
    Ok(run.write(&layout)?)
}

/// Scores by the averages every checkpoint that is still there, and the newest by the variables too.
fn score_what_has_no_score(
    args: &RecordArgs,
    layout: &Layout,
    newest: GlobalStep,
) -> Result<(), Failure> {
    let eval_dir = EvalDir::of_train_dir(&args.train_dir);
    let mut writer = eval_dir.clone().writer(&pserver_cli::host::host_name());
    let mut checkpoints = checkpoint::list(&args.train_dir)?;
    checkpoints.reverse();
    for variables in [ScoredVariables::Averages, ScoredVariables::Raw] {
        let known = counted(eval_dir.scores()?);
        let is_known = |step| {
            let mut known = known.iter().map(|record| &record.score);
            known.any(|score| score.global_step == step && score.variables == variables)
        };
        let wanted = checkpoints.iter().filter(|(step, _)| {
            let is_wanted = variables == ScoredVariables::Averages || *step == newest;
            is_wanted && !is_known(*step)
        });
        let settings = Settings {
            eval_data: EvalData::Test,
            num_examples: NUM_EXAMPLES,
            data: DataSet::Cifar10,
        };
        let mut evaluator = Evaluator::new(settings, args.data_args.clone(), None)?;
        for (step, path) in wanted {
            say(&format!("scores the checkpoint of step {step}"));
            let scorable = match checkpoint::load_scorable(path, layout, variables) {
                Ok(scorable) => scorable,
                Err(error) => {
                    say(&format!("passes over it: {error}"));
                    continue;
                }
            };
            let (data, score) = evaluator.score(&scorable)?;
            writer.keep(&ScoreRecord {
                at_micros: crate::ledger_window::now_micros(),
                checkpoint: checkpoint::name_of(*step),
                data,
                score,
            })?;
        }
    }
    Ok(())
}

/// The scores over all test examples, one for each step and kind, in the order of steps.
fn counted(scores: Vec<ScoreRecord>) -> Vec<ScoreRecord> {
    let is_whole = |record: &ScoreRecord| {
        let score = &record.score;
        score.eval_data == EvalData::Test
            && score.confusion.num_examples() == u64::from(NUM_EXAMPLES)
    };
    let mut whole: Vec<_> = scores.into_iter().filter(is_whole).collect();
    let key = |record: &ScoreRecord| {
        let is_raw = record.score.variables == ScoredVariables::Raw;
        (record.score.global_step, is_raw)
    };
    whole.sort_by_key(key);
    whole.dedup_by_key(|record| key(record));
    whole
}

/// What a record is made of.
struct Run<'a> {
    args: &'a RecordArgs,
    day: &'a str,
    folder: &'a Path,
    history: &'a History,
    scores: &'a [ScoreRecord],
    last: &'a Checkpoint,
}

impl Run<'_> {
    /// Writes the folder beside its name, and renames it when it is whole.
    fn write(&self, layout: &Layout) -> anyhow::Result<String> {
        let cannot = || format!("cannot write {}", self.folder.display());
        fs::create_dir_all(&self.args.runs).with_context(cannot)?;
        let beside = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o777))
            .tempdir_in(&self.args.runs)
            .with_context(cannot)?;
        let averages = self.last.clone().scorable(ScoredVariables::Averages);
        let model = checkpoint::save_averages(beside.path(), layout, &averages)?;
        let digest = Sha256Digest::of(&fs::read(&model).with_context(cannot)?);
        let page = self.page(digest);
        let scores: String = self.scores.iter().map(ScoreRecord::to_line).collect();
        let files = [
            ("README.md", page.clone()),
            ("losses.csv", self.losses()),
            ("scores.jsonl", scores),
            ("curves.svg", self.curves()),
        ];
        for (name, text) in files {
            fs::write(beside.path().join(name), text).with_context(cannot)?;
        }
        fs::rename(beside.path(), self.folder).with_context(cannot)?;
        // It is not where it was made any more.
        let _ = beside.keep();
        Ok(page)
    }

    fn page(&self, digest: Sha256Digest) -> String {
        let Run { args, day, .. } = self;
        let run = self.run();
        let steps = self.last.state.global_step.0;
        let examples = steps * u64::from(run.num_towers) * u64::from(run.batch_size);
        let epochs = examples as f64 / f64::from(run.data.num_train_examples());
        let wall = self.wall_seconds();
        let starts = self.history.starts.len();
        let versions: BTreeSet<&str> = self
            .history
            .starts
            .iter()
            .map(|it| it.start.version.as_str())
            .collect();
        let versions: Vec<&str> = versions.into_iter().collect();
        let mut page = format!("# Run {}, {day}\n\n    {}\n\n", args.name, args.command);
        page += &self.scores_of(steps);
        page += &format!(
            "\n| | |\n|---|---|\n\
             | steps | {steps} of {} x {} examples |\n\
             | examples | {examples}, {epochs:.1} epochs |\n\
             | time | {:.1} min in {starts} start{} of the server |\n\
             | speed | {:.0} examples/s in the median, {:.4} sec/batch |\n\
             | learning rate | {}, to a tenth every {} epochs counted in {} |\n\
             | seed | {} |\n\
             | computed with | {} |\n\
             | machine | {} |\n\
             | programs | {} |\n\
             | state at the end | `{}` |\n",
            run.num_towers,
            run.batch_size,
            wall / 60.0,
            if starts == 1 { "" } else { "s" },
            self.examples_per_sec(),
            f64::from(run.batch_size) / self.examples_per_sec(),
            run.learning_rate,
            run.num_epochs_per_decay,
            run.decay_by,
            run.seed,
            run.numerics
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            hardware::of_this_machine(),
            versions.join(", "),
            self.last.state.digest(),
        );
        page += &format!(
            "\n![loss and precision over the steps](curves.svg)\n\n\
             `model.ckpt-{steps}.safetensors` holds the moving averages alone (SHA-256\n\
             `{digest}`). To score it again:\n\n    \
             cifar-eval --checkpoint-dir {} --eval-dir runs/score --run-once\n\n\
             `losses.csv` has the mean loss of every {}th step, `scores.jsonl` the scores by class.\n",
            self.folder.display(),
            self.stride(),
        );
        page
    }

    /// The scores of the checkpoint of a step.
    fn scores_of(&self, step: u64) -> String {
        let scores = self.scores.iter();
        let scores = scores.filter(|it| it.score.global_step.0 == step);
        let line = |record: &ScoreRecord| {
            let kind = match record.score.variables {
                ScoredVariables::Averages => "by the moving averages",
                ScoredVariables::Raw => "by the variables themselves",
            };
            let confusion = record.score.confusion;
            let (correct, examples) = (confusion.num_correct(), confusion.num_examples());
            format!(
                "    precision @ 1 = {:.4}   {kind}: {correct} of {examples} test examples\n",
                confusion.precision_at_1()
            )
        };
        scores.map(line).collect()
    }

    /// The configuration, with the numerics that the ledger's first record cannot know.
    fn run(&self) -> &RunConfig {
        self.last.run.as_ref().unwrap_or(&self.history.run)
    }

    /// From the first to the last record of each start of the server.
    fn wall_seconds(&self) -> f64 {
        let starts = self.history.starts.iter();
        let micros = starts.map(|it| it.last_at_micros.saturating_sub(it.at_micros));
        micros.sum::<u64>() as f64 / 1e6
    }

    /// Of all towers together, the median over stretches of steps.
    fn examples_per_sec(&self) -> f64 {
        let speeds: Vec<f64> = self
            .stretches()
            .map(|stretch| stretch.examples_per_sec)
            .collect();
        median(&speeds).unwrap_or_default()
    }

    /// Steps between two lines of the losses.
    fn stride(&self) -> u64 {
        (self.last.state.global_step.0 / LOSS_LINES).max(1)
    }

    fn losses(&self) -> String {
        let mut csv = "step,loss,learning_rate,examples_per_sec\n".to_owned();
        for stretch in self.stretches() {
            let Stretch {
                step,
                loss,
                learning_rate,
                examples_per_sec,
            } = stretch;
            csv += &format!("{step},{loss:.4},{learning_rate},{examples_per_sec:.0}\n");
        }
        csv
    }

    /// The run in stretches of as many steps as there are between two lines.
    fn stretches(&self) -> impl Iterator<Item = Stretch> {
        let run = self.run();
        let examples_a_step = u64::from(run.num_towers) * u64::from(run.batch_size);
        let commits: Vec<&Committed> = self.history.commits.values().collect();
        let stride = self.stride() as usize;
        let stretches: Vec<Stretch> = commits
            .chunks(stride)
            .filter_map(|chunk| Stretch::of(chunk, examples_a_step))
            .collect();
        stretches.into_iter()
    }

    fn curves(&self) -> String {
        let losses = self
            .stretches()
            .map(|it| (it.step as f64, f64::from(it.loss)));
        let of_kind = |kind| {
            let records = self.scores.iter().map(|record| &record.score);
            let of_kind = records.filter(move |score| score.variables == kind);
            of_kind.map(|score| (score.global_step.0 as f64, score.confusion.precision_at_1()))
        };
        curve_chart(&[
            Panel {
                title: "total loss, mean of a stretch of steps",
                points: losses.collect(),
            },
            Panel {
                title: "precision @ 1 by the moving averages, 10,000 test examples",
                points: of_kind(ScoredVariables::Averages).collect(),
            },
        ])
    }
}

/// Some steps that follow each other.
struct Stretch {
    step: u64,
    loss: f32,
    learning_rate: f32,
    examples_per_sec: f64,
}

impl Stretch {
    fn of(commits: &[&Committed], examples_a_step: u64) -> Option<Self> {
        let (first, last) = (commits.first()?, commits.last()?);
        let losses = commits.iter().map(|it| f64::from(it.commit.loss));
        let micros = last.at_micros.saturating_sub(first.at_micros);
        let examples = (commits.len() as u64 - 1) * examples_a_step;
        Some(Stretch {
            step: first.commit.global_step.0,
            loss: mean(losses)? as f32,
            learning_rate: first.commit.learning_rate,
            examples_per_sec: 1e6 * examples as f64 / (micros.max(1) as f64),
        })
    }
}
