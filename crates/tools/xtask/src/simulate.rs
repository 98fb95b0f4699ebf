//! `cargo xtask simulate`: whole runs over a simulated network, many of them.

use crate::command;
use crate::workspace::Workspace;

/// cargo's arguments for the simulation of runs from seeds.
pub(crate) const SIMULATION: [&str; 7] = [
    "test",
    "--release",
    "--package",
    "pserver-server",
    "--test",
    "sim",
    "whatever_happens",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds, from 0 on
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    seeds: u64,

    /// This seed alone, to repeat a failure
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo
        .args(SIMULATION)
        .args(["--", "--nocapture"])
        .env_remove("CIFAR_SIM_SEED")
        .env("CIFAR_SIM_SEEDS", args.seeds.to_string());
    if let Some(seed) = args.seed {
        cargo.env("CIFAR_SIM_SEED", seed.to_string());
    }
    command::run(
        &mut cargo,
        "`cargo xtask simulate --seed` with the seed named above repeats the failure",
    )
}
