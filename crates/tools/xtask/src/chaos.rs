//! `cargo xtask chaos`: a run in which something dies again and again must come to the same bits.

use crate::command::{self, say};
use crate::setup;
use crate::workspace::Workspace;

/// Kill servers and workers at random, for as long as you like, and compare the bits.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For how long; then follows an undisturbed run of as many steps
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES")]
    minutes: f64,

    /// Which faults, in which order
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    setup::run(workspace)?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "-p", "cifar-tests", "--test", "it"])
        .args(["--", "chaos", "--nocapture"])
        .env("CIFAR_CHAOS_MINUTES", args.minutes.to_string())
        .env("CIFAR_CHAOS_SEED", args.seed.to_string());
    say!("==> {}", command::shown(&cargo));
    command::run(&mut cargo, "the seed above repeats the faults")
}
