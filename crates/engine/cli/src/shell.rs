//! Commands as a person can type them.

use std::path::Path;

/// A path as a shell takes it.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let mut text = path.display().to_string();
    if text.starts_with('-') {
        // It would be taken for a flag.
        text.insert_str(0, "./");
    }
    word(&text)
}

/// A word as a shell takes it.
#[must_use]
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        for (path, expected) in [
            ("runs/default", "runs/default"),
            ("my runs", "'my runs'"),
            ("it's", r"'it'\''s'"),
            ("-x", "./-x"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
