//! `cargo xtask`: from a fresh clone to a trained model, in one command.
//!
//! Fetches libtorch, calls cargo and starts the programs it built. It takes nothing but a Rust
//! toolchain, a C++ compiler and Python with pip, and says so where one of them is missing. It does
//! no arithmetic of its own and links none of the project's crates, so that it builds in seconds.
//!
//! What people read goes to stderr; stdout belongs to the program that is started.
//!
//! To add a verb: a file with its arguments and its `run`, a variant of [`Verb`], an arm in [`run`].

mod bench;
mod chaos;
mod fuzz;
mod load;
mod mutants;
mod record;
mod same_bits;
mod setup;
mod simulate;
mod test;
mod train;

mod command;
mod libtorch;
mod old_build;
mod peers;
mod prerequisites;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::command::CommandFailed;
use crate::workspace::Workspace;

#[cfg(not(unix))]
compile_error!(
    "this project builds on x86-64 Linux; on Windows use the Windows Subsystem for Linux"
);

/// From a fresh clone to a trained model.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make libtorch available to cargo; `train` and `test` begin with it too
    Setup,
    /// Build the programs and train on this machine
    Train(train::Args),
    /// Check everything: format, lints, tests, documentation, dependencies
    Test,
    /// Kill servers and workers at random and compare the bits
    Chaos(chaos::Args),
    /// Simulate whole runs while everything fails that can
    Simulate(simulate::Args),
    /// Put faults into the server and see that the simulation finds each
    Mutants(mutants::Args),
    /// Look for bytes that do harm in a decoder
    Fuzz(fuzz::Args),
    /// Measure training, the server and its peers in turns
    Bench(bench::Args),
    /// Measure a server with up to many workers that compute nothing
    Load(load::Args),
    /// Train with an older build and with this one, and compare the bits
    SameBits(same_bits::Args),
    /// Make the record of a training run out of its train dir
    Record(record::Args),
}

fn main() -> ExitCode {
    let Args { verb } = Args::parse();
    match run(verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::say!("xtask: {error:#}");
            let failed = error.downcast_ref::<CommandFailed>();
            failed.map_or(ExitCode::FAILURE, CommandFailed::exit_code)
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    let workspace = Workspace::find();
    match verb {
        Verb::Setup => setup::run(&workspace),
        Verb::Train(args) => train::run(&workspace, &args),
        Verb::Test => test::run(&workspace),
        Verb::Chaos(args) => chaos::run(&workspace, &args),
        Verb::Simulate(args) => simulate::run(&workspace, &args),
        Verb::Mutants(args) => mutants::run(&workspace, &args),
        Verb::Fuzz(args) => fuzz::run(&workspace, &args),
        Verb::Bench(args) => bench::run(&workspace, &args),
        Verb::Load(args) => load::run(&workspace, &args),
        Verb::SameBits(args) => same_bits::run(&workspace, &args),
        Verb::Record(args) => record::run(&workspace, &args),
    }
}
