//! A Python environment for what others wrote in it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What the README's snippet needs, and TensorBoard.
const PACKAGES: [&str; 4] = [
    "numpy>=1.26,<3",
    "safetensors>=0.4,<1",
    "tensorboard>=2.16,<3",
    "setuptools<81", // TensorBoard asks it for its plugins
];

/// A Python that has the packages, made once and kept in the target folder; or why there is none.
pub(crate) fn python() -> Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(make).clone()
}

fn make() -> Result<PathBuf, String> {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = environment.join("bin/python");
    let import = ["-c", "import numpy, safetensors, tensorboard"];
    if run(Command::new(&python).args(import)).is_ok() {
        return Ok(python);
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&environment))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    run(Command::new(&python).args(pip).args(PACKAGES))?;
    run(Command::new(&python).args(import))?;
    Ok(python)
}

/// What a command wrote; or what went wrong, in its words.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (status, words) = (output.status, text(&output.stderr));
    Err(format!("{command:?} ended with {status}: {words}"))
}
