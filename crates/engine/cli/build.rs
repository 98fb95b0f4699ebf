//! Puts the commit into the programs, for `--version`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=CIFAR_PS_COMMIT");
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    // An image is built from sources without history, and is told its commit.
    let told = std::env::var("CIFAR_PS_COMMIT").ok();
    let commit = told.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!(
        "cargo::rustc-env=CIFAR_PS_COMMIT={}",
        commit.as_deref().unwrap_or("unknown commit")
    );
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(args)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
