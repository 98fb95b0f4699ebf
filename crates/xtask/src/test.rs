//! `cargo xtask test`: every check of the project, the quick ones first, up to the first that fails.

use std::time::Instant;

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
/// everybody has.
const DENY: Check = Check {
    cargo: "deny check bans licenses sources",
    hint: "deny.toml holds the rules",
};

/// What is known to be wrong with them.
const ADVISORIES: Check = Check {
    cargo: "deny check --disable-fetch advisories",
    hint: "the advisory above says what to update; deny.toml can say why one does not matter here",
};

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
    let deny = |arguments: &[&str]| {
        let mut cargo = workspace.cargo();
        command::succeeds(cargo.arg("deny").args(arguments))
    };
    if !deny(&["--version"]) {
        say!("==> cargo deny check: skipped, `cargo install --locked cargo-deny` brings it");
        return Ok(());
    }
    DENY.run(workspace)?;
    if deny(&["fetch", "db"]) {
        ADVISORIES.run(workspace)
    } else {
        say!("==> cargo deny check advisories: skipped, their database cannot be fetched");
        Ok(())
    }
}
