//! `cargo xtask record`: a folder below `docs/runs` that shows a training run, made from its train dir.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::setup;
use crate::workspace::Workspace;

/// The arguments are those of `cifar-bench record`, `--help` included.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Handed to cifar-bench as they are; `--help` lists them
    #[arg(
        value_name = "ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    setup::run(workspace)?;
    let programs = workspace.build_release(&["cifar-bench"])?;
    let bench = programs
        .get("cifar-bench")
        .context("cargo built no program cifar-bench")?;
    let error = Command::new(bench)
        .arg("record")
        .args(&args.arguments)
        .exec();
    Err(error).with_context(|| format!("cannot start {}", bench.display()))
}
