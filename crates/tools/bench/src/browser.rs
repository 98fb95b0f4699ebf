//! A browser without a window: Chromium, where there is one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What Chromium is called on one system or another.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Chromium among the programs of this machine.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).flat_map(|dir| NAMES.map(|name| dir.join(name)));
    files.find(|file| file.is_file())
}

/// Chromium with `url` open and an empty folder `profile` for what it keeps; it listens for orders on a port
/// of its choice.
#[must_use]
pub fn headless(browser: &Path, profile: &Path, url: &str) -> Command {
    let mut command = Command::new(browser);
    command
        // A container has neither a sandbox nor a graphics card, and little shared memory.
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--hide-scrollbars"])
        // Nor has it anything to do but to show the page.
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync"])
        .args(["--remote-debugging-port=0", "--remote-allow-origins=*"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url);
    command
}
