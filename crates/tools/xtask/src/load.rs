//! `cargo xtask load`: what a server costs with 1, 2, 4 and so on workers that compute nothing.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::setup;
use crate::workspace::Workspace;

/// The program that plays the workers, and the server, which it finds beside itself.
const PACKAGES: [&str; 2] = ["cifar-ps", "cifar-bench"];

/// Show how the cost of a server grows with its workers: a table, and the same as JSON on stdout.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Most workers; measured are 1, 2, 4 and so on up to this many
    #[arg(long, default_value_t = 64, value_name = "N")]
    workers: u32,

    /// For how long each
    #[arg(long, default_value_t = 8.0, value_name = "SECS")]
    seconds: f64,

    /// Measure two workers instead, while 16 connections read all they can
    #[arg(long, conflicts_with = "workers")]
    readers: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    setup::run(workspace)?;
    let programs = workspace.build_release(&PACKAGES)?;
    let bench = programs
        .get("cifar-bench")
        .context("cargo built no program cifar-bench")?;
    let mut command = Command::new(bench);
    match args.readers {
        true => command.arg("readers"),
        false => command.args(["load", "--workers", &args.workers.to_string()]),
    };
    let error = command
        .args(["--seconds", &args.seconds.to_string()])
        .exec();
    Err(error).with_context(|| format!("cannot start {}", bench.display()))
}
