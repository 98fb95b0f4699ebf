//! The clone this program was started in: its folders, its cargo, its built programs.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::command;

/// Programs built by cargo, by name.
pub(crate) type Programs = BTreeMap<String, PathBuf>;

/// A clone of the project.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The clone that `cargo xtask` was called in.
    pub(crate) fn find() -> Workspace {
        // Asked at run time first: the clone may have been moved since this was compiled.
        let xtask = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = xtask
            .ancestors()
            .nth(3)
            .expect("xtask lies in crates/tools of the workspace");
        Workspace {
            root: root.to_owned(),
        }
    }

    /// The folder of the clone.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes `folder` a copy of the files that git knows, as they are now.
    pub(crate) fn copy_sources(&self, folder: &Path) -> anyhow::Result<()> {
        let mut git = Command::new("git");
        git.current_dir(&self.root).args(["ls-files", "-z"]);
        let files = command::output(&mut git, "the sources are those that git lists")?;
        let files: BTreeSet<PathBuf> = files
            .split_terminator('\0')
            .map(|file| folder.join(file))
            .collect();
        remove_others(folder, &files)
            .with_context(|| format!("cannot clear {}", folder.display()))?;
        for to in &files {
            let from = self.root.join(to.strip_prefix(folder)?);
            copy_if_other(&from, to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        Ok(())
    }

    /// Where `.cargo/config.toml` says that libtorch is.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// What libtorch is made with: the list of wheels, the script that unpacks them, the probe.
    pub(crate) fn libtorch_recipe(&self) -> PathBuf {
        self.root.join("crates/tools/xtask/libtorch")
    }

    /// The peers' scripts, and lists of what they need.
    pub(crate) fn peers(&self) -> PathBuf {
        self.root.join("bench/peers")
    }

    /// The records of runs.
    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("docs/runs")
    }

    /// A call of the cargo that runs this program.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }

    /// Builds the programs of `packages` for speed and says where they lie, which is cargo's to
    /// know: the target folder and the target platform have many ways to be configured.
    pub(crate) fn build_release(&self, packages: &[&str]) -> anyhow::Result<Programs> {
        let mut cargo = self.cargo();
        cargo
            .args([
                "build",
                "--release",
                "--message-format=json-render-diagnostics",
            ])
            .args(packages.iter().flat_map(|package| ["--package", package]));
        let messages = command::output(&mut cargo, "the compiler's messages above say why")?;
        messages
            .lines()
            .filter_map(|line| program_of(line).transpose())
            .collect()
    }
}

/// Removes all files below `folder`, if it is there, but these: those of an older copy.
fn remove_others(folder: &Path, but: &BTreeSet<PathBuf>) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, but)?;
            // It stays where there is something in it.
            let _ = fs::remove_dir(&path);
        } else if !but.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Leaves a file that is the same alone, so that cargo sees nothing new.
fn copy_if_other(from: &Path, to: &Path) -> io::Result<()> {
    let bytes = fs::read(from)?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(to, bytes)
}

/// The program that one of cargo's messages announces, if it does.
fn program_of(message: &str) -> anyhow::Result<Option<(String, PathBuf)>> {
    let message: Value = serde_json::from_str(message)
        .with_context(|| format!("not a message of cargo: {message}"))?;
    let name = message["target"]["name"].as_str();
    let path = message["executable"].as_str();
    Ok(name
        .zip(path)
        .map(|(name, path)| (name.to_owned(), Path::new(path).to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let check = |message| program_of(message).unwrap();
        let program = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"cifar-train"},"executable":"/t/release/cifar-train"}"#;
        assert_eq!(
            check(program),
            Some(("cifar-train".into(), "/t/release/cifar-train".into()))
        );
        let library = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"pserver_wire"},"executable":null}"#;
        assert_eq!(check(library), None);
        assert_eq!(check(r#"{"reason":"build-finished","success":true}"#), None);
        assert!(program_of("warning: plain text").is_err());
    }

    #[test]
    fn an_older_copy_loses_what_is_not_there_any_more() {
        let folder = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        fs::create_dir_all(folder.join("gone")).unwrap();
        fs::create_dir_all(folder.join("kept")).unwrap();
        let kept = folder.join("kept/a.rs");
        for file in [
            folder.join("gone/b.rs"),
            folder.join("kept/c.rs"),
            kept.clone(),
        ] {
            fs::write(file, "").unwrap();
        }
        remove_others(&folder, &BTreeSet::from([kept.clone()])).unwrap();
        assert!(kept.exists());
        assert!(!folder.join("gone").exists() && !folder.join("kept/c.rs").exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn root_holds_the_lock_file() {
        assert!(Workspace::find().root.join("Cargo.lock").exists());
    }
}
