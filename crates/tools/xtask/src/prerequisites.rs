//! What set-up needs of a machine, each lack told in one line that says what to do about it.

use std::env::{self, consts};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::command;

/// The version that `tch` 0.24.0 wants, exactly; `libtorch/requirements.txt` and
/// `libtorch/probe.cpp` say it too.
pub(crate) const LIBTORCH_VERSION: &str = "2.11.0";

/// Where the wheels work: x86-64 Linux with the GNU C library.
pub(crate) fn check_platform() -> anyhow::Result<()> {
    let libc = if cfg!(target_env = "musl") {
        "musl"
    } else {
        "gnu"
    };
    check_platform_named(consts::OS, consts::ARCH, libc)
}

/// Finds the programs that staging and building call, and returns the C++ compiler's command line.
///
/// Names all that is missing at once: being sent to the package manager twice is no fun.
pub(crate) fn check_programs() -> anyhow::Result<Vec<String>> {
    let compiler = compiler(env::var("CXX").ok());
    let mut missing = Vec::new();
    if !command::succeeds(command::of(&compiler).arg("--version")) {
        let name = compiler.join(" ");
        missing.push(format!(
            "no C++ compiler {name} (`apt-get install g++`, or set CXX)"
        ));
    }
    if !command::succeeds(Command::new("python3").arg("--version")) {
        missing.push("no python3 (`apt-get install python3 python3-pip`)".to_owned());
    } else if !command::succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        missing.push("python3 has no pip (`apt-get install python3-pip`)".to_owned());
    }
    ensure!(
        missing.is_empty(),
        "cannot make a libtorch: {}",
        missing.join("; ")
    );
    Ok(compiler)
}

/// Whether there is a C++ compiler.
pub(crate) fn has_compiler() -> bool {
    let compiler = compiler(env::var("CXX").ok());
    command::succeeds(command::of(&compiler).arg("--version"))
}

/// Whether `needed` bytes are free where `folder` lies.
pub(crate) fn check_disk(folder: &Path, needed: u64) -> anyhow::Result<()> {
    let disk = rustix::fs::statvfs(folder)
        .with_context(|| format!("cannot ask for the free space of {}", folder.display()))?;
    check_free(folder, disk.f_bavail.saturating_mul(disk.f_frsize), needed)
}

fn check_platform_named(os: &str, arch: &str, libc: &str) -> anyhow::Result<()> {
    if (os, arch, libc) == ("linux", "x86_64", "gnu") {
        return Ok(());
    }
    bail!(
        "libtorch is fetched for x86-64 Linux with the GNU C library only, not for {os} {arch} ({libc}); \
         elsewhere set LIBTORCH to a libtorch {}",
        LIBTORCH_VERSION,
    )
}

/// The C++ compiler that `torch-sys` will be built with: `CXX`, which may hold arguments, or `c++`.
fn compiler(cxx: Option<String>) -> Vec<String> {
    let words: Vec<String> = cxx
        .iter()
        .flat_map(|cxx| cxx.split_whitespace())
        .map(str::to_owned)
        .collect();
    if words.is_empty() {
        vec!["c++".to_owned()]
    } else {
        words
    }
}

fn check_free(folder: &Path, free: u64, needed: u64) -> anyhow::Result<()> {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    ensure!(
        free >= needed,
        "{:.1} GB are needed in {} while libtorch is unpacked, {:.1} GB are free; \
         make room, or set XDG_CACHE_HOME to a folder on another disk",
        gigabytes(needed),
        folder.display(),
        gigabytes(free),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_platform_of_the_wheels_passes() {
        let check = |os, arch, libc| check_platform_named(os, arch, libc).is_ok();
        assert!(check("linux", "x86_64", "gnu"));
        assert!(!check("linux", "x86_64", "musl"));
        assert!(!check("linux", "aarch64", "gnu"));
        assert!(!check("macos", "x86_64", "gnu"));

        let error = check_platform_named("macos", "aarch64", "gnu")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("macos aarch64") && error.contains("set LIBTORCH"),
            "{error}"
        );
    }

    #[test]
    fn compiler_is_cxx_with_its_arguments() {
        let check = |cxx: Option<&str>| compiler(cxx.map(str::to_owned)).join("|");
        assert_eq!(check(None), "c++");
        assert_eq!(check(Some(" ")), "c++");
        assert_eq!(check(Some("ccache g++")), "ccache|g++");
    }

    #[test]
    fn too_little_disk_says_how_much_and_where() {
        let folder = Path::new("/home/u/.cache");
        assert!(check_free(folder, 1_200_000_000, 1_200_000_000).is_ok());
        let error = check_free(folder, 300_000_000, 1_200_000_000)
            .unwrap_err()
            .to_string();
        for part in ["1.2 GB", "0.3 GB", "/home/u/.cache", "XDG_CACHE_HOME"] {
            assert!(error.contains(part), "no {part} in: {error}");
        }
    }
}
