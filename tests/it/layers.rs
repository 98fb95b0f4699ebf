//! Which crate may know of which, and of what none may.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::tidy::{root, source_files};

/// The crates of this workspace that each one uses, besides in its tests. A new edge is a change of this table.
const EDGES: [(&str, &str); 19] = [
    // The engine, which knows no model.
    ("pserver-run", ""),
    ("pserver-core", "pserver-run"),
    ("pserver-state", "pserver-run"),
    ("pserver-events", ""),
    ("pserver-guard", ""),
    ("pserver-cli", ""),
    ("pserver-ledger", "pserver-events pserver-run pserver-state"),
    (
        "pserver-wire",
        "pserver-events pserver-guard pserver-run pserver-state",
    ),
    ("pserver-view", "pserver-ledger pserver-run"),
    (
        "pserver-top",
        "pserver-cli pserver-guard pserver-ledger pserver-run pserver-view pserver-wire",
    ),
    (
        "pserver-server",
        "pserver-cli pserver-core pserver-events pserver-guard pserver-ledger pserver-run pserver-state pserver-top \
         pserver-view pserver-wire",
    ),
    (
        "pserver-worker",
        "pserver-cli pserver-guard pserver-run pserver-state pserver-wire",
    ),
    // CIFAR-10.
    ("cifar-kernels", ""),
    ("cifar-data", "pserver-cli pserver-run"),
    ("cifar-model", "pserver-run"),
    ("cifar-ps", "cifar-model pserver-server"),
    (
        "cifar-worker",
        "cifar-data cifar-kernels cifar-model pserver-cli pserver-events pserver-guard pserver-ledger pserver-run pserver-state \
         pserver-wire pserver-worker",
    ),
    (
        "cifar-train",
        "cifar-data cifar-model pserver-cli pserver-guard pserver-ledger pserver-run pserver-server pserver-state pserver-wire",
    ),
    ("xtask", ""),
];

/// They use what they measure, break or run.
const USE_ALL: [&str; 3] = ["cifar-bench", "cifar-fuzz", "cifar-tests"];

#[test]
fn crates_use_those_that_they_may() {
    let allowed: BTreeMap<&str, BTreeSet<String>> = EDGES
        .into_iter()
        .map(|(of, uses)| (of, uses.split_whitespace().map(str::to_owned).collect()))
        .collect();
    let mut found = edges();
    for package in USE_ALL {
        assert!(found.remove(package).is_some(), "{package} is not there");
    }
    assert_eq!(found.len(), allowed.len(), "{:?}", found.keys());
    for (package, uses) in found {
        assert_eq!(Some(&uses), allowed.get(package.as_str()), "{package}");
    }
}

/// The crates of the workspace, and those of it that each depends on to be built and run.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&output).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let name = |of: &Value| of["name"].as_str().unwrap().to_owned();
    let used = |package: &Value| -> BTreeSet<String> {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .filter(|on| on["path"].is_string() && on["kind"] != "dev")
            .map(name)
            .collect()
    };
    packages.map(|it| (name(it), used(it))).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A crate, and all that it is built with, as `cargo tree` names them.
fn tree(package: &str, edges: &str) -> BTreeSet<String> {
    let arguments = ["--edges", edges, "--prefix", "none", "--package", package];
    let output = cargo(&[&["tree"], &arguments[..]].concat());
    let names = output
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// What a crate may be built with that decides and does nothing else, beside itself.
const PURE: [&str; 33] = [
    "block-buffer",
    "cfg-if",
    "const-oid",
    "cpufeatures",
    "crypto-common",
    "digest",
    "hybrid-array",
    "libm",
    "multiversion",
    "multiversion-macros",
    "ppv-lite86",
    "proc-macro2",
    "quote",
    "rand_chacha",
    "rand_core",
    "rustversion",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "sha2",
    "subtle",
    "syn",
    "target-features",
    "thiserror",
    "thiserror-impl",
    "twox-hash",
    "typenum",
    "unicode-ident",
    "zerocopy",
    "zerocopy-derive",
    "pserver-core",
    "pserver-run",
];

/// No clock, no file, no socket and no other process: neither by a crate nor by the standard library.
#[test]
fn what_decides_can_do_nothing_else() {
    let mut found = tree("pserver-core", "normal");
    found.extend(tree("pserver-run", "normal"));
    let other: Vec<&String> = found
        .iter()
        .filter(|name| !PURE.contains(&name.as_str()))
        .collect();
    assert!(other.is_empty(), "{other:?}");
    let mut files = Vec::new();
    for package in ["core", "run"] {
        let before = files.len();
        let source = root().join("crates/engine").join(package).join("src");
        source_files(&source, &mut files);
        assert!(files.len() > before + 10);
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for module in ["fs", "net", "process", "thread", "os", "env"] {
            let named = format!("std::{module}");
            assert!(!text.contains(&named), "{} uses {named}", file.display());
        }
    }
}

/// The server ships without libtorch, and the launcher starts without it.
#[test]
fn only_what_computes_with_libtorch_links_it() {
    const LINK: [&str; 3] = ["cifar-worker", "cifar-bench", "cifar-tests"];
    for package in edges().into_keys() {
        let links = tree(&package, "normal,build").contains("torch-sys");
        assert_eq!(links, LINK.contains(&package.as_str()), "{package}");
    }
}

/// Files of the engine that name the application still.
const NAME_IT: [&str; 42] = [
    "cli/build.rs",
    "cli/src/args.rs",
    "cli/src/console.rs",
    "cli/src/lib.rs",
    "cli/tests/panic.rs",
    "cli/tests/parent.rs",
    "cli/tests/stuck.rs",
    "core/src/schedule.rs",
    "guard/src/address.rs",
    "guard/src/gate.rs",
    "guard/src/limits.rs",
    "ledger/src/explain.rs",
    "ledger/src/explain_step.rs",
    "ledger/src/score_record.rs",
    "ledger/src/summary.rs",
    "run/src/config.rs",
    "run/src/data_set.rs",
    "server/page/index.html",
    "server/page/panels.js",
    "server/src/administration.rs",
    "server/src/args.rs",
    "server/src/config.rs",
    "server/src/follower_files.rs",
    "server/src/inquiry.rs",
    "server/src/loss_averages.rs",
    "server/src/page/entry.rs",
    "server/src/page/host.rs",
    "server/src/page/metrics.rs",
    "server/src/page/watch.rs",
    "server/src/program.rs",
    "server/src/server_file.rs",
    "server/src/summaries.rs",
    "server/tests/sim/main.rs",
    "state/src/checkpoint.rs",
    "state/src/state_file.rs",
    "top/Cargo.toml",
    "top/examples/picture.rs",
    "top/src/lib.rs",
    "top/src/program.rs",
    "top/src/screen.rs",
    "wire/src/gradient_slot.rs",
    "wire/src/method.rs",
];

/// The engine knows no model: not by a name either.
#[test]
fn the_engine_names_no_application() {
    let engine = root().join("crates/engine");
    let mut found = BTreeSet::new();
    name_it(&engine, &engine, &mut found);
    let known: BTreeSet<String> = NAME_IT.map(str::to_owned).into();
    let new: Vec<&String> = found.difference(&known).collect();
    assert!(new.is_empty(), "these name it too: {new:?}");
    let gone: Vec<&String> = known.difference(&found).collect();
    assert!(gone.is_empty(), "these name it no more: {gone:?}");
}

/// The files below `folder` in which the word stands, by their paths from `engine`.
fn name_it(engine: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            name_it(engine, &path, found);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if text.contains("cifar") {
            let path = path.strip_prefix(engine).unwrap();
            found.insert(path.to_str().unwrap().to_owned());
        }
    }
}

/// A file and the folder of the same name count as one. A reader of a file never needs the files that use it.
#[test]
fn files_of_a_crate_use_each_other_in_one_direction() {
    for folder in ["engine", "cifar10", "tools"] {
        for entry in fs::read_dir(root().join("crates").join(folder)).unwrap() {
            let source = entry.unwrap().path().join("src");
            let mut uses = uses_of_files(&source);
            // Those that use no other that is left.
            while let Some(last) = uses.iter().find(|(_, used)| used.is_empty()) {
                let last = last.0.clone();
                uses.remove(&last);
                for used in uses.values_mut() {
                    used.remove(&last);
                }
            }
            assert!(
                uses.is_empty(),
                "circles in {}: {uses:#?}",
                source.display()
            );
        }
    }
}

/// The files of a crate, by the names of its modules, and those that each uses, besides in its tests.
fn uses_of_files(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    source_files(source, &mut files);
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut exported = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(source).unwrap().with_extension("");
        let text = code_of(&fs::read_to_string(&file).unwrap());
        let first = path.iter().next().unwrap().to_str().unwrap();
        let is_test = path.iter().skip(1).any(|part| part == "tests");
        match first {
            "lib" => exported = exports_of(&text),
            "main" | "bin" => {}
            _ if is_test => {}
            module => *texts.entry(module.to_owned()).or_default() += &text,
        }
    }
    let module_of = |name: &str| exported.get(name).cloned().unwrap_or(name.to_owned());
    let used_by = |module: &String, text: &String| {
        let used = named_after(text, "crate::").into_iter();
        let used = used.map(|name| module_of(&name));
        let is_other = |name: &String| name != module && texts.contains_key(name);
        (module.clone(), used.filter(is_other).collect())
    };
    texts
        .iter()
        .map(|(module, text)| used_by(module, text))
        .collect()
}

/// A file without its comments and without the tests at its end.
fn code_of(text: &str) -> String {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..tests].lines();
    let code = lines.filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// What the root of a crate exports, and from which module.
fn exports_of(text: &str) -> BTreeMap<String, String> {
    let mut exported = BTreeMap::new();
    for export in text.split("pub use ").skip(1) {
        let (path, _) = export.split_once(';').unwrap();
        let (module, names) = path.split_once("::").unwrap();
        for name in words(names) {
            exported.insert(name.to_owned(), module.to_owned());
        }
    }
    exported
}

/// The names that follow a prefix, one by one or in braces.
fn named_after(text: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split(prefix).skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split_once(';').map_or(group, |(names, _)| names),
            None => rest.split(|c: char| !is_of_word(c)).next().unwrap_or(""),
        };
        found.extend(words(names).map(str::to_owned));
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !is_of_word(c));
    words.filter(|word| !word.is_empty())
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
