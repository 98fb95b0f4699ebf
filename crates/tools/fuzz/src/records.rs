//! Records of CIFAR-10, and the folder that they are read from.

use std::fs;

use cifar_data::distort::{self, Distortion, IMAGE_VALUES};
use cifar_data::manifest::{Manifest, RecordFile};
use cifar_data::obtain::{self, WhenAbsent};
use cifar_data::record::{NUM_CLASSES, RECORD_BYTES, Records};
use cifar_data::{DataError, Sha256Digest};

use crate::pieces::pieces;
use crate::scratch;

/// The bytes of a file of records.
///
/// What is taken is whole records of ten classes, which give the same bytes again, and images of finite
/// numbers.
pub fn records(bytes: &[u8]) {
    let Ok(records) = Records::new(bytes.to_vec()) else {
        return;
    };
    assert_eq!(records.len() * RECORD_BYTES, bytes.len());
    let mut again = Vec::with_capacity(bytes.len());
    for record in records.iter() {
        assert!(record.label() < NUM_CLASSES);
        again.push(record.label());
        (0..3).for_each(|channel| again.extend_from_slice(record.plane(channel)));
        let mut image = [0.0; IMAGE_VALUES];
        distort::central_crop(record, &mut image);
        assert!(image.iter().all(|value| value.is_finite()));
        let distortion = Distortion::draw(1, 0, u32::from(record.plane(0)[0]));
        distort::distort(record, &distortion, &mut image);
        assert!(image.iter().all(|value| value.is_finite()));
    }
    assert_eq!(again, bytes);
}

/// Names of the files in [`data_folder`], the last for testing.
const FILES: [&str; 2] = ["data_batch_1.bin", "test_batch.bin"];

/// The files of a data set's folder, in pieces, after a byte that says whether they are the published
/// ones.
///
/// A set is opened if and only if both files are there, have a record each of one of ten classes, and are
/// the published ones; then its records are their bytes.
pub fn data_folder(bytes: &[u8]) {
    let Some((is_published, files)) = bytes.split_first() else {
        return;
    };
    let is_published = is_published % 2 == 0;
    let files: Vec<&[u8]> = pieces(files).take(FILES.len()).collect();
    let data_dir = scratch::folder();
    let manifest = manifest(|index| match files.get(index) {
        Some(file) if is_published => Sha256Digest::of(file),
        _ => Sha256Digest([0; 32]),
    });
    let folder = data_dir.path().join(manifest.folder);
    fs::create_dir(&folder).expect("a folder can be made");
    for (name, bytes) in FILES.iter().zip(&files) {
        fs::write(folder.join(name), bytes).expect("a file can be written");
    }
    let is_good =
        |file: &&[u8]| file.len() == RECORD_BYTES && file[0] < NUM_CLASSES && is_published;
    let are_good = files.len() == FILES.len() && files.iter().all(is_good);
    match obtain::obtain(&manifest, data_dir.path(), &WhenAbsent::Fail) {
        Ok(splits) => {
            assert!(are_good);
            assert_eq!(splits.train, Records::new(files[0].to_vec()).expect("good"));
            assert_eq!(splits.test, Records::new(files[1].to_vec()).expect("good"));
        }
        Err(error) => {
            assert!(!are_good, "{error}");
            assert!(!matches!(error, DataError::Absent { .. }), "{error}");
        }
    }
}

/// A set of two files of one record each.
pub(crate) fn manifest(sha256: impl Fn(usize) -> Sha256Digest) -> Manifest {
    let file = |index: usize| RecordFile {
        name: FILES[index].to_owned(),
        num_records: 1,
        sha256: sha256(index),
    };
    Manifest {
        train: vec![file(0)],
        test: vec![file(1)],
        ..Manifest::cifar10()
    }
}
