//! `cargo xtask mutants`: faults put into the server on purpose, each of which the simulation must
//! find.
//!
//! A mutant is a few exact replacements of text, made in a copy of the sources, so that the product
//! has no code for it. Some faults take two: the server has more than one defence against them. One that the simulation passes is an error: the simulation is then
//! blind to it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::command::{self, say};
use crate::simulate::SIMULATION;
use crate::workspace::Workspace;

/// Seeds within which each mutant must be found.
const SEEDS: u64 = 100;

/// A fault and where it goes.
struct Mutant {
    name: &'static str,
    /// What the server then does.
    fault: &'static str,
    edits: &'static [Edit],
}

/// One replacement.
struct Edit {
    file: &'static str,
    /// Stands in the file exactly once.
    find: &'static str,
    replace: &'static str,
}

const JUDGEMENT: &str = "crates/engine/core/src/decisions/judgement.rs";
const AGGREGATOR: &str = "crates/engine/core/src/aggregator.rs";
const ASSIGNMENT: &str = "crates/engine/core/src/assignment.rs";
const GRADIENT_SLOT: &str = "crates/engine/wire/src/gradient_slot.rs";
const TRAIN_DIR: &str = "crates/engine/server/src/train_dir.rs";
const FOLLOWER_FILES: &str = "crates/engine/server/src/follower_files.rs";
const MEMBERSHIP: &str = "crates/engine/core/src/membership.rs";
const MEAN: &str = "crates/engine/core/src/mean.rs";
const SAVES: &str = "crates/engine/server/src/saves.rs";
const COMMIT_PATH: &str = "crates/engine/server/src/commit_path.rs";

static MUTANTS: [Mutant; 11] = [
    Mutant {
        name: "counts_a_duplicate",
        fault: "a second gradient of the same tower step counts as one more",
        edits: &[
            Edit {
                file: JUDGEMENT,
                find: "\n            _ => Err((Verdict::Accepted, Dropped::Duplicate)),\n",
                replace: "\n            _ => Ok(0),\n",
            },
            Edit {
                file: AGGREGATOR,
                find: "        if self.pending.contains_key(&contribution.of()) {
            return false;
        }
",
                replace: "        let mut contribution = contribution;
        while self.pending.contains_key(&contribution.of()) {
            contribution.push.tower_step.tower.0 += 1;
        }
",
            },
        ],
    },
    Mutant {
        name: "accepts_a_stale_push",
        fault: "a gradient is accepted whatever step and state it was taken at",
        edits: &[Edit {
            file: JUDGEMENT,
            find: "=> self.out_of_step(push)?,",
            replace: "=> self.out_of_step(push).unwrap_or(0),",
        }],
    },
    Mutant {
        name: "forgets_a_reassigned_lease",
        fault: "the tower step of a lost worker is not given to another",
        edits: &[Edit {
            file: ASSIGNMENT,
            find: "open.holders.retain(|holder| holder.worker != worker);",
            replace: "let _ = open;",
        }],
    },
    Mutant {
        name: "believes_any_generation",
        fault: "a push takes what is in its worker's slot, whatever push that was written for",
        edits: &[Edit {
            file: GRADIENT_SLOT,
            find: "found == generation.0 && found != NO_GENERATION",
            replace: "found > 0 || generation.0 > 0",
        }],
    },
    Mutant {
        name: "believes_any_secret",
        fault: "a request that names a worker is taken for that worker's",
        edits: &[
            Edit {
                file: MEMBERSHIP,
                find: "worker.filter(|worker| worker.secret == member.secret)?;",
                replace: "worker?;",
            },
            Edit {
                file: MEMBERSHIP,
                find: "worker.is_some_and(|worker| worker.secret == member.secret)",
                replace: "worker.is_some()",
            },
        ],
    },
    Mutant {
        name: "keeps_any_score",
        fault: "scores are kept of any step, and as many as are told",
        edits: &[
            Edit {
                file: FOLLOWER_FILES,
                find: "if !self.checkpoints().contains(&score.global_step) {",
                replace: "if false {",
            },
            Edit {
                file: FOLLOWER_FILES,
                find: "if scores.num_scores_of(&record.checkpoint)? >= MAX_SCORES_OF_CHECKPOINT {",
                replace: "if false {",
            },
        ],
    },
    Mutant {
        name: "flips_before_writing",
        fault: "workers hear of every other step before the state file holds it",
        edits: &[
            Edit {
                file: COMMIT_PATH,
                find: "        self.files.write(&next, digest, &note.to_bytes())?;
",
                replace: "        let is_written = update.at.global_step.0 % 2 == 0;
        if is_written {
            self.files.write(&next, digest, &note.to_bytes())?;
        }
",
            },
            Edit {
                file: COMMIT_PATH,
                find: "        self.files.flip()?;
",
                replace: "        if is_written {
            self.files.flip()?;
        }
",
            },
        ],
    },
    Mutant {
        name: "saves_two_at_a_time",
        fault: "a checkpoint is begun while the one before is still written",
        edits: &[Edit {
            file: SAVES,
            find: "        if self.under_way.is_some() {
            return None;
        }
",
            replace: "",
        }],
    },
    Mutant {
        name: "saves_the_oldest",
        fault: "of the states that are due during a save the first is saved next",
        edits: &[Edit {
            file: SAVES,
            find: "self.wanted = Some(snapshot);",
            replace: "self.wanted.get_or_insert(snapshot);",
        }],
    },
    Mutant {
        name: "counts_damaged_checkpoints",
        fault: "a checkpoint that cannot be loaded counts as one of those that are kept",
        edits: &[Edit {
            file: TRAIN_DIR,
            find: "        looked_into.insert(path.to_owned(), (stamp, is_good));
",
            replace: "        let is_good = is_good || path.exists();
        looked_into.insert(path.to_owned(), (stamp, is_good));
",
        }],
    },
    Mutant {
        name: "divides_by_the_wrong_number",
        fault: "the mean divides by one tower too many",
        edits: &[
            Edit {
                file: MEAN,
                find: "let count = towers.len() as f32;",
                replace: "let count = (towers.len() + 1) as f32;",
            },
            Edit {
                file: MEAN,
                find: "/ N as f32\n",
                replace: "/ (N + 1) as f32\n",
            },
        ],
    },
];

/// Put faults into the server and see that the simulation finds each.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Those whose names hold this word, instead of all
    #[arg(value_name = "WORD", default_value = "")]
    only: String,
}

/// Tries mutants; an error if one survives or cannot be built.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> anyhow::Result<()> {
    let folder = workspace.root().join("target/mutants");
    let mutants: Vec<&Mutant> = MUTANTS
        .iter()
        .filter(|mutant| mutant.name.contains(&args.only))
        .collect();
    ensure!(!mutants.is_empty(), "no mutant is called {:?}", args.only);
    let mut survivors = Vec::new();
    for mutant in &mutants {
        say!("==> {}: {}", mutant.name, mutant.fault);
        match mutant.try_out(workspace, &folder)? {
            Some(found) => say!("    found: {found}"),
            None => survivors.push(mutant.name),
        }
    }
    if !survivors.is_empty() {
        let names = survivors.join(", ");
        bail!("the simulation does not see these faults within {SEEDS} seeds: {names}");
    }
    say!("all {} mutants were found", mutants.len());
    Ok(())
}

impl Mutant {
    /// Simulates the mutant: the first seed that finds it, and how; `None` if none does.
    fn try_out(&self, workspace: &Workspace, folder: &Path) -> anyhow::Result<Option<String>> {
        let sources = folder.join(self.name);
        workspace.copy_sources(&sources)?;
        for edit in self.edits {
            let path = sources.join(edit.file);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(&path, self.with(edit, &text)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }

        let cargo = |arguments: &[&str]| {
            let mut cargo = workspace.cargo();
            cargo
                .current_dir(&sources)
                // The dependencies are built once for all of them.
                .env("CARGO_TARGET_DIR", folder.join("target"))
                .env("CIFAR_SIM_SEEDS", SEEDS.to_string())
                .env_remove("CIFAR_SIM_SEED")
                .args(SIMULATION)
                .args(arguments);
            cargo
        };
        let hint = "a mutant must build; the compiler says above what is wrong with its text";
        command::run(&mut cargo(&["--quiet", "--no-run"]), hint)?;
        self.judge(&mut cargo(&["--quiet"]))
    }

    fn with(&self, edit: &Edit, text: &str) -> anyhow::Result<String> {
        let times = text.matches(edit.find).count();
        ensure!(
            times == 1,
            "mutant {}: {:?} stands {times} times in {}",
            self.name,
            edit.find,
            edit.file
        );
        Ok(text.replace(edit.find, edit.replace))
    }

    fn judge(&self, simulation: &mut Command) -> anyhow::Result<Option<String>> {
        let output = simulation
            .output()
            .with_context(|| format!("cannot start `{}`", command::shown(simulation)))?;
        if output.status.success() {
            return Ok(None);
        }
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8_lossy(&shown);
        let found = found_in(&shown).with_context(|| {
            format!("mutant {} fails, but no check says so:\n{shown}", self.name)
        })?;
        Ok(Some(found))
    }
}

/// What the simulation says of the seed that failed.
fn found_in(output: &str) -> Option<String> {
    output
        .lines()
        .find(|line| line.starts_with("seed ") && line.contains("CIFAR_SIM_SEED="))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_changes_exactly_one_place() {
        let edits = |mutant: &'static Mutant| mutant.edits.iter().map(move |edit| (mutant, edit));
        for (mutant, edit) in MUTANTS.iter().flat_map(edits) {
            let path = Workspace::find().root().join(edit.file);
            let text = fs::read_to_string(path).unwrap();
            assert_ne!(mutant.with(edit, &text).unwrap(), text, "{}", mutant.name);
        }
    }

    #[test]
    fn a_failed_check_is_told_from_a_failed_build() {
        let line = "seed 3 fails, CIFAR_SIM_SEED=3 repeats it: step 2 came back";
        let output = format!("thread 'a' panicked at main.rs:1:2:\n{line}\nmore\n");
        assert_eq!(found_in(&output).as_deref(), Some(line));
        assert_eq!(found_in("error: could not compile `cifar-ps`"), None);
    }
}
