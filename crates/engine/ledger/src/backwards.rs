//! Reads a ledger from its end, for what its last lines tell.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A ledger is read in pieces of this size, the last first.
pub(crate) const PIECE_BYTES: u64 = 64 * 1024;

/// The lines of a file, the last first.
pub(crate) struct Backwards<'a> {
    file: &'a File,
    /// What is before this is not read yet.
    start: u64,
    read: Vec<u8>,
}

impl<'a> Backwards<'a> {
    pub(crate) fn new(file: &'a File) -> io::Result<Self> {
        Ok(Backwards {
            start: file.metadata()?.len(),
            file,
            read: Vec::new(),
        })
    }

    /// The line before, without its end. The first is what stands behind the last end of a line.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.read.iter().rposition(|byte| *byte == b'\n') {
                let line = self.read.split_off(end + 1);
                self.read.pop();
                return Ok(Some(line));
            }
            if self.start == 0 {
                let line = std::mem::take(&mut self.read);
                return Ok((!line.is_empty()).then_some(line));
            }
            let start = self.start.saturating_sub(PIECE_BYTES);
            let mut piece = vec![0; (self.start - start) as usize];
            self.file.read_exact_at(&mut piece, start)?;
            piece.append(&mut self.read);
            (self.read, self.start) = (piece, start);
        }
    }
}
