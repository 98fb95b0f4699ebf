//! `main` of cifar-bench.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use pserver_cli::args::number_of_seconds;
use pserver_cli::console::{self, say};
use pserver_cli::exit::{Exit, Failure};

use crate::compare::{self, CompareArgs};
use crate::lone_worker::{self, LoneArgs};
use crate::training::{self, TrainingArgs};
use crate::transport::{self, TransportArgs};
use crate::{apply, load, machine, readers, record};

/// Measures this project and its peers on this machine. Results go to stdout, each one line of JSON.
#[derive(Clone, Debug, Parser)]
#[command(name = "cifar-bench", version = pserver_cli::VERSION)]
pub struct Args {
    /// What to measure.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Everything, in turns; writes a folder with tables and prints them (cargo xtask bench)
    Compare(CompareArgs),
    /// A server with 1, 2, 4 and so on workers that compute nothing (cargo xtask load)
    Load(load::LoadArgs),
    /// The same while readers take all they can (cargo xtask load --readers)
    Readers(readers::ReadersArgs),
    /// A server and its workers
    Training(TrainingArgs),
    /// A worker without a server
    Lone(LoneArgs),
    /// A push and a pull where nothing is computed
    Transport(TransportArgs),
    /// Nothing: makes the record of a training run out of its train dir (cargo xtask record)
    Record(record::RecordArgs),
    /// The update of two towers, alone, and a copy of as many bytes
    Apply {
        /// For how long
        #[arg(long, default_value_t = 3.0, value_name = "SECS", value_parser = number_of_seconds)]
        seconds: f64,
    },
    /// How fast this machine multiplies matrices and copies memory
    Machine {
        /// For how long
        #[arg(long, default_value_t = 3.0, value_name = "SECS", value_parser = number_of_seconds)]
        seconds: f64,
    },
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    console::report("cifar-bench", run(&Args::parse().verb))
}

fn run(verb: &Verb) -> Result<Exit, Failure> {
    let result = match verb {
        Verb::Compare(args) => compare::compare(args)?,
        Verb::Load(args) => {
            let loads = load::measure(args)?;
            say(loads.to_string().trim_end());
            serde_json::to_string(&loads)?
        }
        Verb::Readers(args) => {
            let costs = readers::measure(args)?;
            say(costs.to_string().trim_end());
            serde_json::to_string(&costs)?
        }
        Verb::Training(args) => serde_json::to_string(&training::measure(args)?)?,
        Verb::Lone(args) => serde_json::to_string(&lone_worker::measure(args)?)?,
        Verb::Transport(args) => serde_json::to_string(&transport::measure(args)?)?,
        Verb::Record(args) => record::record(args)?,
        Verb::Apply { seconds } => {
            let time = Duration::from_secs_f64(*seconds);
            serde_json::to_string(&apply::measure(time)?)?
        }
        Verb::Machine { seconds } => {
            let time = Duration::from_secs_f64(*seconds);
            serde_json::to_string(&machine::measure(time)?)?
        }
    };
    writeln!(io::stdout(), "{}", result.trim_end())?;
    Ok(Exit::Complete)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
