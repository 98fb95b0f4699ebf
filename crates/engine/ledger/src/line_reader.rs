//! Reads the lines of a ledger out of its bytes, in whatever pieces these come.
//!
//! It opens no file. Every reader of a ledger uses it, so all of them skip the same lines. `Damage` counts damaged
//! lines and keeps the first; it goes with the history or view that was read, so that each reader tells of it. Text of
//! a record is cleaned of control characters as it is read, and names of workers already as they come in.

use std::io::{self, Read};

use crate::damage::Place;
use crate::record::Line;

/// A ledger is read in pieces of this size.
pub(crate) const PIECE_BYTES: u64 = 1024 * 1024;

/// A longer line is damaged: that of a step with 4,096 towers has a megabyte.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Puts the lines of a ledger together again.
#[derive(Debug)]
pub struct LineReader {
    /// Where the line begins that is not whole yet.
    place: Place,
    /// How much of it has come.
    length: usize,
    /// What has come of it; nothing if that is too much for a line.
    begun: Vec<u8>,
}

impl Default for LineReader {
    fn default() -> Self {
        LineReader::at(0)
    }
}

impl LineReader {
    /// Begins at a byte of a ledger, whose line is counted as the first.
    #[must_use]
    pub fn at(offset: u64) -> Self {
        LineReader {
            place: Place { line: 1, offset },
            length: 0,
            begun: Vec::new(),
        }
    }

    /// Takes the next bytes and hands over each line that they complete: where it stands, and the line or what
    /// is wrong with it.
    pub fn read(&mut self, bytes: &[u8], mut each: impl FnMut(Place, Result<Line, String>)) {
        for text in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.length = self.length.saturating_add(text.len());
            match self.length > MAX_LINE_BYTES {
                true => self.begun = Vec::new(),
                false => self.begun.extend_from_slice(text),
            }
            if text.ends_with(b"\n") {
                each(self.place, self.whole_line());
                self.place.line += 1;
                self.place.offset = self.place.offset.saturating_add(self.length as u64);
                self.restart_line();
            }
        }
    }

    /// Takes the next piece of a ledger from `file`, as [`read`](Self::read) does; whether there was one.
    pub(crate) fn read_piece(
        &mut self,
        file: impl Read,
        each: impl FnMut(Place, Result<Line, String>),
    ) -> io::Result<bool> {
        let mut piece = Vec::new();
        file.take(PIECE_BYTES).read_to_end(&mut piece)?;
        self.read(&piece, each);
        Ok(!piece.is_empty())
    }

    fn whole_line(&self) -> Result<Line, String> {
        if self.length > MAX_LINE_BYTES {
            return Err(format!("it is longer than {} MiB", MAX_LINE_BYTES >> 20));
        }
        serde_json::from_slice(&self.begun).map_err(|error| reason_of(&error))
    }

    /// Forgets what has come of a line that is not whole yet: the bytes that come next begin it again, or
    /// another one in its place.
    pub fn restart_line(&mut self) {
        self.length = 0;
        self.begun.clear();
    }

    /// The byte that the line begins with that is not whole yet.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.place.offset
    }
}

/// What is wrong with the text of a line. The error counts lines in that text, of which there is one.
fn reason_of(error: &serde_json::Error) -> String {
    let column = error.column();
    let text = error.to_string();
    let position = format!(" at line {} column {column}", error.line());
    match text.strip_suffix(&position) {
        Some(what) => format!("{what} at column {column}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{text, undisturbed};

    type Found = Vec<(Place, Result<Line, String>)>;

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Found {
        let mut found = Vec::new();
        let mut reader = LineReader::default();
        for piece in pieces {
            reader.read(piece, |place, line| found.push((place, line)));
        }
        found
    }

    fn text_of(steps: u64) -> Vec<u8> {
        text(undisturbed(steps)).into_bytes()
    }

    /// The numbers of the lines that are damaged, and how many are whole.
    fn damaged_and_whole(found: &Found) -> (Vec<u64>, usize) {
        let damaged = found.iter().filter(|(_, line)| line.is_err());
        let damaged: Vec<u64> = damaged.map(|(place, _)| place.line).collect();
        let whole = found.len() - damaged.len();
        (damaged, whole)
    }

    #[test]
    fn a_damaged_line_is_placed_and_those_after_it_are_read() {
        let mut ledger = text_of(2);
        let second = ledger.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        ledger[second + 3] ^= 0x80;
        let found = read([&ledger[..]]);
        assert_eq!(damaged_and_whole(&found), (vec![2], 4));
        assert_eq!(found[1].0.offset, second as u64);
    }

    #[test]
    fn a_reason_says_where_in_the_line_it_goes_wrong() {
        let found = read([&b"{\"at_micros\":7}\nno record\n\n"[..]]);
        let reasons: Vec<String> = found
            .into_iter()
            .map(|(_, line)| line.unwrap_err())
            .collect();
        assert_eq!(
            reasons,
            [
                "missing field `record` at column 15",
                "expected ident at column 2",
                "EOF while parsing a value at column 0"
            ]
        );
    }

    #[test]
    fn a_hole_of_zeros_takes_the_lines_that_it_touches() {
        let mut ledger = text_of(5);
        let ends: Vec<usize> = (0..ledger.len())
            .filter(|at| ledger[*at] == b'\n')
            .collect();
        ledger[ends[2] + 10..ends[4] + 10].fill(0);
        let found = read([&ledger[..]]);
        assert_eq!(damaged_and_whole(&found), (vec![4], 5));
    }

    #[test]
    fn an_endless_line_takes_no_memory_and_is_one_damaged_line() {
        let piece = vec![0; 1 << 20];
        let mut reader = LineReader::default();
        let mut found = Vec::new();
        for _ in 0..40 {
            reader.read(&piece, |place, line| found.push((place, line)));
            assert!(reader.begun.capacity() <= 2 * MAX_LINE_BYTES);
        }
        assert_eq!((found.len(), reader.begun.capacity()), (0, 0));
        let rest = [b"\n", &text_of(1)[..]].concat();
        reader.read(&rest, |place, line| found.push((place, line)));
        assert_eq!(damaged_and_whole(&found), (vec![1], 4));
        assert_eq!(found[0].1, Err("it is longer than 16 MiB".to_owned()));
        assert_eq!(found[1].0.offset, (40 << 20) + 1);
    }

    proptest! {
        #[test]
        fn the_lines_are_the_same_wherever_they_are_cut(
            damage in 0_usize..2000, cuts in prop::collection::vec(0_usize..2000, 0..5),
        ) {
            let mut ledger = text_of(2);
            let length = ledger.len();
            ledger[damage % length] ^= 0x80;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % length).collect();
            cuts.extend([0, length]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &ledger[pair[0]..pair[1]]);
            prop_assert_eq!(read(pieces), read([&ledger[..]]));
        }
    }
}
