//! `cargo xtask bench`: how fast this project is on this machine, and its peers beside it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::command::say;
use crate::old_build::OldBuild;
use crate::peers::{Environment, TENSORFLOW, TORCH};
use crate::setup;
use crate::workspace::Workspace;

/// The program that measures, and those that it measures, which it finds beside itself.
const PACKAGES: [&str; 3] = ["cifar-ps", "cifar-worker", "cifar-bench"];

/// Measure in turns (A B C A B C ...), print tables of medians, and keep them in a folder below docs/runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each row is measured
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: u32,

    /// For how long each time
    #[arg(long, default_value_t = 20.0, value_name = "SECS")]
    seconds: f64,

    /// Make the peers' Python environments first, where they are missing: 6.5 GB
    #[arg(long)]
    peers: bool,

    /// Rows whose names hold one of these words, such as `ours,ddp`
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,

    /// Build this older commit too, measure it beside these sources, and tell the ratios
    #[arg(long, value_name = "REVISION")]
    against: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    setup::run(workspace)?;
    if args.peers {
        TORCH.make(workspace)?;
        TENSORFLOW.make(workspace)?;
    }
    say!("building the programs; the first time this takes minutes");
    let programs = workspace.build_release(&PACKAGES)?;
    let bench = programs
        .get("cifar-bench")
        .context("cargo built no program cifar-bench")?;
    let against = args.against.as_ref();
    let old = against.map(|revision| OldBuild::make(workspace, revision, &PACKAGES));
    let old = old.transpose()?;

    let mut command = Command::new(bench);
    command
        .args(["compare", "--rounds", &args.rounds.to_string()])
        .args(["--seconds", &args.seconds.to_string()])
        .args(
            args.only
                .iter()
                .flat_map(|words| ["--only", words.as_str()]),
        )
        .arg("--peer-scripts")
        .arg(workspace.peers())
        .arg("--runs")
        .arg(workspace.runs());
    if let Some(old) = &old {
        command.arg("--against").arg(&old.programs);
        command.args(["--old", &old.commit]);
    }
    add_python(&mut command, workspace, "--torch-python", &TORCH);
    add_python(&mut command, workspace, "--tensorflow-python", &TENSORFLOW);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", bench.display()))
}

/// Says where an environment is, or that its rows are left out.
fn add_python(command: &mut Command, workspace: &Workspace, flag: &str, of: &Environment) {
    match of.python(workspace) {
        Some(python) => {
            command.arg(flag).arg(python);
        }
        None => say!(
            "there is no environment with {}: its rows are left out; --peers makes it",
            of.title
        ),
    }
}
