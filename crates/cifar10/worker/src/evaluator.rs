//! Scores checkpoints: the network, the data set of the run, and what is asked of them.

use anyhow::{Context, anyhow};
use cifar_data::args::DataArgs;
use cifar_data::{Dataset, Split};
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_run::{DataSet, EvalData, Layout, Score, ScoredVariables};
use pserver_state::checkpoint::Scorable;

use crate::device;
use crate::eval::score;
use crate::model::{Model, Variables};

/// What is scored, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which examples.
    pub eval_data: EvalData,
    /// How many of them.
    pub num_examples: u32,
    /// Data set of a checkpoint that does not name its own.
    pub data: DataSet,
}

/// Scores checkpoints of the tutorial's model.
#[derive(Debug)]
pub struct Evaluator {
    settings: Settings,
    data_args: DataArgs,
    layout: Layout,
    model: Model,
    dataset: Option<Dataset>,
}

impl Evaluator {
    /// An evaluator on the CPU, or on `gpu`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the device cannot be used.
    pub fn new(
        settings: Settings,
        data_args: DataArgs,
        gpu: Option<usize>,
    ) -> Result<Self, Failure> {
        Ok(Evaluator {
            settings,
            data_args,
            layout: cifar_model::layout(),
            model: model_on(gpu)?,
            dataset: None,
        })
    }

    /// The variables that it knows.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Scores what a checkpoint holds on the data set of its run.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the data set cannot be had, libtorch fails, or the network's output is not finite.
    pub fn score(&mut self, scorable: &Scorable) -> Result<(DataSet, Score), Failure> {
        let of_run = scorable.run.as_ref().map(|run| run.data);
        let data = of_run.unwrap_or(self.settings.data);
        let variables = variables_of(&self.layout, scorable, &self.model)?;
        let split = match self.settings.eval_data {
            EvalData::Test => Split::Test,
            EvalData::TrainEval => Split::Train,
        };
        let num_examples = self.settings.num_examples;
        let open = self.dataset.take();
        let dataset = match open.filter(|dataset| dataset.data_set() == data) {
            Some(dataset) => dataset,
            None => self.data_args.open_or_exit(data)?,
        };
        let dataset = self.dataset.insert(dataset);
        let scored = score(&self.model, &variables, dataset, split, num_examples);
        let confusion = scored.map_err(|failure| {
            let step = scorable.global_step;
            let error = anyhow!("cannot score the checkpoint of step {step}: {failure}");
            Failure::new(failure.exit(), error)
        })?;
        let score = Score {
            global_step: scorable.global_step,
            eval_data: self.settings.eval_data,
            variables: scorable.variables,
            confusion,
        };
        Ok((data, score))
    }
}

/// The network on the CPU, or on `gpu`.
///
/// # Errors
///
/// A [`Failure`] if the device cannot be used.
pub(crate) fn model_on(gpu: Option<usize>) -> Result<Model, Failure> {
    let device = device::select(gpu).or_exit(Exit::Permanent)?;
    Ok(Model::new(device).with_context(|| format!("cannot set up the model on {device:?}"))?)
}

/// What the network is to take, where the network is.
///
/// # Errors
///
/// If there is no memory for it.
pub(crate) fn variables_of(
    layout: &Layout,
    scorable: &Scorable,
    model: &Model,
) -> anyhow::Result<Variables> {
    let variables = Variables::new(layout, &scorable.values, model.device());
    variables.context("cannot hold the variables")
}

/// What the flag --raw chooses.
pub(crate) fn scored_variables(raw: bool) -> ScoredVariables {
    match raw {
        true => ScoredVariables::Raw,
        false => ScoredVariables::Averages,
    }
}
