//! The checkpoint: the portable form of a training state, one safetensors file.
//!
//! `model.ckpt-<step>.safetensors` holds each variable under the tutorial's name and its moving
//! average under that name with the suffix `/ExponentialMovingAverage`, f32; `global_step`, an i64
//! scalar; and, as JSON in the metadata under `cifar-ps`, the run's configuration and the digest of
//! the state. A file made by another program needs no metadata.
//!
//! A checkpoint is written beside its final name and renamed when it is on disk whole, so a name
//! that exists is a file that was finished.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cifar_sequence::GlobalStep;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::run::RunConfig;
use crate::state::{StateDigest, TrainingState};
use crate::values::Values;

/// Suffix of a moving average's name, as TensorFlow gives it.
pub const AVERAGE_SUFFIX: &str = "/ExponentialMovingAverage";

const METADATA_KEY: &str = "cifar-ps";
/// How the name of a checkpoint begins while it is being written.
pub const TEMPORARY_PREFIX: &str = ".checkpoint-";

const PREFIX: &str = "model.ckpt-";
const SUFFIX: &str = ".safetensors";

/// A training state and the run it belongs to.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Variables, averages and global step.
    pub state: TrainingState,
    /// The run's configuration; `None` in a file that another program made.
    pub run: Option<RunConfig>,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    run: RunConfig,
    state_digest: StateDigest,
}

/// A checkpoint that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file is not there or cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file or its folder cannot be written; nothing of it is left.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no safetensors file, or ends early.
    #[error("{path} is no whole safetensors file")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SafeTensorError,
    },
    /// A tensor of the model is not in the file.
    #[error("{path} has no tensor {name}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape or type than the model's.
    #[error("tensor {name} of {path} is {found}, expected {expected}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Type and shape in the file.
        found: String,
        /// Type and shape of the model.
        expected: String,
    },
    /// `global_step` is negative.
    #[error("global_step of {path} is {found}, expected 0 or more")]
    Step {
        /// The file.
        path: PathBuf,
        /// The number in the file.
        found: i64,
    },
    /// The metadata is no configuration of this program's version.
    #[error("the configuration in {path} cannot be understood")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The numbers are not those that were saved.
    #[error("{path} is damaged: its state has digest {found}, saved was {expected}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Digest of what is in the file.
        found: StateDigest,
        /// Digest in the metadata.
        expected: StateDigest,
    },
}

/// The file name of the checkpoint of a step.
#[must_use]
pub fn name_of(global_step: GlobalStep) -> String {
    format!("{PREFIX}{global_step}{SUFFIX}")
}

/// The file of the checkpoint of a step in `dir`.
#[must_use]
pub fn path_of(dir: &Path, global_step: GlobalStep) -> PathBuf {
    dir.join(name_of(global_step))
}

/// The checkpoints in `dir`, newest first; none if there is no such folder.
///
/// # Errors
///
/// [`CheckpointError::Read`] if the folder cannot be listed.
pub fn list(dir: &Path) -> Result<Vec<(GlobalStep, PathBuf)>, CheckpointError> {
    let read_error = |source| CheckpointError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(read_error)?.path();
        if let Some(step) = step_of(&path) {
            found.push((step, path));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

fn step_of(path: &Path) -> Option<GlobalStep> {
    let digits = path
        .file_name()?
        .to_str()?
        .strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok().map(GlobalStep))?
}

/// Writes the checkpoint of `state` into `dir` and returns its path.
///
/// When this returns, the file will survive a power cut; when it fails, no part of it is left.
///
/// # Errors
///
/// [`CheckpointError::Write`] if the folder cannot be written to, or the disk is full.
pub fn save(
    dir: &Path,
    layout: &Layout,
    state: &TrainingState,
    run: &RunConfig,
) -> Result<PathBuf, CheckpointError> {
    let path = path_of(dir, state.global_step);
    let write = || {
        let bytes = encode(layout, state, run)?;
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(dir)?;
        file.write_all(&bytes)?;
        make_readable(file.as_file())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| CheckpointError::Write {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

/// Temporary files are made for their owner alone; a checkpoint is for whoever may read the folder.
fn make_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

/// The file's bytes: equal states of equal runs give equal bytes.
fn encode(layout: &Layout, state: &TrainingState, run: &RunConfig) -> io::Result<Vec<u8>> {
    let step = (state.global_step.0 as i64).to_le_bytes();
    let view = |dtype, shape: &[usize], bytes| {
        TensorView::new(dtype, shape.to_vec(), bytes)
            .expect("the layout gives each slice its own size")
    };
    let mut tensors = vec![("global_step".to_owned(), view(Dtype::I64, &[], &step))];
    for (spec, range) in layout.iter() {
        let variable = bytes_of(&state.variables, &range);
        tensors.push((spec.name.clone(), view(Dtype::F32, &spec.shape, variable)));
        let name = format!("{}{AVERAGE_SUFFIX}", spec.name);
        let average = bytes_of(&state.averages, &range);
        tensors.push((name, view(Dtype::F32, &spec.shape, average)));
    }
    let metadata = Metadata {
        run: run.clone(),
        state_digest: state.digest(),
    };
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), serde_json::to_string(&metadata)?)]);
    safetensors::serialize(tensors, Some(metadata)).map_err(io::Error::other)
}

fn bytes_of<'a>(values: &'a Values, range: &Range<usize>) -> &'a [u8] {
    bytemuck::cast_slice(&values[range.clone()])
}

/// Reads a checkpoint and checks it against `layout` and its own digest.
///
/// # Errors
///
/// Any [`CheckpointError`] but `Write`: a missing, cut or damaged file, or one of another model.
pub fn load(path: &Path, layout: &Layout) -> Result<Checkpoint, CheckpointError> {
    let bytes = fs::read(path).map_err(|source| CheckpointError::Read {
        path: path.to_owned(),
        source,
    })?;
    decode(path, &bytes, layout)
}

/// Reads a checkpoint that is in memory, as [`load`] does. `path` is what errors call it.
///
/// # Errors
///
/// As [`load`], but for `Read`.
pub fn decode(path: &Path, bytes: &[u8], layout: &Layout) -> Result<Checkpoint, CheckpointError> {
    let format_error = |source| CheckpointError::Format {
        path: path.to_owned(),
        source,
    };
    let tensors = SafeTensors::deserialize(bytes).map_err(format_error)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(format_error)?;
    let reader = Reader { path, tensors };

    let mut variables = Values::zeros(layout.num_values());
    let mut averages = Values::zeros(layout.num_values());
    for (spec, range) in layout.iter() {
        reader.copy(&spec.name, &spec.shape, &mut variables[range.clone()])?;
        reader.copy(
            &format!("{}{AVERAGE_SUFFIX}", spec.name),
            &spec.shape,
            &mut averages[range],
        )?;
    }
    let state = TrainingState {
        global_step: reader.global_step()?,
        variables,
        averages,
    };

    let metadata = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(METADATA_KEY));
    let Some(metadata) = metadata else {
        return Ok(Checkpoint { state, run: None });
    };
    let Metadata {
        run,
        state_digest: expected,
    } = serde_json::from_str(metadata).map_err(|source| CheckpointError::Metadata {
        path: path.to_owned(),
        source,
    })?;
    let found = state.digest();
    if found != expected {
        return Err(CheckpointError::Damaged {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    Ok(Checkpoint {
        state,
        run: Some(run),
    })
}

struct Reader<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl Reader<'_> {
    fn tensor(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<TensorView<'_>, CheckpointError> {
        let path = || self.path.to_owned();
        let tensor = self
            .tensors
            .tensor(name)
            .map_err(|_| CheckpointError::Missing {
                path: path(),
                name: name.to_owned(),
            })?;
        if (tensor.dtype(), tensor.shape()) == (dtype, shape) {
            return Ok(tensor);
        }
        Err(CheckpointError::Shape {
            path: path(),
            name: name.to_owned(),
            found: format!("{:?} {:?}", tensor.dtype(), tensor.shape()),
            expected: format!("{dtype:?} {shape:?}"),
        })
    }

    fn copy(&self, name: &str, shape: &[usize], to: &mut [f32]) -> Result<(), CheckpointError> {
        let tensor = self.tensor(name, Dtype::F32, shape)?;
        bytemuck::cast_slice_mut(to).copy_from_slice(tensor.data());
        Ok(())
    }

    fn global_step(&self) -> Result<GlobalStep, CheckpointError> {
        let tensor = self.tensor("global_step", Dtype::I64, &[])?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(tensor.data());
        let found = i64::from_le_bytes(bytes);
        let step = u64::try_from(found);
        step.map(GlobalStep).map_err(|_| CheckpointError::Step {
            path: self.path.to_owned(),
            found,
        })
    }
}

#[cfg(test)]
mod tests {
    use cifar_sequence::{DataSet, InputKind};
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{Initializer, VariableSpec};
    use crate::run::{DecayBy, Kernels};

    fn layout() -> Layout {
        let variable = |name: &str, shape: &[usize]| VariableSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initializer: Initializer::Constant(0.0),
            weight_decay: None,
        };
        Layout::new(vec![
            variable("a/weights", &[2, 3]),
            variable("a/biases", &[3]),
        ])
    }

    fn state(step: u64) -> TrainingState {
        let numbers: Vec<f32> = (0..9).map(|i| i as f32 + 0.25).collect();
        let mut state = TrainingState::initial(Values::from(numbers.as_slice()));
        state.averages[3] = -1.0;
        state.global_step = GlobalStep(step);
        state
    }

    fn run() -> RunConfig {
        RunConfig {
            seed: 1,
            num_towers: 2,
            batch_size: 4,
            input: InputKind::Distorted,
            data: DataSet::Cifar10,
            learning_rate: 0.1,
            num_epochs_per_decay: 350.0,
            decay_by: DecayBy::Steps,
            moving_average_decay: 0.9999,
            threads: 1,
            kernels: Kernels::Auto,
            initial_digest: state(0).digest(),
            numerics: None,
            mode: crate::mode::Mode::Synchronous,
        }
    }

    #[test]
    fn a_saved_state_is_loaded_again_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = save(dir.path(), &layout(), &state(12), &run()).unwrap();
        assert_eq!(path, dir.path().join("model.ckpt-12.safetensors"));
        let loaded = load(&path, &layout()).unwrap();
        assert_eq!(loaded.state, state(12));
        assert_eq!(loaded.run, Some(run()));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing else is left behind"
        );
    }

    #[test]
    fn equal_states_give_equal_files() {
        assert_eq!(
            encode(&layout(), &state(3), &run()).unwrap(),
            encode(&layout(), &state(3), &run()).unwrap()
        );
    }

    #[test]
    fn the_newest_checkpoint_comes_first_and_other_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for step in [9, 10, 0] {
            save(dir.path(), &layout(), &state(step), &run()).unwrap();
        }
        for name in [
            "model.ckpt-.safetensors",
            "model.ckpt-11.safetensors.part",
            "model.ckpt-+7.safetensors",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let steps: Vec<u64> = list(dir.path())
            .unwrap()
            .iter()
            .map(|(step, _)| step.0)
            .collect();
        assert_eq!(steps, [10, 9, 0]);
        assert!(list(&dir.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_checkpoint_of_another_model_is_refused_by_the_tensors_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = save(dir.path(), &layout(), &state(1), &run()).unwrap();
        let error = load(&path, &Layout::cifar10()).unwrap_err().to_string();
        assert!(error.ends_with("has no tensor conv1/weights"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let error = save(Path::new("/absent"), &layout(), &state(1), &run())
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot write /absent/model.ckpt-1.safetensors");
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_an_error_and_never_a_panic(at: prop::sample::Index, with in 1_u8.., cut: bool) {
            let mut bytes = encode(&layout(), &state(5), &run()).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= with }
            if let Ok(loaded) = decode(Path::new("x"), &bytes, &layout()) {
                // What is left undetected may lie in the metadata's text, never in the numbers.
                prop_assert_eq!(loaded.state, state(5));
            }
        }
    }
}
