//! `cargo xtask setup`: makes libtorch available, so that plain cargo works afterwards.
//!
//! `.cargo/config.toml` points `LIBTORCH` at `<workspace>/.libtorch`. This verb makes that a link to
//! a libtorch in the per-user cache, which all clones share:
//!
//! ```text
//! clone-1/.libtorch ──┐
//! clone-2/.libtorch ──┴─> ~/.cache/cifar-ps/libtorch-2.11.0-cpu/{include,lib,build-version}
//! ```
//!
//! A `LIBTORCH` that the user set is checked and otherwise left alone, and so is a `.libtorch` that
//! already leads to the right version. Where all is in place it looks at a few files and is done.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::command::say;
use crate::libtorch;
use crate::prerequisites;
use crate::workspace::Workspace;

pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let link = workspace.libtorch();
    if let Some(libtorch) = set_by_user(env::var_os("LIBTORCH"), &link) {
        return check_users(&libtorch);
    }
    if !libtorch::is_usable(&link) {
        provide(workspace, &link)?;
    }
    say!(
        "libtorch {} is ready in {}",
        libtorch::VERSION,
        link.display()
    );
    Ok(())
}

/// Makes `link` lead to the libtorch of the cache, which is staged first if no clone did it before.
fn provide(workspace: &Workspace, link: &Path) -> anyhow::Result<()> {
    prerequisites::check_platform()?;
    let cache = cache()?;
    let staged = libtorch::place_in(&cache);
    let cannot_link = || format!("cannot make {} a link", link.display());
    let must_link = must_link(&Stands::at(link)?, &staged).with_context(cannot_link)?;

    let _lock = lock(&cache)?;
    if !libtorch::is_usable(&staged) {
        libtorch::stage(workspace, &cache)?;
    }
    if must_link {
        relink(link, &staged).with_context(cannot_link)?;
    }
    Ok(())
}

/// The libtorch that the user chose, if any.
///
/// cargo hands the `[env]` table of `.cargo/config.toml` to what it runs, this program too, so the
/// value found there is nobody's choice.
fn set_by_user(libtorch: Option<OsString>, link: &Path) -> Option<PathBuf> {
    libtorch.map(PathBuf::from).filter(|path| path != link)
}

fn check_users(libtorch: &Path) -> anyhow::Result<()> {
    // Build scripts run in folders of their own, where a relative path means something else.
    ensure!(
        libtorch.is_absolute(),
        "LIBTORCH is set to '{}'; make it an absolute path, or unset it and one will be fetched",
        libtorch.display(),
    );
    match libtorch::version_of(libtorch) {
        Some(version) if version == libtorch::VERSION => {
            say!(
                "libtorch {version} is the one of LIBTORCH, {}",
                libtorch.display()
            );
            Ok(())
        }
        found => bail!(
            "LIBTORCH is set to {}, which holds {}; needed is {}: unset it and that will be fetched",
            libtorch.display(),
            found.map_or("no libtorch".to_owned(), |version| format!(
                "libtorch {version}"
            )),
            libtorch::VERSION,
        ),
    }
}

/// The folder of this project in the user's cache, which need not be there.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    cache_dir(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
}

/// The folder of this project in the user's cache, by the rules of the XDG base directories:
/// a relative `XDG_CACHE_HOME` counts as not set.
fn cache_dir(xdg: Option<OsString>, home: Option<OsString>) -> anyhow::Result<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    xdg.and_then(absolute)
        .or_else(|| home.and_then(absolute).map(|home| home.join(".cache")))
        .map(|cache| cache.join("cifar-ps"))
        .context("neither XDG_CACHE_HOME nor HOME names a folder for libtorch; set one of them")
}

/// What stands where the link to libtorch belongs.
#[derive(Debug, PartialEq)]
enum Stands {
    Nothing,
    LinkTo(PathBuf),
    /// A file or a folder: somebody's work, perhaps.
    Other,
}

impl Stands {
    fn at(link: &Path) -> anyhow::Result<Stands> {
        match fs::symlink_metadata(link) {
            Ok(found) if found.is_symlink() => Ok(Stands::LinkTo(fs::read_link(link)?)),
            Ok(_) => Ok(Stands::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stands::Nothing),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", link.display())),
        }
    }
}

/// Whether a link to `staged` must be made. Only called where no usable libtorch was found
/// through the link, so a link to elsewhere leads nowhere useful and gives way.
fn must_link(stands: &Stands, staged: &Path) -> anyhow::Result<bool> {
    match stands {
        Stands::Nothing => Ok(true),
        Stands::LinkTo(target) => Ok(target != staged),
        Stands::Other => bail!("something else stands there; move it away"),
    }
}

/// Links beside and renames, so that no moment is without a link.
fn relink(link: &Path, staged: &Path) -> io::Result<()> {
    let new = link.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(staged, &new)?;
    fs::rename(&new, link)
}

/// Makes the cache, and makes two clones that are set up at once fill it in turn. Released when
/// dropped, or killed.
pub(crate) fn lock(cache: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let path = cache.join("lock");
    let cannot_lock = || format!("cannot lock {}", path.display());
    let file = File::create(&path).with_context(cannot_lock)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say!("waiting for another set-up, which holds {}", path.display());
            file.lock().with_context(cannot_lock)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(cannot_lock),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_sets_is_not_the_users_choice() {
        let link = Path::new("/clone/.libtorch");
        assert_eq!(set_by_user(None, link), None);
        assert_eq!(set_by_user(Some("/clone/.libtorch".into()), link), None);
        assert_eq!(
            set_by_user(Some("/opt/libtorch".into()), link),
            Some("/opt/libtorch".into())
        );
    }

    #[test]
    fn users_libtorch_must_be_absolute_and_of_the_version() {
        let message = |path: &Path| check_users(path).unwrap_err().to_string();
        assert!(message(Path::new("libtorch")).contains("absolute"));

        let folder = tempfile::tempdir().unwrap();
        assert!(message(folder.path()).contains("holds no libtorch"));
        fs::write(folder.path().join("build-version"), "2.9.1+cpu\n").unwrap();
        assert!(message(folder.path()).contains("holds libtorch 2.9.1;"));
        fs::write(folder.path().join("build-version"), "2.11.0+cpu\n").unwrap();
        check_users(folder.path()).unwrap();
    }

    #[test]
    fn cache_follows_xdg_then_home() {
        let check = |xdg: Option<&str>, home: Option<&str>| {
            cache_dir(xdg.map(OsString::from), home.map(OsString::from)).ok()
        };
        assert_eq!(check(Some("/x"), Some("/h")), Some("/x/cifar-ps".into()));
        assert_eq!(check(None, Some("/h")), Some("/h/.cache/cifar-ps".into()));
        assert_eq!(
            check(Some("x"), Some("/h")),
            Some("/h/.cache/cifar-ps".into())
        );
        assert_eq!(check(Some(""), Some("")), None);
        assert_eq!(check(None, None), None);
    }

    #[test]
    fn only_nothing_and_stale_links_give_way() {
        let staged = Path::new("/cache/libtorch");
        let check = |stands: Stands| must_link(&stands, staged).ok();
        assert_eq!(check(Stands::Nothing), Some(true));
        assert_eq!(check(Stands::LinkTo("/cache/libtorch".into())), Some(false));
        assert_eq!(check(Stands::LinkTo("/old/libtorch".into())), Some(true));
        assert_eq!(check(Stands::Other), None);
    }

    #[test]
    fn a_dangling_link_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(".libtorch");
        assert_eq!(Stands::at(&link).unwrap(), Stands::Nothing);
        for target in ["/nowhere/a", "/nowhere/b"] {
            relink(&link, Path::new(target)).unwrap();
            assert_eq!(Stands::at(&link).unwrap(), Stands::LinkTo(target.into()));
        }
    }
}
