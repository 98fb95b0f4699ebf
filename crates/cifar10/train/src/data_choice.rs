//! What to train on.

use std::path::Path;
use std::str::FromStr;

use cifar_data::args::DataArgs;
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_run::{DataSet, data_set::UnknownDataSet};
use pserver_state::checkpoint;
use tracing::warn;

use crate::flags::Flags;

/// What the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataChoice {
    /// CIFAR-10 if it can be had, else the synthetic set.
    Auto,
    /// This set and no other.
    Set(DataSet),
}

impl FromStr for DataChoice {
    type Err = UnknownDataSet;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name == "auto" {
            Ok(DataChoice::Auto)
        } else {
            name.parse().map(DataChoice::Set)
        }
    }
}

/// The flag with which the server is told what to train on; makes sure that the set is there.
///
/// A run that is in the train dir already keeps its set under `auto`.
///
/// # Errors
///
/// A [`Failure`] if the set that was asked for cannot be had, or is damaged.
pub fn server_flags(
    choice: DataChoice,
    train_dir: &Path,
    fresh: bool,
    args: &DataArgs,
) -> Result<Flags, Failure> {
    match choice {
        DataChoice::Set(data_set) => {
            prepare(data_set, args)?;
            Ok(Flags::default().set("data", data_set.to_string()))
        }
        DataChoice::Auto => {
            let of_run = if fresh { None } else { data_of_run(train_dir)? };
            let data_set = match of_run {
                Some(data_set) => prepare(data_set, args).map(|()| data_set)?,
                None => cifar10_or_synthetic(args)?,
            };
            Ok(Flags::default().set("default-data", data_set.to_string()))
        }
    }
}

/// What the run in the train dir trains on, if one is there.
fn data_of_run(train_dir: &Path) -> Result<Option<DataSet>, Failure> {
    let layout = cifar_model::layout();
    let load = |path: &Path| checkpoint::load(path, &layout);
    // A damaged one is the server's to report.
    let newest = checkpoint::newest(train_dir, load, |_, _| {}).or_exit(Exit::Disk)?;
    Ok(newest.and_then(|newest| newest.run).map(|run| run.data))
}

fn cifar10_or_synthetic(args: &DataArgs) -> Result<DataSet, Failure> {
    match args.open(DataSet::Cifar10) {
        Ok(_) => Ok(DataSet::Cifar10),
        Err(error) if error.exit() == Exit::TryAgain => {
            warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                path = %args.data_dir.display(),
                "CIFAR-10 cannot be had; trains on the SYNTHETIC set instead, whose precision says nothing \
                 about CIFAR-10. Put it into this folder for the real thing"
            );
            Ok("synthetic".parse().expect("there is a set of this name"))
        }
        Err(error) => Err(Failure::new(error.exit(), error)),
    }
}

/// Fetches and checks the set, so that one process does so before many need it.
fn prepare(data_set: DataSet, args: &DataArgs) -> Result<(), Failure> {
    match data_set {
        DataSet::Cifar10 => args.open_or_exit(data_set).map(drop),
        DataSet::Synthetic { .. } => Ok(()),
    }
}
