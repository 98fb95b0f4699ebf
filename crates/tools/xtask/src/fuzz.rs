//! `cargo xtask fuzz`: bytes that lead ever further into each decoder, and may not do harm there.
//!
//! The programs in `fuzz/` are built with the instrumentation that libFuzzer reads, which the project's
//! own compiler has. What they come by is kept in `fuzz/corpus`, what does harm in `fuzz/artifacts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::command::{self, say};
use crate::prerequisites;
use crate::workspace::Workspace;

/// Has the compiler count which branches are taken, and tell what is compared: what `cargo fuzz` asks for,
/// less the sanitizers, of which only a nightly compiler has any.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0";

/// Named so that build scripts, which run here, are built without it.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// An input that takes longer does harm.
const TIMEOUT_SECS: u32 = 10;

/// So does one that takes more memory than this, in megabytes, together with libFuzzer's own.
const MEMORY_MB: u32 = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target runs, in seconds
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,

    /// These targets alone: names of files in fuzz/fuzz_targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

impl Args {
    /// All targets, each for so long that one that is broken shows it.
    pub(crate) fn short() -> Self {
        Args {
            seconds: 1,
            targets: Vec::new(),
        }
    }
}

/// Runs targets one after the other, up to the first of which something does harm.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    let all = targets(workspace)?;
    let targets = match args.targets.is_empty() {
        true => &all,
        false => &args.targets,
    };
    for target in targets {
        let names = all.join(", ");
        ensure!(
            all.contains(target),
            "no target {target}; there are {names}"
        );
    }
    build(workspace)?;
    for target in targets {
        let mut fuzzer = fuzzer(workspace, target, args.seconds)?;
        say!("==> fuzz {target}");
        command::run(
            &mut fuzzer,
            "the file named above does harm; keep it in fuzz/seeds, from where the tests take it",
        )?;
    }
    Ok(())
}

/// Why fuzzing is not possible here, if it is not: libFuzzer is C++.
pub(crate) fn missing() -> Option<&'static str> {
    (!prerequisites::has_compiler()).then_some("libFuzzer takes a C++ compiler")
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("fuzz")
}

/// Names of all targets.
fn targets(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let folder = folder(workspace).join("fuzz_targets");
    let unread = || format!("cannot read {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(unread)? {
        let path = entry.with_context(unread)?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(folder(workspace))
        .args(["build", "--release", "--target", PLATFORM])
        .env("CARGO_TARGET_DIR", target_folder(workspace))
        .env("RUSTFLAGS", INSTRUMENTATION);
    say!("==> {}, in fuzz", command::shown(&cargo));
    command::run(&mut cargo, "the compiler's messages above say why")
}

fn target_folder(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("target")
}

/// The call of a target's program.
fn fuzzer(workspace: &Workspace, target: &str, seconds: u32) -> anyhow::Result<Command> {
    let folder = folder(workspace);
    let corpus = folder.join("corpus").join(target);
    let artifacts = folder.join("artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let program = target_folder(workspace).join(PLATFORM).join("release");
    let mut fuzzer = Command::new(program.join(target));
    fuzzer.arg(corpus).arg(folder.join("seeds").join(target));
    fuzzer.args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={TIMEOUT_SECS}"),
        format!("-rss_limit_mb={MEMORY_MB}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    let dictionary = dictionary(&folder, target);
    fuzzer.args(dictionary.map(|path| format!("-dict={}", path.display())));
    Ok(fuzzer)
}

/// Words that the bytes of a target are made of, where somebody has written them down.
fn dictionary(folder: &Path, target: &str) -> Option<PathBuf> {
    let path = folder.join("dictionaries").join(target);
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        let workspace = Workspace::find();
        let targets = targets(&workspace).unwrap();
        assert!(targets.contains(&"checkpoint".to_owned()), "{targets:?}");
        for target in targets {
            assert!(
                folder(&workspace).join("seeds").join(&target).is_dir(),
                "{target}"
            );
        }
    }
}
