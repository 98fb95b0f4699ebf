//! Does the tree keep the rules that ARCHITECTURE.md states?

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the clone.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let mut files = Vec::new();
    for folder in ["crates", "tests"] {
        source_files(&root().join(folder), &mut files);
    }
    assert!(files.len() > 50);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} has no module documentation",
            file.display()
        );
        for word in [
            concat!("FIX", "ME"),
            concat!("todo", "!("),
            concat!("unimplemented", "!("),
        ] {
            assert!(!text.contains(word), "{} contains {word}", file.display());
        }
    }
}

/// Lines that fit on a screen. What is longer is a table, or tells of more than one thing.
const MAX_LINES: usize = 60;

/// Functions that list one thing after the other.
const TABLES: [&str; 4] = [
    "incidents.rs: told",
    "log_lines.rs: write_record",
    "seeds.rs: ledgers",
    "seeds.rs: replies",
];

#[test]
fn a_function_fits_on_a_screen() {
    let mut files = Vec::new();
    source_files(&root().join("crates"), &mut files);
    let is_test = |file: &PathBuf| {
        let mut parts = file.strip_prefix(root()).unwrap().iter();
        parts.any(|part| part == "tests" || part == "tests.rs" || part == "reference.rs")
    };
    let mut long = Vec::new();
    for file in files.iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(file).unwrap();
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let lines: Vec<&str> = text[..end].lines().collect();
        let name = file.file_name().unwrap().to_str().unwrap();
        for (number, line) in lines.iter().enumerate() {
            let Some(function) = function_of(line) else {
                continue;
            };
            let indent = &line[..line.len() - line.trim_start().len()];
            let ends = |line: &str| line.strip_prefix(indent).is_some_and(|rest| rest == "}");
            let length = lines[number..].iter().position(|line| ends(line));
            if length.is_some_and(|length| length >= MAX_LINES) {
                long.push(format!("{name}: {function}"));
            }
        }
    }
    long.sort();
    assert_eq!(long, TABLES);
}

/// The function that a line begins, if it does and has a body of its own.
fn function_of(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_begin = before
        .split_whitespace()
        .all(|word| word.starts_with("pub") || matches!(word, "async" | "const" | "unsafe"));
    let name = after
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    let is_whole = line.ends_with(';') || line.ends_with('}');
    (is_begin && !name.is_empty() && !is_whole).then_some(name)
}

/// All source files below a folder.
pub(crate) fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
