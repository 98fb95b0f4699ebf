//! What a libtorch is here, and how one is made from Python wheels.
//!
//! `tch` wants one exact version of libtorch. PyPI's wheels hold its headers and libraries, are
//! mirrored everywhere, and are fetched by pip, which knows the user's index, proxy and certificates.
//! The folder made of them has the form of the official archives, as the build script of
//! `torch-sys` expects it. Fetches and unpacks; decides nothing about where that is linked from.
//!
//! The CPU libraries are taken out of PyPI's torch wheel, which is where the version that `tch` wants is published for
//! everybody. The CUDA backend registers itself when its library is loaded at run time, so that one binary serves both;
//! `bench/gpu/check` tries that on a machine with a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::command::{self, say};
use crate::prerequisites;
pub(crate) use crate::prerequisites::LIBTORCH_VERSION as VERSION;
use crate::workspace::Workspace;

/// The measured peak is 1.09 GB, of which 0.52 GB stay. It is reached twice: when pip copies the
/// large wheel out of its temporary folder, and when the wheels lie beside what was unpacked.
const PEAK_BYTES: u64 = 1_200_000_000;

/// `torch-sys` links torch, torch_cpu and c10. The wheel's own libtorch.so would pull in CUDA;
/// a linker takes this text as well, and the program then needs libtorch_cpu.so alone.
const LINKER_SCRIPT: &str = "INPUT(libtorch_cpu.so libc10.so)\n";

/// pip matches these exactly: one for each wheel of `requirements.txt`.
const WHEEL_PLATFORMS: [&str; 3] = [
    "manylinux_2_28_x86_64",
    "manylinux_2_25_x86_64",
    "manylinux2014_x86_64",
];

/// Whether `libtorch` has the right version and its largest parts. Staging ends with a rename, so
/// more than a glance is needed only for folders that somebody took apart by hand.
pub(crate) fn is_usable(libtorch: &Path) -> bool {
    version_of(libtorch).as_deref() == Some(VERSION)
        && ["include/torch", "lib/libtorch_cpu.so", "lib/libtorch.so"]
            .iter()
            .all(|part| libtorch.join(part).exists())
}

/// The version of the libtorch in a folder: an official archive, one staged here, or a Python
/// package `torch`. None where there is neither.
pub(crate) fn version_of(libtorch: &Path) -> Option<String> {
    let read = |file: &str| fs::read_to_string(libtorch.join(file)).ok();
    read("build-version")
        .map(|text| without_build(&text).to_owned())
        .or_else(|| read("version.py").and_then(|text| python_version(&text)))
}

/// Where in the cache [`stage`] puts the libtorch of this version.
pub(crate) fn place_in(cache: &Path) -> PathBuf {
    cache.join(format!("libtorch-{VERSION}-cpu"))
}

/// Makes a CPU libtorch in `cache`: all of it, or nothing. The caller holds the cache's lock.
pub(crate) fn stage(workspace: &Workspace, cache: &Path) -> anyhow::Result<()> {
    let place = place_in(cache);
    let partial = cache.join("partial");
    let compiler = prerequisites::check_programs()?;

    // Left by a set-up that was killed, and taken apart by hand.
    remove(&partial)?;
    remove(&place)?;
    prerequisites::check_disk(cache, PEAK_BYTES)?;

    say!(
        "fetching libtorch {VERSION} (545 MB of Python wheels) into {}, once for all clones",
        place.display(),
    );
    let made = make(workspace, &compiler, &partial)
        .and_then(|libtorch| fs::rename(libtorch, &place).context("cannot rename it"));
    let removed = remove(&partial);
    made.with_context(|| format!("cannot make {}", place.display()))?;
    removed
}

/// Fetches, unpacks and tries out. Returns the folder below `partial` that became the libtorch.
fn make(workspace: &Workspace, compiler: &[String], partial: &Path) -> anyhow::Result<PathBuf> {
    let wheels = partial.join("wheels");
    let libtorch = partial.join("libtorch");
    fs::create_dir_all(&wheels).with_context(|| format!("cannot create {}", wheels.display()))?;

    let recipe = workspace.libtorch_recipe();
    download(&recipe.join("requirements.txt"), &wheels)?;
    say!("unpacking libtorch");
    unpack(&recipe.join("unpack.py"), &wheels, &libtorch)?;
    for (file, text) in [
        ("lib/libtorch.so", LINKER_SCRIPT),
        ("build-version", VERSION),
    ] {
        let path = libtorch.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    try_out(
        compiler,
        &recipe.join("probe.cpp"),
        &libtorch,
        &partial.join("probe"),
    )?;

    // After a power cut a renamed folder must not hold empty files.
    rustix::fs::sync();
    Ok(libtorch)
}

fn download(requirements: &Path, wheels: &Path) -> anyhow::Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes"])
        .args(["--only-binary=:all:", "--python-version", "3.11"])
        .args(["--implementation", "cp", "--abi", "cp311", "--abi", "none"])
        .args(
            WHEEL_PLATFORMS
                .iter()
                .flat_map(|platform| ["--platform", platform]),
        )
        // pip's cache would keep another half a gigabyte that is never asked for again.
        .args(["--no-cache-dir", "--dest"])
        .arg(wheels)
        .arg("--requirement")
        .arg(requirements)
        // /tmp may be small, and pip downloads to there first.
        .env("TMPDIR", wheels);
    command::run(
        &mut pip,
        "pip 20.3 or newer and a PyPI index within reach are needed",
    )
}

fn unpack(script: &Path, wheels: &Path, libtorch: &Path) -> anyhow::Result<()> {
    let cannot_read = || format!("cannot read {}", wheels.display());
    let mut python = Command::new("python3");
    python.arg(script).arg(libtorch);
    for entry in fs::read_dir(wheels).with_context(cannot_read)? {
        let wheel = entry.with_context(cannot_read)?.path();
        if wheel
            .extension()
            .is_some_and(|extension| extension == "whl")
        {
            python.arg(wheel);
        }
    }
    command::run(&mut python, "Python 3.8 or newer is needed")
}

/// Builds and runs a program of a few lines the way `torch-sys` is built and its users are linked.
fn try_out(
    compiler: &[String],
    source: &Path,
    libtorch: &Path,
    program: &Path,
) -> anyhow::Result<()> {
    let (include, lib) = (libtorch.join("include"), libtorch.join("lib"));
    let mut compile = command::of(compiler);
    compile
        .args(["-std=c++17", "-O0", "-I"])
        .arg(&include)
        .arg("-I")
        .arg(include.join("torch/csrc/api/include"))
        .arg(source)
        .arg("-L")
        .arg(&lib)
        .args(["-ltorch_cpu", "-ltorch", "-lc10", "-lgomp", "-Wl,-rpath"])
        .arg(format!("-Wl,{}", lib.display()))
        .arg("-o")
        .arg(program);
    command::run(
        &mut compile,
        "a C++17 compiler is needed, such as g++ 9 or newer",
    )?;
    command::run(
        &mut Command::new(program),
        "glibc 2.28 or newer is needed (Debian 10, RHEL 8)",
    )
}

/// Removes a folder that may be there.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// `2.11.0` of `2.11.0+cpu`: what follows the plus says how it was built, not which version it is.
fn without_build(version: &str) -> &str {
    let version = version.trim();
    version
        .split_once('+')
        .map_or(version, |(version, _build)| version)
}

fn python_version(version_py: &str) -> Option<String> {
    let value = version_py
        .lines()
        .find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(without_build(value.trim_matches(['\'', '"'])).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_without_its_build() {
        for text in ["2.11.0", "2.11.0\n", "2.11.0+cpu\n", " 2.11.0+cu130 "] {
            assert_eq!(without_build(text), "2.11.0", "{text:?}");
        }
        assert_eq!(without_build("2.11.0.dev1"), "2.11.0.dev1");
    }

    #[test]
    fn version_of_a_python_package_is_found() {
        let version_py = "__all__ = ['__version__']\n__version__ = '2.11.0+cu130'\ndebug = False\n";
        assert_eq!(python_version(version_py).as_deref(), Some("2.11.0"));
        assert_eq!(python_version("debug = False\n"), None);
    }

    #[test]
    fn usable_is_the_right_version_with_its_parts() {
        let folder = tempfile::tempdir().unwrap();
        let libtorch = folder.path();
        assert!(!is_usable(libtorch));
        fs::create_dir_all(libtorch.join("include/torch")).unwrap();
        fs::create_dir_all(libtorch.join("lib")).unwrap();
        for file in ["lib/libtorch_cpu.so", "lib/libtorch.so", "build-version"] {
            assert!(!is_usable(libtorch), "usable without {file}");
            fs::write(libtorch.join(file), VERSION).unwrap();
        }
        assert!(is_usable(libtorch));
        fs::write(libtorch.join("build-version"), "2.10.0").unwrap();
        assert!(!is_usable(libtorch));
    }

    #[test]
    fn the_recipe_names_the_same_version() {
        let requirements = include_str!("../libtorch/requirements.txt");
        assert!(requirements.contains(&format!("\ntorch=={VERSION} ")));
        let probe = include_str!("../libtorch/probe.cpp");
        for (part, number) in ["MAJOR", "MINOR", "PATCH"].iter().zip(VERSION.split('.')) {
            assert!(
                probe.contains(&format!("TORCH_VERSION_{part} == {number}")),
                "{part}"
            );
        }
    }
}
