//! Do the logs keep to the words that docs/logs.md explains?

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::tidy::source_files;

/// Macros whose arguments are fields and a sentence.
const MACROS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The field that an argument gives: `name`, `%name`, `?name`, `name = value`. A sentence is none.
fn field_of(argument: &[TokenTree]) -> Option<String> {
    let is_sigil = |token: &&TokenTree| match token {
        TokenTree::Punct(punct) => ['%', '?'].contains(&punct.as_char()),
        _ => false,
    };
    let mut tokens = argument.iter().skip_while(is_sigil);
    match (tokens.next()?, tokens.next()) {
        (TokenTree::Ident(name), None) => Some(name.to_string()),
        (TokenTree::Ident(name), Some(TokenTree::Punct(punct))) if punct.as_char() == '=' => {
            Some(name.to_string())
        }
        (TokenTree::Literal(_), _) => None,
        other => panic!("is this a field of a log? {other:?}"),
    }
}

/// The fields of the logs in some code, wherever in it they are. Arguments after the sentence belong
/// to that: facts are to be fields instead.
fn fields_in(code: TokenStream, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        let is_log = index >= 2
            && group.delimiter() == Delimiter::Parenthesis
            && matches!(&tokens[index - 1], TokenTree::Punct(punct) if punct.as_char() == '!')
            && matches!(&tokens[index - 2], TokenTree::Ident(name) if MACROS.contains(&name.to_string().as_str()));
        if !is_log {
            fields_in(group.stream(), found);
            continue;
        }
        let arguments: Vec<TokenTree> = group.stream().into_iter().collect();
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
        for argument in arguments
            .split(is_comma)
            .filter(|tokens| !tokens.is_empty())
        {
            match field_of(argument) {
                Some(field) => drop(found.insert(field)),
                None => break,
            }
        }
    }
}

#[test]
fn every_field_of_the_logs_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = fs::read_to_string(root.join("docs/logs.md")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(
        explained.is_sorted(),
        "the table is in the order of the alphabet"
    );

    let mut files = Vec::new();
    source_files(&root.join("crates"), &mut files);
    let mut used = BTreeSet::new();
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        let code: TokenStream = code.parse().unwrap();
        fields_in(code, &mut used);
    }
    let used: Vec<&str> = used.iter().map(String::as_str).collect();
    let differences = |a: &[&str], b: &[&str]| -> Vec<String> {
        let missing = a.iter().filter(|word| !b.contains(word));
        missing.map(ToString::to_string).collect()
    };
    assert_eq!(
        differences(&used, &explained),
        [""; 0],
        "not in docs/logs.md"
    );
    assert_eq!(differences(&explained, &used), [""; 0], "in no program");
}

#[test]
fn fields_are_told_from_sentences() {
    let code = r#"
        fn f() {
            info!(worker = worker.0, name, %tower_step, ?goodbye, "a sentence with {braces}", inside);
            tracing::warn!("only a sentence: {error}");
            match x { _ => debug!(path = %path.display(), loss = f(a, b), "it {}", is) }
        }
    "#;
    let mut found = BTreeSet::new();
    fields_in(code.parse().unwrap(), &mut found);
    let found: Vec<String> = found.into_iter().collect();
    assert_eq!(
        found,
        ["goodbye", "loss", "name", "path", "tower_step", "worker"]
    );
}
