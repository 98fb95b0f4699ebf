//! `main` of cifar-data: gets the data set onto the disk, checks it, and ends.
//!
//! Workers do the same by themselves. This is for the step before them, where the folder is filled for
//! processes that cannot write it, or that reach no other network.

use std::process::ExitCode;

use clap::Parser;
use pserver_cli::args;
use pserver_cli::console;
use pserver_cli::exit::{Exit, Failure, OrExit};
use pserver_cli::logging::{self, LogArgs};
use pserver_cli::signals;
use pserver_run::DataSet;
use tracing::info;

use crate::args::DataArgs;
use crate::split::Split;

/// Gets the data set of a run into a folder and checks it, so that workers and evaluators find it
/// there.
///
/// Where it is already, it is only checked. Any number of these may be started for the same folder:
/// one fetches, the others wait for it.
#[derive(Clone, Debug, Parser)]
#[command(name = "cifar-data", version = pserver_cli::VERSION)]
pub struct Args {
    /// cifar10, synthetic or synthetic:N, which need no folder
    #[arg(long, default_value = "cifar10", value_name = "SET")]
    pub data: DataSet,

    /// Where the data set is to be.
    #[command(flatten)]
    pub data_args: DataArgs,

    /// Where logs go and what is in them.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    console::report("cifar-data", run(&args::parse()))
}

fn run(args: &Args) -> Result<Exit, Failure> {
    logging::init(&args.log).or_exit(Exit::Usage)?;
    signals::end_when_asked()?;
    let dataset = args.data_args.open_or_exit(args.data)?;
    info!(
        data = %args.data,
        folder = %args.data_args.data_dir.display(),
        train_examples = dataset.records(Split::Train).len(),
        test_examples = dataset.records(Split::Test).len(),
        "data set is there"
    );
    Ok(Exit::Complete)
}
