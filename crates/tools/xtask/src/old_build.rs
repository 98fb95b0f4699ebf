//! The programs of an older commit, built beside those of the present sources, to be compared with them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::command::{self, say};
use crate::workspace::Workspace;

/// A commit that is there, and its programs.
#[derive(Debug)]
pub(crate) struct OldBuild {
    /// The commit in short.
    pub(crate) commit: String,
    /// Folder of its programs.
    pub(crate) programs: PathBuf,
}

impl OldBuild {
    /// Builds `packages` of a commit that git knows by the name `revision`, in a folder of its own below `target`.
    pub(crate) fn make(
        workspace: &Workspace,
        revision: &str,
        packages: &[&str],
    ) -> anyhow::Result<Self> {
        let git = |arguments: &[&str], hint: &str| {
            let mut git = Command::new("git");
            git.current_dir(workspace.root()).args(arguments);
            command::output(&mut git, hint)
        };
        let commit = git(
            &["rev-parse", "--short=12", &format!("{revision}^{{commit}}")],
            "name a commit, as `git log` shows them",
        )?;
        let commit = commit.trim().to_owned();
        let folder = workspace.root().join("target/old");
        let sources = folder.join(&commit);
        if !sources.exists() {
            let path = sources.to_string_lossy();
            git(
                &["worktree", "add", "--detach", "--force", &path, &commit],
                "the sources of the older commit are checked out beside the present ones",
            )?;
            symlink(workspace.libtorch(), sources.join(".libtorch"))
                .with_context(|| format!("cannot link libtorch into {path}"))?;
        }

        say!("building the programs of {commit}; the first time this takes minutes");
        let mut cargo = workspace.cargo();
        cargo
            .current_dir(&sources)
            // What both depend on is built once for all commits.
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .args(["build", "--release"])
            .args(packages.iter().flat_map(|package| ["--package", package]));
        command::run(&mut cargo, "the compiler's messages above say why")?;
        // The next commit's take their place.
        let programs = sources.join("target/programs");
        fs::create_dir_all(&programs)?;
        for entry in fs::read_dir(folder.join("target/release"))? {
            let entry = entry?;
            let name = entry.file_name();
            let is_program = !name.to_string_lossy().contains('.');
            if is_program && entry.file_type()?.is_file() {
                fs::copy(entry.path(), programs.join(name))?;
            }
        }
        Ok(OldBuild { commit, programs })
    }
}
