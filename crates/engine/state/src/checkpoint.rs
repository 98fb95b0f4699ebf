//! The checkpoint: the portable form of a training state, one safetensors file.
//!
//! `model.ckpt-<step>.safetensors` holds each variable under the tutorial's name and its moving
//! average under that name with the suffix `/ExponentialMovingAverage`, f32; `global_step`, an i64
//! scalar; and, as JSON in the metadata under `cifar-ps`, the run's configuration and the digest of
//! the state. A file made by another program needs no metadata.
//!
//! A file of [averages alone](save_averages), half as large, is what is left of a run that is over: it can be
//! scored, but no run goes on from it.
//!
//! A checkpoint is written beside its final name and renamed when it is on disk whole, so a name
//! that exists is a file that was finished. Others make and damage files too, so a name is not believed:
//! only what can be loaded is a checkpoint, and [`newest`] finds it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pserver_run::GlobalStep;
use pserver_run::{StateDigest, config::RunConfig, layout::Layout, score::ScoredVariables};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::folder::AboutPath;
use crate::state::TrainingState;
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

/// What the network takes to be scored: the half of a state that was chosen.
#[derive(Clone, Debug)]
pub struct Scorable {
    /// Updates that made it.
    pub global_step: GlobalStep,
    /// Which half it is.
    pub variables: ScoredVariables,
    /// All variables end to end.
    pub values: Values,
    /// The run's configuration; `None` in a file that another program made.
    pub run: Option<RunConfig>,
}

impl Checkpoint {
    /// The half of the state that is to be scored.
    #[must_use]
    pub fn scorable(self, variables: ScoredVariables) -> Scorable {
        Scorable {
            global_step: self.state.global_step,
            variables,
            values: match variables {
                ScoredVariables::Averages => self.state.averages,
                ScoredVariables::Raw => self.state.variables,
            },
            run: self.run,
        }
    }
}

impl Scorable {
    /// As [`TrainingState::digest`], of a state that has nothing else.
    fn digest(&self) -> StateDigest {
        let mut hash = XxHash3_128::new();
        hash.write(&self.global_step.0.to_le_bytes());
        hash.write(self.values.as_bytes());
        StateDigest(hash.finish_128())
    }
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    run: RunConfig,
    #[serde(flatten)]
    digest: DigestOf,
}

/// What the numbers in a file add up to.
#[derive(Serialize, Deserialize)]
enum DigestOf {
    /// Variables, averages and step.
    #[serde(rename = "state_digest")]
    State(StateDigest),
    /// Averages and step: there is nothing else in the file.
    #[serde(rename = "averages_digest")]
    Averages(StateDigest),
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
    /// The file holds averages and nothing else.
    #[error("{path} holds moving averages alone: they can be scored, but no run can go on from it")]
    AveragesAlone {
        /// The file.
        path: PathBuf,
    },
    /// A value of a tensor is NaN or infinite.
    #[error("{name} of {path} holds a value that is NaN or infinite; take another checkpoint")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The file has the name of another step's checkpoint.
    #[error("{path} holds the checkpoint of step {found}; give it the name of that step")]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The step in the file.
        found: GlobalStep,
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

impl AboutPath for CheckpointError {
    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            CheckpointError::Read { path, .. }
            | CheckpointError::Write { path, .. }
            | CheckpointError::Format { path, .. }
            | CheckpointError::Missing { path, .. }
            | CheckpointError::Shape { path, .. }
            | CheckpointError::AveragesAlone { path }
            | CheckpointError::NotFinite { path, .. }
            | CheckpointError::Misnamed { path, .. }
            | CheckpointError::Step { path, .. }
            | CheckpointError::Metadata { path, .. }
            | CheckpointError::Damaged { path, .. } => path,
        }
    }
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

/// The files in `dir` that are named as checkpoints, newest first; none if there is no such folder. Whether
/// they are checkpoints shows when they are loaded, as [`newest`] does.
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

/// The newest checkpoint in `dir` that `load` can load. Each newer file that it cannot load is given to
/// `passed_over`, unless it was removed meanwhile.
///
/// # Errors
///
/// [`CheckpointError::Read`] if the folder cannot be listed.
pub fn newest<T>(
    dir: &Path,
    load: impl Fn(&Path) -> Result<T, CheckpointError>,
    mut passed_over: impl FnMut(&Path, CheckpointError),
) -> Result<Option<T>, CheckpointError> {
    for (_, path) in list(dir)? {
        match load(&path) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(CheckpointError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => passed_over(&path, error),
        }
    }
    Ok(None)
}

/// The step in the name of a checkpoint; `None` if this is no such name.
#[must_use]
pub fn step_of(path: &Path) -> Option<GlobalStep> {
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
    write_whole(dir, state.global_step, || encode(layout, state, run))
}

/// Writes averages alone into `dir`, under the name of their checkpoint, and returns the path.
///
/// # Errors
///
/// As [`save`].
///
/// # Panics
///
/// If these are no averages, or not of `layout`.
pub fn save_averages(
    dir: &Path,
    layout: &Layout,
    averages: &Scorable,
) -> Result<PathBuf, CheckpointError> {
    assert_eq!(averages.variables, ScoredVariables::Averages);
    write_whole(dir, averages.global_step, || {
        encode_averages(layout, averages)
    })
}

fn write_whole(
    dir: &Path,
    global_step: GlobalStep,
    encode: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<PathBuf, CheckpointError> {
    let path = path_of(dir, global_step);
    let write = || {
        let bytes = encode()?;
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            // What the umask leaves of it: others may be meant to read it.
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
        file.write_all(&bytes)?;
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

/// The file's bytes: equal states of equal runs give equal bytes.
fn encode(layout: &Layout, state: &TrainingState, run: &RunConfig) -> io::Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for (spec, range) in layout.iter() {
        let shape = spec.shape.as_slice();
        tensors.push((spec.name.clone(), shape, &state.variables[range.clone()]));
        let name = format!("{}{AVERAGE_SUFFIX}", spec.name);
        tensors.push((name, shape, &state.averages[range]));
    }
    let metadata = Metadata {
        run: run.clone(),
        digest: DigestOf::State(state.digest()),
    };
    serialized(state.global_step, &tensors, Some(&metadata))
}

fn encode_averages(layout: &Layout, averages: &Scorable) -> io::Result<Vec<u8>> {
    let tensors = layout.iter().map(|(spec, range)| {
        let name = format!("{}{AVERAGE_SUFFIX}", spec.name);
        (name, spec.shape.as_slice(), &averages.values[range])
    });
    let metadata = averages.run.clone().map(|run| Metadata {
        run,
        digest: DigestOf::Averages(averages.digest()),
    });
    let tensors: Vec<_> = tensors.collect();
    serialized(averages.global_step, &tensors, metadata.as_ref())
}

fn serialized(
    global_step: GlobalStep,
    tensors: &[(String, &[usize], &[f32])],
    metadata: Option<&Metadata>,
) -> io::Result<Vec<u8>> {
    let step = (global_step.0 as i64).to_le_bytes();
    let view = |dtype, shape: &[usize], bytes| {
        TensorView::new(dtype, shape.to_vec(), bytes)
            .expect("the layout gives each slice its own size")
    };
    let step = ("global_step".to_owned(), view(Dtype::I64, &[], &step));
    let tensors = tensors.iter().map(|(name, shape, values)| {
        let bytes = bytemuck::cast_slice(values);
        (name.clone(), view(Dtype::F32, shape, bytes))
    });
    let metadata = metadata.map(serde_json::to_string).transpose()?;
    let metadata = metadata.map(|json| HashMap::from([(METADATA_KEY.to_owned(), json)]));
    safetensors::serialize([step].into_iter().chain(tensors), metadata).map_err(io::Error::other)
}

/// Reads a checkpoint and checks it against `layout` and its own digest.
///
/// # Errors
///
/// Any [`CheckpointError`] but `Write`: a missing, cut or damaged file, or one of another model.
pub fn load(path: &Path, layout: &Layout) -> Result<Checkpoint, CheckpointError> {
    let bytes = read(path)?;
    let reader = Reader::new(path, &bytes)?;
    decode(&reader, layout)
}

/// Shape and numbers of a variable in the file of a checkpoint whose shape `is_wanted`, if there is one. Nothing else of
/// the file is looked at.
///
/// # Errors
///
/// [`CheckpointError`] if the file cannot be read, or the numbers are not finite.
pub fn variable(
    path: &Path,
    is_wanted: impl Fn(&[usize]) -> bool,
) -> Result<Option<(Vec<usize>, Values)>, CheckpointError> {
    let bytes = read(path)?;
    let reader = Reader::new(path, &bytes)?;
    let mut tensors = reader.tensors.iter();
    let found = tensors.find(|(name, tensor)| {
        tensor.dtype() == Dtype::F32 && !name.ends_with(AVERAGE_SUFFIX) && is_wanted(tensor.shape())
    });
    let Some((name, tensor)) = found else {
        return Ok(None);
    };
    let shape = tensor.shape().to_vec();
    let mut values = Values::zeros(shape.iter().product());
    reader.copy(name, &shape, &mut values)?;
    Ok(Some((shape, values)))
}

/// Reads what is to be scored in a checkpoint, or in a file of averages alone, and checks it as [`load`]
/// does.
///
/// # Errors
///
/// As [`load`].
pub fn load_scorable(
    path: &Path,
    layout: &Layout,
    variables: ScoredVariables,
) -> Result<Scorable, CheckpointError> {
    load_scorable_bytes(path, &read(path)?, layout, variables)
}

/// Reads what is to be scored in a file that is in memory, as [`load_scorable`] does. `path` is what errors
/// call it.
///
/// # Errors
///
/// As [`load`], but for `Read`.
pub fn load_scorable_bytes(
    path: &Path,
    bytes: &[u8],
    layout: &Layout,
    variables: ScoredVariables,
) -> Result<Scorable, CheckpointError> {
    let reader = Reader::new(path, bytes)?;
    if let Some(Metadata {
        run,
        digest: DigestOf::Averages(expected),
    }) = reader.metadata()?
        && variables == ScoredVariables::Averages
    {
        let averages = Scorable {
            global_step: reader.global_step()?,
            variables,
            values: reader.values(layout, AVERAGE_SUFFIX)?,
            run: Some(run),
        };
        reader.check(averages.digest(), expected)?;
        return Ok(averages);
    }
    Ok(decode(&reader, layout)?.scorable(variables))
}

/// Reads a checkpoint that is in memory, as [`load`] does. `path` is what errors call it.
///
/// # Errors
///
/// As [`load`], but for `Read`.
pub fn load_bytes(
    path: &Path,
    bytes: &[u8],
    layout: &Layout,
) -> Result<Checkpoint, CheckpointError> {
    decode(&Reader::new(path, bytes)?, layout)
}

fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    // A device may have no end, and a pipe nobody who writes to it.
    let read = || match fs::metadata(path)?.is_file() {
        true => fs::read(path),
        false => Err(io::Error::other("it is not a regular file")),
    };
    read().map_err(|source| CheckpointError::Read {
        path: path.to_owned(),
        source,
    })
}

fn decode(reader: &Reader<'_>, layout: &Layout) -> Result<Checkpoint, CheckpointError> {
    let saved = match reader.metadata()? {
        None => None,
        Some(Metadata {
            run,
            digest: DigestOf::State(digest),
        }) => Some((run, digest)),
        Some(Metadata {
            digest: DigestOf::Averages(_),
            ..
        }) => {
            let path = reader.path.to_owned();
            return Err(CheckpointError::AveragesAlone { path });
        }
    };
    let state = TrainingState {
        global_step: reader.global_step()?,
        variables: reader.values(layout, "")?,
        averages: reader.values(layout, AVERAGE_SUFFIX)?,
    };
    if let Some((_, expected)) = &saved {
        reader.check(state.digest(), *expected)?;
    }
    let run = saved.map(|(run, _)| run);
    Ok(Checkpoint { state, run })
}

struct Reader<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    /// The text under [`METADATA_KEY`].
    metadata: Option<String>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self, CheckpointError> {
        let format_error = |source| CheckpointError::Format {
            path: path.to_owned(),
            source,
        };
        let tensors = SafeTensors::deserialize(bytes).map_err(format_error)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(format_error)?;
        let metadata = header.metadata().as_ref();
        let metadata = metadata.and_then(|texts| texts.get(METADATA_KEY).cloned());
        Ok(Reader {
            path,
            tensors,
            metadata,
        })
    }

    fn metadata(&self) -> Result<Option<Metadata>, CheckpointError> {
        let text = self.metadata.as_deref();
        let metadata = text.map(serde_json::from_str).transpose();
        metadata.map_err(|source| CheckpointError::Metadata {
            path: self.path.to_owned(),
            source,
        })
    }

    /// All variables of the layout, by their names with `suffix`.
    fn values(&self, layout: &Layout, suffix: &str) -> Result<Values, CheckpointError> {
        let mut values = Values::zeros(layout.num_values());
        for (spec, range) in layout.iter() {
            let name = format!("{}{suffix}", spec.name);
            self.copy(&name, &spec.shape, &mut values[range])?;
        }
        Ok(values)
    }

    fn check(&self, found: StateDigest, expected: StateDigest) -> Result<(), CheckpointError> {
        if found == expected {
            return Ok(());
        }
        Err(CheckpointError::Damaged {
            path: self.path.to_owned(),
            found,
            expected,
        })
    }

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
        match to.iter().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(CheckpointError::NotFinite {
                path: self.path.to_owned(),
                name: name.to_owned(),
            }),
        }
    }

    fn global_step(&self) -> Result<GlobalStep, CheckpointError> {
        let tensor = self.tensor("global_step", Dtype::I64, &[])?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(tensor.data());
        let found = i64::from_le_bytes(bytes);
        let path = || self.path.to_owned();
        let found = u64::try_from(found).map(GlobalStep);
        let found = found.map_err(|_| CheckpointError::Step {
            path: path(),
            found: i64::from_le_bytes(bytes),
        })?;
        match step_of(self.path).is_none_or(|step| step == found) {
            true => Ok(found),
            false => Err(CheckpointError::Misnamed {
                path: path(),
                found,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pserver_run::DataSet;

    use super::*;
    use pserver_run::layout::{Initializer, VariableSpec};

    fn layout() -> Layout {
        let variable = |name: &str, shape: &[usize]| VariableSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initializer: Initializer::Constant(0.0),
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
            data: DataSet::Cifar10,
            initial_digest: state(0).digest(),
            ..RunConfig::example()
        }
    }

    #[test]
    fn a_device_without_end_is_no_checkpoint() {
        let error = load(Path::new("/dev/zero"), &layout()).unwrap_err();
        assert!(matches!(error, CheckpointError::Read { .. }), "{error}");
    }

    #[test]
    fn averages_alone_can_be_scored_and_nothing_else() {
        let (whole, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = save(whole.path(), &layout(), &state(12), &run()).unwrap();
        let averages = load_scorable(&path, &layout(), ScoredVariables::Averages).unwrap();
        assert_eq!(averages.values, state(12).averages);

        let path = save_averages(alone.path(), &layout(), &averages).unwrap();
        let again = load_scorable(&path, &layout(), ScoredVariables::Averages).unwrap();
        assert_eq!(again.values, averages.values);
        assert_eq!(again.global_step, GlobalStep(12));
        assert_eq!(again.run, Some(run()));
        let error = load(&path, &layout()).unwrap_err();
        assert!(
            matches!(error, CheckpointError::AveragesAlone { .. }),
            "{error}"
        );

        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = load_scorable(&path, &layout(), ScoredVariables::Averages).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{error}");
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
    fn only_what_can_be_loaded_is_the_newest_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let good = save(dir.path(), &layout(), &state(5), &run()).unwrap();
        fs::write(path_of(dir.path(), GlobalStep(9)), "").unwrap();
        fs::copy(&good, path_of(dir.path(), GlobalStep(1000))).unwrap();
        let mut passed_over = Vec::new();
        let load = |path: &Path| load(path, &layout());
        let found = newest(dir.path(), load, |_, error| {
            passed_over.push(error.to_string());
        });
        assert_eq!(found.unwrap().unwrap().state, state(5));
        assert!(
            passed_over[0]
                .ends_with("model.ckpt-1000.safetensors holds the checkpoint of step 5; give it the name of that step"),
            "{passed_over:?}"
        );
        assert!(passed_over[1].ends_with("model.ckpt-9.safetensors is no whole safetensors file"));
    }

    #[test]
    fn a_value_that_is_not_finite_is_refused_by_file_and_variable() {
        let (dir, layout) = (tempfile::tempdir().unwrap(), layout());
        for (value, of) in [(f32::NAN, "a/biases"), (f32::NEG_INFINITY, "a/weights")] {
            let mut bad = state(3);
            let (_, range) = layout.iter().find(|(spec, _)| spec.name == of).unwrap();
            bad.averages[range.start] = value;
            let path = save(dir.path(), &layout, &bad, &run()).unwrap();
            for variables in [ScoredVariables::Averages, ScoredVariables::Raw] {
                let error = load_scorable(&path, &layout, variables).unwrap_err();
                let name = format!("{of}{AVERAGE_SUFFIX} of {}", path.display());
                assert!(error.to_string().starts_with(&name), "{error}");
            }
            assert!(load(&path, &layout).is_err());
        }
    }

    #[test]
    fn a_checkpoint_of_another_model_is_refused_by_the_tensors_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = save(dir.path(), &layout(), &state(1), &run()).unwrap();
        let error = load(&path, &Layout::example()).unwrap_err().to_string();
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
            let read = Reader::new(Path::new("x"), &bytes).and_then(|reader| decode(&reader, &layout()));
            if let Ok(loaded) = read {
                // What is left undetected may lie in the metadata's text, never in the numbers.
                prop_assert_eq!(loaded.state, state(5));
            }
        }
    }
}
