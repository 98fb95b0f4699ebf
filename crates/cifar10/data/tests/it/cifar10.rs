//! Is it really CIFAR-10? Runs where `CIFAR10_DATA_DIR` names a folder that has it.

use std::path::PathBuf;

use cifar_data::record::PLANE_BYTES;
use cifar_data::{Dataset, Split, WhenAbsent};
use pserver_run::DataSet;

/// The real set, if this machine has it.
fn cifar10() -> Option<Dataset> {
    let data_dir = std::env::var_os("CIFAR10_DATA_DIR").filter(|path| !path.is_empty());
    let Some(data_dir) = data_dir else {
        eprintln!("skipped: CIFAR10_DATA_DIR is not set");
        return None;
    };
    let data_dir = PathBuf::from(data_dir);
    Some(Dataset::open(DataSet::Cifar10, &data_dir, &WhenAbsent::Fail).unwrap())
}

#[test]
fn labels_and_colours_are_the_published_ones() {
    let Some(dataset) = cifar10() else { return };
    let labels = |split| -> Vec<u8> {
        let records = dataset.records(split).iter().take(10);
        records.map(|record| record.label()).collect()
    };
    assert_eq!(labels(Split::Train), [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]);
    assert_eq!(labels(Split::Test), [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]);
    assert_eq!(dataset.records(Split::Train).len(), 50_000);
    assert_eq!(dataset.records(Split::Test).len(), 10_000);
    // The means that everyone who normalizes CIFAR-10 by channel uses, given to four digits.
    for (channel, expected) in [0.4914, 0.4822, 0.4465].into_iter().enumerate() {
        let plane_sum = |plane: &[u8]| plane.iter().map(|x| u64::from(*x)).sum::<u64>();
        let records = dataset.records(Split::Train).iter();
        let sum: u64 = records.map(|record| plane_sum(record.plane(channel))).sum();
        let mean = sum as f64 / (50_000 * PLANE_BYTES) as f64 / 255.0;
        assert!(
            (mean - expected).abs() < 5.1e-5,
            "channel {channel}: {mean}"
        );
    }
}
