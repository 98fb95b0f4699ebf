//! `cargo xtask same-bits REVISION`: whether these sources train to the same bits as an older commit.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::command::{self, say};
use crate::old_build::OldBuild;
use crate::setup;
use crate::workspace::Workspace;

/// The launcher, and the programs that it finds beside itself.
const PACKAGES: [&str; 3] = ["cifar-ps", "cifar-worker", "cifar-train"];

/// Steps of a run.
const STEPS: u32 = 60;

/// Where a run of the older build is left for the newer to go on with.
const HALF_WAY: u32 = 30;

/// Flags that lead to other code.
const RUNS: [(&str, &[&str]); 6] = [
    (
        "winograd over shared memory",
        &["--workers=2", "--data-plane=shm"],
    ),
    (
        "winograd over the wire",
        &["--workers=2", "--data-plane=wire"],
    ),
    ("direct", &["--workers=2", "--kernels=direct"]),
    ("torch", &["--workers=2", "--kernels=torch"]),
    (
        "a quorum, of one worker",
        &["--workers=1", "--towers=2", "--replicas-to-aggregate=1"],
    ),
    (
        "asynchronous, of one worker",
        &["--workers=1", "--towers=2", "--mode=async"],
    ),
];

/// Train with an older build and with this one, in several ways, and compare the bits; then have this one go on with
/// a run that the older has begun.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The older commit, by any name that git knows it by
    #[arg(value_name = "REVISION")]
    old: String,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    setup::run(workspace)?;
    let old = OldBuild::make(workspace, &args.old, &PACKAGES)?;
    let programs = workspace.build_release(&PACKAGES)?;
    let launcher = programs
        .get("cifar-train")
        .context("cargo built no program cifar-train")?;
    let builds = [old.programs.join("cifar-train"), launcher.clone()];
    let folder = workspace.root().join("target/same-bits");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }

    let mut others = Vec::new();
    for (name, flags) in RUNS {
        let train_dirs = ["old", "new"].map(|build| folder.join(name).join(build));
        for (launcher, train_dir) in builds.iter().zip(&train_dirs) {
            train(launcher, train_dir, STEPS, flags)?;
        }
        let [of_old, of_new] = &train_dirs;
        others.extend(difference(&programs["cifar-ps"], of_old, of_new, name)?);
    }

    let name = "the older build's run, gone on with";
    let (_, flags) = RUNS[0];
    let continued = folder.join(name);
    for (launcher, steps) in builds.iter().zip([HALF_WAY, STEPS]) {
        train(launcher, &continued, steps, flags)?;
    }
    let whole = folder.join(RUNS[0].0).join("old");
    others.extend(difference(&programs["cifar-ps"], &whole, &continued, name)?);

    ensure!(
        others.is_empty(),
        "not the bits of {}: {}; the runs are in {}",
        old.commit,
        others.join(", "),
        folder.display()
    );
    say!("all have the bits of {}", old.commit);
    Ok(())
}

/// Trains to this step.
fn train(launcher: &Path, train_dir: &Path, steps: u32, flags: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(launcher);
    command
        .args(["--data=synthetic", "--no-eval", "--log-level=warn"])
        .arg(format!("--max-steps={steps}"))
        .args(flags)
        .arg("--train-dir")
        .arg(train_dir);
    // What a run says is looked at only if it fails.
    let output = command.output();
    let output = output.with_context(|| format!("cannot start {}", launcher.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{}` failed:\n{said}",
        command::shown(&command)
    );
    Ok(())
}

/// The name of a run, if the two differ in a step or in their last checkpoint.
fn difference<'a>(
    server: &Path,
    old: &Path,
    new: &Path,
    name: &'a str,
) -> anyhow::Result<Option<&'a str>> {
    let checkpoint = |train_dir: &Path| {
        let path = train_dir.join(format!("model.ckpt-{STEPS}.safetensors"));
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let steps_are_equal = command::succeeds(Command::new(server).arg("diff").args([old, new]));
    let is_equal = steps_are_equal && checkpoint(old)? == checkpoint(new)?;
    say!("{}: {name}", if is_equal { "equal" } else { "OTHER" });
    Ok((!is_equal).then_some(name))
}
