//! Is what the documents say true?

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use pserver_run::GlobalStep;
use pserver_state::{TrainingState, checkpoint, initial::initial_variables};

use pserver_server::args::RunArgs;
use pserver_server::config::new_run;

use crate::python::python;

fn read(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(document);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

#[test]
fn the_readmes_python_snippet_reads_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let train_dir = folder.path().join("runs/default");
    fs::create_dir_all(&train_dir).unwrap();
    let layout = cifar_model::layout();
    let mut state = TrainingState::initial(initial_variables(&layout, 1));
    state.global_step = GlobalStep(1000);
    checkpoint::save(
        &train_dir,
        &layout,
        &state,
        &new_run(&RunArgs::default(), state.digest()).unwrap(),
    )
    .unwrap();

    let readme = read("README.md");
    let snippet = readme
        .split("```python\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let output = Command::new(python().unwrap())
        .args(["-c", snippet])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "1000 (5, 5, 3, 64) float32"
    );
}

#[test]
fn every_flag_in_the_documents_exists() {
    const OF_OTHER_PROGRAMS: [&str; 7] = [
        "--workspace",
        "--release",
        "--seeds",
        "--minutes",
        "--peers",
        "--readers",
        "--logdir",
    ];
    let mut known: BTreeSet<String> = OF_OTHER_PROGRAMS.map(str::to_owned).into();
    for command in [
        pserver_server::Args::command(),
        cifar_worker::worker_program::Args::command(),
        cifar_worker::eval_program::Args::command(),
        cifar_train::args::command(),
        cifar_bench::program::Args::command(),
        cifar_data::program::Args::command(),
    ] {
        known.extend(flags_of(&command));
    }
    known.extend(["--help", "--version"].map(str::to_owned));
    for document in ["README.md", "deploy/README.md", "ARCHITECTURE.md"] {
        for flag in flags_in(&read(document)) {
            assert!(
                known.contains(&flag),
                "{document} names {flag}, which no program has"
            );
        }
    }
}

/// A row of the threat model says something that a test holds.
#[test]
fn every_sentence_of_the_threat_model_has_its_tests() {
    let text = read("docs/threat-model.md");
    let (_, section) = text.split_once("\n## Threat model\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let sources = sources();
    let mut num_rows = 0;
    for row in rows.skip(1) {
        let (_, tests) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            assert!(sources.contains(&format!("fn {name}()")), "{name}: {row}");
        }
        num_rows += 1;
    }
    assert!(num_rows > 10, "{num_rows} rows");
}

/// All of the project's own code.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.join("crates"), root.join("tests")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

/// The flags of a command and of its verbs.
fn flags_of(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_long());
    let of_verbs = command.get_subcommands().flat_map(flags_of);
    own.map(|long| format!("--{long}"))
        .chain(of_verbs)
        .collect()
}

fn flags_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
    let is_flag = |word: &&str| {
        word.strip_prefix("--")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    words.filter(is_flag).map(str::to_owned).collect()
}

#[test]
fn the_files_of_the_walk_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let architecture = read("ARCHITECTURE.md");
    let files: Vec<&str> = architecture
        .split('`')
        .filter(|word| word.starts_with("crates/") && word.ends_with(".rs"))
        .collect();
    assert!(files.len() >= 10, "the walk has ten files, found {files:?}");
    for file in files {
        assert!(
            root.join(file).is_file(),
            "ARCHITECTURE.md names {file}, which is not there"
        );
    }
}
