//! Text that others gave, such as the name of a worker: what of it can be shown to people.

use serde::{Deserialize, Deserializer};

/// The text with a replacement character in the place of everything that could do more than stand in a line:
/// control characters move a terminal's cursor or begin new lines, and marks of direction show text in another
/// order than it has.
#[must_use]
pub fn printable(text: &str) -> String {
    let acts = |character: char| {
        let is_mark = matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        character.is_control() || is_mark
    };
    text.replace(acts, "\u{fffd}")
}

/// Reads text that is [`printable()`], for `#[serde(deserialize_with = ..)]`.
///
/// # Errors
///
/// If it is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| printable(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_acts_on_a_terminal_is_replaced() {
        assert_eq!(printable("Zoë's host/12 日本"), "Zoë's host/12 日本");
        for acts in [
            "\u{1b}[2J",
            "\n",
            "\u{9b}1A",
            "\u{7f}",
            "\u{202e}",
            "\u{2028}",
        ] {
            let shown = printable(&format!("a{acts}b"));
            assert!(
                shown.starts_with("a\u{fffd}") && shown.ends_with('b'),
                "{acts:?}"
            );
        }
    }
}
