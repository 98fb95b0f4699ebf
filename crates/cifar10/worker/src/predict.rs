//! `cifar-eval predict`: what a trained model takes a person's pictures for.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use cifar_data::distort::IMAGE_VALUES;
use clap::Args;
use pserver_cli::console::{self, Reader};
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_cli::logging::{self, LogArgs};
use pserver_cli::signals;
use pserver_run::{DataSet, GlobalStep};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::checkpoint_folder::newest;
use crate::device::set_threads;
use crate::eval::finite_logits;
use crate::evaluator::{model_on, scored_variables, variables_of};
use crate::model::{IMAGE_SIZE, Model, Variables};
use crate::picture;

/// Classes that are told of each picture.
const NUM_TOLD: usize = 3;

/// The command line of `cifar-eval predict`.
#[derive(Clone, Debug, Args)]
pub struct PredictArgs {
    /// PNG or JPEG files, each of at most 120 megapixels, for which at most 1 GB of memory is taken; the
    /// largest square in the middle is looked at
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,

    /// Folder of the checkpoints, of which the newest is taken: the train dir of a run. Or a checkpoint
    #[arg(
        long,
        visible_alias = "checkpoint",
        default_value = "runs/default",
        value_name = "DIR"
    )]
    pub checkpoint_dir: PathBuf,

    /// Predict by the variables themselves instead of their moving averages
    #[arg(long)]
    pub raw: bool,

    /// Write one JSON object per picture instead of text. A name that is not UTF-8 has its bytes in hex as
    /// `image_hex` besides
    #[arg(long)]
    pub json: bool,

    /// Compute on this GPU, counted from 0; without this flag, on the CPU
    #[arg(long, value_name = "K")]
    pub gpu: Option<usize>,

    /// Threads on a CPU [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,

    /// Where logs go and what is in them.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What a picture was taken for, as other programs read it.
#[derive(Debug, Serialize)]
struct Prediction<'a> {
    image: Cow<'a, str>,
    /// The bytes of a name that is not UTF-8, of which `image` is only nearly the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_hex: Option<String>,
    /// The likeliest first.
    classes: Vec<Class>,
    global_step: GlobalStep,
    data: DataSet,
}

#[derive(Debug, Serialize)]
struct Class {
    name: String,
    label: usize,
    /// From 0 to 1; those of all classes come to 1.
    probability: f32,
}

/// A checkpoint that pictures are shown to.
struct Predictor {
    model: Model,
    variables: Variables,
    global_step: GlobalStep,
    data: DataSet,
}

/// Tells of each picture what it was taken for. One that cannot be read is named on stderr, and the
/// others are told all the same; then the exit is [`Exit::Usage`].
///
/// # Errors
///
/// A [`Failure`] if there is no checkpoint, libtorch fails, or the network's output is not finite.
pub fn predict(args: &PredictArgs) -> Result<Exit, Failure> {
    logging::init(&args.log).or_exit(Exit::Usage)?;
    // Nothing is written that could stay behind half.
    signals::end_when_asked()?;
    set_threads(args.threads);
    let predictor = Predictor::new(args)?;
    let mut exit = Exit::Complete;
    for path in &args.images {
        match picture::read(path) {
            Ok(image) => {
                let prediction = predictor.prediction(path, &image)?;
                if console::print(&prediction.told(args.json)?)? == Reader::Gone {
                    return Ok(exit);
                }
            }
            Err(error) => {
                console::say(&format!("cifar-eval: {error}"));
                exit = Exit::Usage;
            }
        }
    }
    Ok(exit)
}

impl Predictor {
    fn new(args: &PredictArgs) -> Result<Self, Failure> {
        let layout = cifar_model::layout();
        let dir = &args.checkpoint_dir;
        let found = newest(dir, &layout, scored_variables(args.raw)).or_exit(Exit::Permanent)?;
        let none = || {
            anyhow!(
                "{} holds no checkpoint; name the train dir of a run with --checkpoint-dir",
                dir.display()
            )
        };
        let scorable = found.ok_or_else(none).or_exit(Exit::Usage)?;
        let model = model_on(args.gpu)?;
        Ok(Predictor {
            variables: variables_of(&layout, &scorable, &model)?,
            model,
            global_step: scorable.global_step,
            data: scorable.run.map_or(DataSet::Cifar10, |run| run.data),
        })
    }

    fn prediction<'a>(
        &self,
        image: &'a Path,
        pixels: &[f32; IMAGE_VALUES],
    ) -> Result<Prediction<'a>, Failure> {
        let probabilities = self.probabilities(pixels).map_err(|failure| {
            let (image, step) = (image.display(), self.global_step);
            let what = format!("cannot classify {image} by the checkpoint of step {step}");
            Failure::new(failure.exit(), anyhow!("{what}: {failure}"))
        })?;
        let names = self.data.class_names();
        let mut classes: Vec<Class> = names
            .into_iter()
            .zip(probabilities)
            .enumerate()
            .map(|(label, (name, probability))| Class {
                name,
                label,
                probability,
            })
            .collect();
        classes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        classes.truncate(NUM_TOLD);
        let name = image.as_os_str();
        Ok(Prediction {
            image: name.to_string_lossy(),
            image_hex: name
                .to_str()
                .is_none()
                .then(|| hex::encode(name.as_bytes())),
            classes,
            global_step: self.global_step,
            data: self.data,
        })
    }

    /// How likely each class is, of one image: softmax over the logits.
    fn probabilities(&self, pixels: &[f32; IMAGE_VALUES]) -> Result<Vec<f32>, Failure> {
        let images = Tensor::f_from_slice(pixels.as_slice())?
            .f_reshape([1, IMAGE_SIZE, IMAGE_SIZE, 3])?
            .f_to_device(self.model.device())?;
        let softmax = finite_logits(&self.model, &self.variables, &images)?
            .f_softmax(1, Kind::Float)?
            .f_to_device(tch::Device::Cpu)?;
        Ok(Vec::try_from(softmax.f_view([-1])?)?)
    }
}

impl Prediction<'_> {
    fn told(&self, json: bool) -> anyhow::Result<String> {
        if json {
            return Ok(serde_json::to_string(self)? + "\n");
        }
        let told = |class: &Class| format!("{} {:.1} %", class.name, 100.0 * class.probability);
        let classes: Vec<String> = self.classes.iter().map(told).collect();
        Ok(format!("{}: {}\n", self.image, classes.join(", ")))
    }
}
