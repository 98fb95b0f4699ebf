//! `cargo xtask train [ARGS...]`: builds the programs and becomes the launcher, `cifar-train`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::command::say;
use crate::setup;
use crate::workspace::Workspace;

/// The packages of all programs for users: those that the launcher starts it finds beside itself.
const PACKAGES: [&str; 4] = ["cifar-ps", "cifar-worker", "cifar-train", "cifar-data"];

/// The arguments are the launcher's, `--help` included.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Handed to cifar-train as they are; `--help` lists them
    #[arg(
        value_name = "ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    launcher: Vec<std::ffi::OsString>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    setup::run(workspace)?;
    say!("building the programs; the first time this takes minutes");
    let programs = workspace.build_release(&PACKAGES)?;
    let launcher = programs
        .get("cifar-train")
        .context("cargo built no program cifar-train")?;

    // The launcher takes this process over, so that its signals, its terminal and its exit code
    // need no passing on.
    let error = Command::new(launcher).args(&args.launcher).exec();
    Err(error).with_context(|| format!("cannot start {}", launcher.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The README's table of them says that they are there after this.
    #[test]
    fn the_programs_of_the_readme_are_built() {
        let readme = include_str!("../../../../README.md");
        let table = readme.split("| program | does |").nth(1).unwrap();
        let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
        let names: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        assert!(names.contains(&"cifar-ps"), "{names:?}");
        for name in names {
            // cifar-eval is the other program of cifar-worker.
            let is_built = name == "cifar-eval" || PACKAGES.contains(&name);
            assert!(is_built, "{name}");
        }
    }
}
