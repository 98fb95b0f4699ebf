//! Files as the programs find them, good and bad.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::{env, io};

use pserver_run::{GlobalStep, data_set::CIFAR10_FILES};
use pserver_state::checkpoint::{self, AVERAGE_SUFFIX};
use safetensors::tensor::{Dtype, TensorView};

/// The folder that the real data set is in, if this machine has it.
pub(crate) fn cifar10_data_dir() -> Option<String> {
    let data_dir = env::var("CIFAR10_DATA_DIR").ok();
    let data_dir = data_dir.filter(|path| !path.is_empty());
    if data_dir.is_none() {
        eprintln!("skipped on CIFAR-10: CIFAR10_DATA_DIR is not set");
    }
    data_dir
}

/// Names in a folder, sorted; none where there is no folder.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.expect("the folder can be read").file_name();
            name.into_string().expect("the programs use plain names")
        })
        .collect();
    names.sort();
    names
}

/// Changes the last byte.
pub(crate) fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("the file is there");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(path, bytes).expect("the file can be written");
}

/// Bytes of each file of CIFAR-10, and of a record in it.
pub(crate) const CIFAR10_FILE_BYTES: u64 = 30_730_000;
pub(crate) const RECORD_BYTES: u64 = 3073;

/// Six files of the names and sizes of CIFAR-10's that hold black images of class 0, the first of
/// them changed by `change`.
pub(crate) fn write_black_cifar10(data_dir: &Path, change: impl Fn(&File) -> io::Result<()>) {
    let folder = data_dir.join("cifar-10-batches-bin");
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        for (name, _) in CIFAR10_FILES {
            // A file that is all hole takes no room on the disk.
            File::create(folder.join(name))?.set_len(CIFAR10_FILE_BYTES)?;
        }
        let first = folder.join(CIFAR10_FILES[0].0);
        change(&File::options().write(true).open(first)?)
    };
    write().expect("there is room for six empty files");
}

/// Puts `label` where the label of record `record` is.
pub(crate) fn write_label(file: &File, record: u64, label: u8) -> io::Result<()> {
    file.write_all_at(&[label], record * RECORD_BYTES)
}

/// Writes a checkpoint as another program would, without metadata, and so that scores are known:
/// whatever the image, its variables say `class_of_variables` and their averages
/// `class_of_averages`.
pub(crate) fn write_opinionated_checkpoint(
    dir: &Path,
    step: u64,
    class_of_variables: usize,
    class_of_averages: usize,
) {
    write_foreign_checkpoint(dir, step, |name, mut values| {
        let class = match name.strip_suffix(AVERAGE_SUFFIX) {
            Some(_) => class_of_averages,
            None => class_of_variables,
        };
        if name.starts_with("softmax_linear/biases") {
            values[class] = 1.0;
        }
        values
    });
}

/// Writes a checkpoint of finite numbers that the network overflows with, whatever the image.
pub(crate) fn write_exploding_checkpoint(dir: &Path, step: u64) {
    write_foreign_checkpoint(dir, step, |_, values| vec![1e30; values.len()]);
}

/// Writes a checkpoint without metadata: zeros, except where `fill` has something else to say. A
/// tensor that it makes smaller becomes flat.
pub(crate) fn write_foreign_checkpoint(
    dir: &Path,
    step: u64,
    fill: impl Fn(&str, Vec<f32>) -> Vec<f32>,
) {
    let mut tensors = vec![(
        "global_step".to_owned(),
        Dtype::I64,
        Vec::new(),
        step.to_le_bytes().to_vec(),
    )];
    for spec in cifar_model::layout().specs() {
        for suffix in ["", AVERAGE_SUFFIX] {
            let name = format!("{}{suffix}", spec.name);
            let values = fill(&name, vec![0.0; spec.num_values()]);
            let shape = match values.len() == spec.num_values() {
                true => spec.shape.clone(),
                false => vec![values.len()],
            };
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            tensors.push((name, Dtype::F32, shape, bytes));
        }
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name, view.expect("each shape is that of its bytes"))
    });
    let file = safetensors::serialize(views, None).expect("the tensors are sound");
    fs::create_dir_all(dir).expect("the folder can be made");
    let path = checkpoint::path_of(dir, GlobalStep(step));
    fs::write(path, file).expect("there is room for a checkpoint");
}
