//! The lines of a ledger that could not be read: how many there are, where, and what is wrong with them.
//!
//! A disk, a power cut or an editor may damage a line. Every reader skips it, goes on with the next one, and
//! tells of the damage beside what it has read.

use std::fmt;

use pserver_run::printable;
use serde::Serialize;

use crate::units::{MAX_LINES, count};

/// What is said of one line is cut after this many characters.
const MAX_REASON: usize = 200;

/// The skipped lines of a ledger: how many there are, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// How many lines were skipped.
    num_lines: u64,
    /// The first of them, in order: a file of another kind may have millions.
    first: Vec<DamagedLine>,
}

/// A line that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedLine {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong with it; it can be printed as it is.
    pub reason: String,
}

/// Where a line stands in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, counted from 1.
    pub line: u64,
    /// The byte that it begins with, counted from 0.
    pub offset: u64,
}

impl Damage {
    /// One more line was skipped.
    pub fn add(&mut self, place: Place, reason: &str) {
        self.num_lines += 1;
        if self.first.len() < MAX_LINES {
            let reason = printable(reason).chars().take(MAX_REASON).collect();
            self.first.push(DamagedLine { place, reason });
        }
    }

    /// Adds lines that come after these.
    pub fn extend(&mut self, later: &Damage) {
        self.num_lines += later.num_lines;
        let room = MAX_LINES - self.first.len();
        self.first.extend(later.first.iter().take(room).cloned());
    }

    /// Whether no line was skipped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.num_lines == 0
    }

    /// The first line that was skipped, and how many more were, without a line break.
    #[must_use]
    pub fn in_short(&self) -> String {
        match (self.first.first(), self.num_lines) {
            (None, _) => "no line is damaged".to_owned(),
            (Some(line), 1) => line.to_string(),
            (Some(line), number) => format!("{line} (and {} more)", count(number - 1)),
        }
    }

    /// How many lines were skipped.
    #[must_use]
    pub fn num_lines(&self) -> u64 {
        self.num_lines
    }

    /// The first lines that were skipped.
    #[must_use]
    pub fn first(&self) -> &[DamagedLine] {
        &self.first
    }
}

/// `2 lines of the ledger are damaged and were skipped`, and a line for each of the first; nothing where there
/// is no damage.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.num_lines {
            0 => return Ok(()),
            1 => writeln!(f, "1 line of the ledger is damaged and was skipped:")?,
            many => writeln!(
                f,
                "{} lines of the ledger are damaged and were skipped:",
                count(many)
            )?,
        }
        for line in &self.first {
            writeln!(f, "  {line}")?;
        }
        match self.num_lines - self.first.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "  ... and {} more", count(more)),
        }
    }
}

impl fmt::Display for DamagedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, offset } = self.place;
        let (line, offset) = (count(line), count(offset));
        write!(f, "line {line}, at byte {offset}: {}", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(lines: std::ops::RangeInclusive<u64>) -> Damage {
        let mut damage = Damage::default();
        for line in lines {
            let offset = 10 * (line - 1);
            damage.add(Place { line, offset }, "it is empty");
        }
        damage
    }

    #[test]
    fn the_first_lines_are_named_and_the_others_counted() {
        assert_eq!(Damage::default().to_string(), "");
        assert_eq!(
            damage(3..=3).to_string(),
            "1 line of the ledger is damaged and was skipped:\n  line 3, at byte 20: it is empty\n"
        );
        assert_eq!(
            damage(3..=6).in_short(),
            "line 3, at byte 20: it is empty (and 3 more)"
        );
        let many = damage(1..=1000).to_string();
        assert!(many.starts_with("1,000 lines of the ledger are damaged and were skipped:\n"));
        assert!(many.ends_with("\n  ... and 980 more\n"), "{many}");
    }

    #[test]
    fn damage_found_in_parts_is_that_found_at_once() {
        let mut parts = damage(1..=15);
        parts.extend(&damage(16..=40));
        assert_eq!(parts, damage(1..=40));
    }

    #[test]
    fn a_reason_moves_no_cursor_and_has_an_end() {
        let mut damage = Damage::default();
        let place = Place { line: 1, offset: 0 };
        damage.add(place, &("\u{1b}[2J".to_owned() + &"x".repeat(10_000)));
        let reason = &damage.first()[0].reason;
        assert!(!reason.contains(char::is_control) && reason.len() < 1000);
    }
}
