//! Reads a ledger while a server writes to it: what is new since the last look.
//!
//! Nothing is locked and nothing is written. A line without an end is one that is being written, and
//! is left for the next look. A damaged line is skipped.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::damage::Damage;
use crate::ledger_file::LedgerError;
use crate::line_reader::LineReader;
use crate::record::Line;

/// A ledger, read as far as it was written at the last look.
#[derive(Debug)]
pub struct LedgerTail {
    path: PathBuf,
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// Device and number: another file may take this one's name.
    identity: (u64, u64),
    /// At the first line that was not read yet.
    lines: LineReader,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// The lines that were not read before, in order.
    pub lines: Vec<Line>,
    /// The lines among and after them that were skipped.
    pub damage: Damage,
    /// Whether these are the first lines of another ledger than that of the last look.
    pub begins_anew: bool,
    /// Bytes that were read so far, and bytes that there are.
    pub read_bytes: (u64, u64),
}

impl News {
    /// Whether there is more to be read at once.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let has_read = !self.lines.is_empty() || !self.damage.is_empty();
        has_read && self.read_bytes.0 < self.read_bytes.1
    }
}

impl LedgerTail {
    /// The ledger at `path`, from its beginning. It may not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        LedgerTail {
            path: path.to_owned(),
            open: None,
        }
    }

    /// Reads what is new: nothing where there is no ledger, and only a piece of much.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Read`] if it cannot be read.
    pub fn look(&mut self) -> Result<News, LedgerError> {
        self.news().map_err(LedgerError::reading(&self.path))
    }

    fn news(&mut self) -> io::Result<News> {
        let begins_anew = self.follow_name()?;
        let news = match &mut self.open {
            Some(open) => open.news()?,
            None => News::default(),
        };
        Ok(News {
            begins_anew,
            ..news
        })
    }

    /// Opens the file that has the name now, if that is another one; whether there was one before.
    fn follow_name(&mut self) -> io::Result<bool> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            // A run that is moved aside: another ledger will come.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let identity = (metadata.dev(), metadata.ino());
        let is_same =
            |open: &OpenFile| open.identity == identity && open.lines.offset() <= metadata.len();
        if self.open.as_ref().is_some_and(is_same) {
            return Ok(false);
        }
        let before = self.open.replace(OpenFile {
            file: File::open(&self.path)?,
            identity,
            lines: LineReader::default(),
        });
        Ok(before.is_some())
    }
}

impl OpenFile {
    /// Whole lines that were not read yet.
    fn news(&mut self) -> io::Result<News> {
        let length = self.file.metadata()?.len();
        // A server that starts removes a last line without an end.
        self.lines.restart_line();
        let begin = self.lines.offset();
        self.file.seek(SeekFrom::Start(begin))?;
        let (mut lines, mut damage) = (Vec::new(), Damage::default());
        let mut add = |place, line: Result<Line, String>| match line {
            Ok(line) => lines.push(line),
            Err(reason) => damage.add(place, &reason),
        };
        // One piece, or as many as the next line has.
        while self.lines.offset() == begin && self.lines.read_piece(&self.file, &mut add)? {}
        let read = self.lines.offset();
        Ok(News {
            lines,
            damage,
            begins_anew: false,
            read_bytes: (read, length.max(read)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;
    use crate::damage::Place;
    use crate::fixtures::{append, commit, new_ledger, undisturbed};
    use crate::line_reader::PIECE_BYTES;
    use crate::record::Record;

    #[test]
    fn each_line_is_seen_once() {
        let (_dir, path) = new_ledger();
        let mut tail = LedgerTail::new(&path);
        assert_eq!(tail.look().unwrap(), News::default());
        append(&path, undisturbed(3));
        let news = tail.look().unwrap();
        assert_eq!(news.lines.len(), 6);
        assert!(!news.begins_anew && !news.has_more());
        assert_eq!(tail.look().unwrap().lines, []);
        append(&path, [Record::Left { worker: 1 }]);
        assert_eq!(tail.look().unwrap().lines.len(), 1);
    }

    #[test]
    fn a_line_that_is_being_written_is_left_for_the_next_look() {
        let (_dir, path) = new_ledger();
        append(&path, undisturbed(1));
        let mut tail = LedgerTail::new(&path);
        tail.look().unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"at_micros\":7,\"record\":\"le").unwrap();
        let news = tail.look().unwrap();
        assert_eq!(news.lines, []);
        assert!(!news.has_more());
        file.write_all(b"ft\",\"worker\":3}\n").unwrap();
        let line = tail.look().unwrap().lines.remove(0);
        assert_eq!(line.record, Record::Left { worker: 3 });
    }

    #[test]
    fn much_is_read_in_pieces_and_a_long_line_whole() {
        let (_dir, path) = new_ledger();
        let long = || Record::Commit(commit(0, &[0; 8000]));
        append(&path, [long(), long(), Record::Left { worker: 1 }]);
        assert!(fs::metadata(&path).unwrap().len() > 2 * PIECE_BYTES);
        let mut tail = LedgerTail::new(&path);
        let mut seen = 0;
        loop {
            let news = tail.look().unwrap();
            seen += news.lines.len();
            if !news.has_more() {
                break;
            }
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn a_run_that_was_moved_aside_begins_anew() {
        let (dir, path) = new_ledger();
        append(&path, undisturbed(2));
        let mut tail = LedgerTail::new(&path);
        tail.look().unwrap();
        fs::rename(&path, dir.path().join("aside")).unwrap();
        assert_eq!(tail.look().unwrap().lines, []);
        append(&path, undisturbed(1));
        let news = tail.look().unwrap();
        assert!(news.begins_anew);
        assert_eq!(news.lines.len(), 4);
    }

    #[test]
    fn a_damaged_line_is_skipped_counted_and_named_once() {
        let (_dir, path) = new_ledger();
        append(&path, undisturbed(0));
        let offset = fs::metadata(&path).unwrap().len();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"no record\n").unwrap();
        append(&path, [Record::Left { worker: 1 }]);
        let mut tail = LedgerTail::new(&path);
        let news = tail.look().unwrap();
        assert_eq!(news.lines.len(), 4);
        assert_eq!(news.damage.num_lines(), 1);
        assert_eq!(news.damage.first()[0].place, Place { line: 4, offset });
        assert_eq!(tail.look().unwrap().damage, Damage::default());
    }

    #[test]
    fn a_ledger_that_holds_nothing_else_is_read_to_its_end() {
        let (_dir, path) = new_ledger();
        fs::write(&path, vec![b'\n'; 3 * PIECE_BYTES as usize]).unwrap();
        let mut tail = LedgerTail::new(&path);
        let mut damage = Damage::default();
        loop {
            let news = tail.look().unwrap();
            damage.extend(&news.damage);
            if !news.has_more() {
                break;
            }
        }
        assert_eq!(damage.num_lines(), 3 * PIECE_BYTES);
    }
}
