//! `cargo xtask test`: every check of the project, the quick ones first, up to the first that fails.

use std::env;
use std::time::Instant;

use anyhow::ensure;

use crate::command::{self, say};
use crate::fuzz;
use crate::setup;
use crate::workspace::Workspace;

/// One call of cargo.
struct Check {
    /// Arguments, between spaces.
    cargo: &'static str,
    /// What to do when it fails.
    hint: &'static str,
}

const CHECKS: [Check; 5] = [
    Check {
        cargo: "fmt --all --check",
        hint: "`cargo fmt --all` puts it right",
    },
    Check {
        cargo: "fmt --manifest-path fuzz/Cargo.toml --check",
        hint: "`cargo fmt --manifest-path fuzz/Cargo.toml` puts it right",
    },
    Check {
        cargo: "clippy --workspace --all-targets -- -D warnings",
        hint: "the lints above say what to change",
    },
    Check {
        cargo: "test --workspace",
        hint: "the failures are listed above",
    },
    Check {
        cargo: "doc --workspace --no-deps",
        hint: "with RUSTDOCFLAGS='-D warnings' the warnings above count as errors",
    },
];

/// Licences, duplicates and origins of the dependencies, checked by a program of its own, which not
/// everybody has. Those in fuzz/ need fewer licences, and the exceptions.
const DENY: [Check; 2] = [
    Check {
        cargo: "deny --locked check --hide-inclusion-graph -D license-not-encountered \
            -A license-exception-not-encountered bans licenses sources",
        hint: "deny.toml holds the rules",
    },
    Check {
        cargo: "deny --locked --manifest-path fuzz/Cargo.toml --config deny.toml check \
            --hide-inclusion-graph -A license-not-encountered -D license-exception-not-encountered \
            bans licenses sources",
        hint: "deny.toml holds the rules",
    },
];

/// What is known to be wrong with them, from a database that was fetched before.
const ADVISORIES: [Check; 2] = [
    Check {
        cargo: "deny --locked --offline check -D advisory-not-detected advisories",
        hint: "the advisory above says what to update; deny.toml can say why one does not matter here",
    },
    Check {
        cargo: "deny --locked --offline --manifest-path fuzz/Cargo.toml --config deny.toml check \
            -A advisory-not-detected advisories",
        hint: "the advisory above says what to update; deny.toml can say why one does not matter here",
    },
];

pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let start = Instant::now();
    setup::run(workspace)?;
    for check in &CHECKS {
        check.run(workspace)?;
    }
    match fuzz::missing() {
        None => fuzz::run(workspace, &fuzz::Args::short())?,
        Some(lack) => say!("==> fuzz: skipped, {lack}"),
    }
    check_dependencies(workspace)?;
    let seconds = start.elapsed().as_secs();
    say!(
        "all checks passed in {} min {} s",
        seconds / 60,
        seconds % 60
    );
    Ok(())
}

impl Check {
    fn run(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let mut cargo = workspace.cargo();
        cargo
            .args(self.cargo.split_whitespace())
            .env("RUSTDOCFLAGS", "-D warnings");
        say!("==> {}", command::shown(&cargo));
        command::run(&mut cargo, self.hint)
    }
}

fn check_dependencies(workspace: &Workspace) -> anyhow::Result<()> {
    if !can_check(deny(workspace, "--version"), is_deny_required())? {
        return Ok(());
    }
    for check in &DENY {
        check.run(workspace)?;
    }
    if !deny(workspace, "fetch db") {
        say!("==> cargo deny check advisories: skipped, their database cannot be fetched");
        return Ok(());
    }
    for check in &ADVISORIES {
        check.run(workspace)?;
    }
    Ok(())
}

/// Whether a call of `cargo deny` succeeds.
fn deny(workspace: &Workspace, arguments: &str) -> bool {
    let mut cargo = workspace.cargo();
    command::succeeds(cargo.arg("deny").args(arguments.split_whitespace()))
}

fn is_deny_required() -> bool {
    env::var_os("CIFAR_REQUIRE_DENY").is_some_and(|value| value == "1")
}

/// Whether dependencies can be checked. Where they cannot, that is an error if they have to be.
fn can_check(has_deny: bool, is_required: bool) -> anyhow::Result<bool> {
    const LACK: &str = "there is no cargo-deny; `cargo install --locked cargo-deny` brings it";
    ensure!(has_deny || !is_required, "CIFAR_REQUIRE_DENY=1, but {LACK}");
    if !has_deny {
        say!("==> cargo deny check: skipped, {LACK}");
    }
    Ok(has_deny)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_cargo_deny_dependencies_go_unchecked_only_where_they_may() {
        assert!(can_check(true, true).unwrap());
        assert!(can_check(true, false).unwrap());
        assert!(!can_check(false, false).unwrap());
        let error = can_check(false, true).unwrap_err().to_string();
        assert!(
            error.contains("cargo install --locked cargo-deny"),
            "{error}"
        );
    }

    #[test]
    fn cargo_deny_understands_how_it_is_called() {
        let workspace = Workspace::find();
        if !can_check(deny(&workspace, "--version"), is_deny_required()).unwrap() {
            return;
        }
        for check in DENY.iter().chain(&ADVISORIES) {
            let mut cargo = workspace.cargo();
            cargo.args(check.cargo.split_whitespace()).arg("--help");
            command::output(&mut cargo, "").unwrap();
        }
    }
}
