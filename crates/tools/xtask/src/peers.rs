//! The Python environments of the peers that the bench runs: what their users would install.
//!
//! They lie in the per-user cache, beside libtorch. Each is made on request, under another name, and
//! renamed when it is whole; the list that it was made from lies in it, so that one of another list is
//! made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::command::{self, say};
use crate::libtorch::remove;
use crate::prerequisites;
use crate::setup;
use crate::workspace::Workspace;

/// An environment.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Stands in the names of its folder and its list.
    name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// Disk that is needed while it is made.
    peak_bytes: u64,
}

/// For the scripts that import torch.
pub(crate) const TORCH: Environment = Environment {
    name: "torch",
    title: "PyTorch (5 GB)",
    peak_bytes: 9_000_000_000,
};

/// For the script that imports tensorflow.
pub(crate) const TENSORFLOW: Environment = Environment {
    name: "tensorflow",
    title: "TensorFlow (1.5 GB)",
    peak_bytes: 3_000_000_000,
};

impl Environment {
    /// Its Python, if it was made from the list of today.
    pub(crate) fn python(&self, workspace: &Workspace) -> Option<PathBuf> {
        let place = self.place_in(&setup::cache().ok()?);
        is_of(&place, &self.list(workspace)).then(|| python_of(&place))
    }

    /// Makes it, if it is not there.
    pub(crate) fn make(&self, workspace: &Workspace) -> anyhow::Result<()> {
        if self.python(workspace).is_some() {
            return Ok(());
        }
        let cache = setup::cache()?;
        let _lock = setup::lock(&cache)?;
        let place = self.place_in(&cache);
        // Beside the place, so that it can be renamed to it.
        let partial = place.with_extension("partial");
        remove(&partial)?;
        remove(&place)?;
        prerequisites::check_disk(&cache, self.peak_bytes)?;
        say!("making {}, once for all clones", place.display());
        let made = install(&self.list(workspace), &partial)
            .and_then(|()| fs::rename(&partial, &place).context("cannot rename it"));
        if made.is_err() {
            remove(&partial)?;
        }
        made.with_context(|| format!("cannot make {}", place.display()))
    }

    fn list(&self, workspace: &Workspace) -> PathBuf {
        let file = format!("requirements-{}.txt", self.name);
        workspace.peers().join(file)
    }

    fn place_in(&self, cache: &Path) -> PathBuf {
        cache.join(format!("peers-{}", self.name))
    }
}

fn install(list: &Path, environment: &Path) -> anyhow::Result<()> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(environment);
    command::run(&mut venv, "Python with its module venv is needed")?;

    let downloads = environment.join("downloads");
    fs::create_dir(&downloads)?;
    let mut pip = Command::new(python_of(environment));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"])
        // Gigabytes that are never asked for again.
        .args(["--no-cache-dir", "--requirement"])
        .arg(list)
        // /tmp may be small.
        .env("TMPDIR", &downloads);
    command::run(
        &mut pip,
        "Python 3.10 to 3.12 and a PyPI index within reach are needed",
    )?;
    remove(&downloads)?;
    fs::copy(list, list_in(environment))?;
    // After a power cut a renamed folder must not hold empty files.
    rustix::fs::sync();
    Ok(())
}

fn is_of(environment: &Path, list: &Path) -> bool {
    let text = |path: &Path| fs::read(path).ok();
    let wanted = text(list);
    wanted.is_some() && text(&list_in(environment)) == wanted
}

fn list_in(environment: &Path) -> PathBuf {
    environment.join("requirements.txt")
}

fn python_of(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_of_another_list_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let environment = folder.path().join("environment");
        fs::create_dir(&environment).unwrap();
        assert!(!is_of(&environment, &list), "there is no list");
        fs::write(&list, "torch==1\n").unwrap();
        assert!(!is_of(&environment, &list));
        fs::copy(&list, list_in(&environment)).unwrap();
        assert!(is_of(&environment, &list));
        fs::write(&list, "torch==2\n").unwrap();
        assert!(!is_of(&environment, &list));
    }

    #[test]
    fn every_environment_has_its_list() {
        let workspace = Workspace::find();
        for environment in [TORCH, TENSORFLOW] {
            let list = fs::read_to_string(environment.list(&workspace)).unwrap();
            assert!(list.contains(environment.name), "{list}");
        }
    }
}
