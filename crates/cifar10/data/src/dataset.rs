//! A whole data set in memory: where the way of a batch begins.

use std::path::Path;

use pserver_run::DataSet;

use crate::error::DataError;
use crate::manifest::Manifest;
use crate::obtain::{WhenAbsent, obtain};
use crate::record::{Record, Records};
use crate::split::Split;
use crate::synthetic;

/// All records of a data set: 184 MB for CIFAR-10.
///
/// Read-only once opened; threads share it in an `Arc`.
#[derive(Clone, Debug)]
pub struct Dataset {
    data_set: DataSet,
    train: Records,
    test: Records,
}

impl Dataset {
    /// Opens `data_set`, with CIFAR-10 in the folder `cifar-10-batches-bin` of `data_dir`.
    ///
    /// Every byte is checked: two datasets of equal [`DataSet::digest`] hold equal records. A
    /// synthetic set is drawn and touches no file.
    ///
    /// Blocks for as long as a download takes; not to be called from an async task.
    ///
    /// # Errors
    ///
    /// As [`obtain`].
    pub fn open(
        data_set: DataSet,
        data_dir: &Path,
        when_absent: &WhenAbsent,
    ) -> Result<Self, DataError> {
        let dataset = match data_set {
            DataSet::Cifar10 => {
                let splits = obtain(&Manifest::cifar10(), data_dir, when_absent)?;
                Dataset {
                    data_set,
                    train: splits.train,
                    test: splits.test,
                }
            }
            DataSet::Synthetic { .. } => Self::synthetic(data_set),
        };
        tracing::info!(
            data = %data_set,
            train_examples = dataset.train.len(),
            test_examples = dataset.test.len(),
            "data set is open"
        );
        Ok(dataset)
    }

    fn synthetic(data_set: DataSet) -> Self {
        Dataset {
            data_set,
            train: synthetic::draw(Split::Train, data_set.num_train_examples()),
            test: synthetic::draw(Split::Test, data_set.num_test_examples()),
        }
    }

    /// Which set this is.
    #[must_use]
    pub fn data_set(&self) -> DataSet {
        self.data_set
    }

    /// The records of one half.
    #[must_use]
    pub fn records(&self, split: Split) -> &Records {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    /// Training example `index`, in file order.
    ///
    /// # Panics
    ///
    /// If there is none of that index.
    #[must_use]
    pub fn train(&self, index: usize) -> Record<'_> {
        self.train.get(index)
    }

    /// Test example `index`, in file order.
    ///
    /// # Panics
    ///
    /// If there is none of that index.
    #[must_use]
    pub fn test(&self, index: usize) -> Record<'_> {
        self.test.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_has_the_sizes_its_name_promises() {
        let data_set: DataSet = "synthetic:37".parse().unwrap();
        let dataset = Dataset::open(data_set, Path::new("unused"), &WhenAbsent::Fail).unwrap();
        assert_eq!(dataset.records(Split::Train).len(), 37);
        assert_eq!(dataset.records(Split::Test).len(), 7);
        assert_eq!(dataset.data_set(), data_set);
    }
}
