//! Writes stderr on a thread of its own, so that no other thread waits for its reader.
//!
//! A terminal can be stopped (Ctrl-S), and a pipe is full while its reader does something else. So text
//! waits in a queue of limited size. Lines that do not fit are counted, and their number is written in their
//! place. The lines that are drawn at the end of a terminal are no part of the queue: new ones replace the
//! old. A program that ends calls [`flush`], which gives the reader a moment.
//!
//! `tracing-appender` has such a thread, but its queue cannot hold drawn lines, it tells nobody how many lines
//! it dropped, and it writes to stdout where its own stream is stuck at the end.

use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{mem, thread};

use super::{frame, told_of_lost_lines};

/// Bytes of text that may wait to be written.
const CAPACITY: usize = 1 << 20;

/// How long a program that ends, or has a result to print, waits for the reader of its stderr.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes written at once. A pipe takes so many whole, even if other processes write to it as well.
const PIECE: usize = 4096;

/// The pause before the next try on a full stream that another process has made non-blocking.
const RETRY: Duration = Duration::from_millis(10);

/// Clears the terminal from the beginning of the cursor's line on.
const CLEAR: &str = "\r\x1b[J";

static QUEUE: Mutex<Queue> = Mutex::new(Queue::EMPTY);

/// Signals that there is something to write, and that something was written.
static CHANGED: Condvar = Condvar::new();

/// Whether lines are drawn at the end of the terminal. Code that writes to the terminal holds this lock.
static IS_DRAWN: Mutex<bool> = Mutex::new(false);

/// Whether the thread runs. Where the system refuses one, the callers write by themselves.
static HAS_THREAD: LazyLock<bool> = LazyLock::new(|| {
    let thread = thread::Builder::new().name("stderr".to_owned());
    thread.spawn(write_as_it_comes).is_ok()
});

/// What is to be written.
#[derive(Debug)]
struct Queue {
    text: String,
    /// Lines that came after `text` and found no room.
    num_lost: usize,
    /// The lines to draw at the end of the terminal.
    drawn: Vec<String>,
    must_draw: bool,
    /// When the write that is under way began.
    writing_since: Option<Instant>,
}

impl Queue {
    const EMPTY: Queue = Queue {
        text: String::new(),
        num_lost: 0,
        drawn: Vec::new(),
        must_draw: false,
        writing_since: None,
    };

    fn push(&mut self, text: &str) {
        // Nothing comes after lost lines, so that their number can be written where they are missing.
        if self.num_lost == 0 && self.text.len() + text.len() <= CAPACITY {
            self.text += text;
        } else {
            self.num_lost += text.lines().count();
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.num_lost == 0 && !self.must_draw
    }

    /// The text that is to be written now, and the lines to draw below it.
    fn take(&mut self) -> (String, Vec<String>) {
        self.must_draw = false;
        self.writing_since = Some(Instant::now());
        let mut text = mem::take(&mut self.text);
        match mem::take(&mut self.num_lost) {
            0 => {}
            num_lost => text += &told_of_lost_lines(num_lost),
        }
        (text, self.drawn.clone())
    }
}

/// Has text written, above the lines that are drawn.
pub(super) fn write(text: &str) {
    lock(&QUEUE).push(text);
    wake_thread();
}

/// Has lines drawn at the end of the terminal, in the place of those that are there.
pub(super) fn draw(lines: Vec<String>) {
    let mut queue = lock(&QUEUE);
    if lines.is_empty() && queue.drawn.is_empty() {
        return;
    }
    queue.drawn = lines;
    queue.must_draw = true;
    drop(queue);
    wake_thread();
}

/// Waits until everything is written, or until the reader has taken nothing for [`PATIENCE`].
pub(super) fn flush() {
    let asked = Instant::now();
    let mut queue = lock(&QUEUE);
    while !queue.is_empty() || queue.writing_since.is_some() {
        let since = queue.writing_since.map_or(asked, |since| since.min(asked));
        let left = PATIENCE.saturating_sub(since.elapsed());
        if left.is_zero() {
            return;
        }
        let woken = CHANGED.wait_timeout(queue, left);
        queue = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Writes what waits in the queue and then, to the same terminal, `printed` to stdout.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) fn write_now(printed: &str) -> io::Result<()> {
    let mut is_drawn = lock(&IS_DRAWN);
    let (text, drawn) = lock(&QUEUE).take();
    let mut written = match *is_drawn {
        true => format!("{CLEAR}{text}"),
        false => text,
    };
    let mut result = Ok(());
    if !printed.is_empty() {
        write_pieces(&mem::take(&mut written));
        result = write_to_stdout(printed);
    }
    *is_drawn = !drawn.is_empty();
    if *is_drawn {
        written += &frame(&drawn);
    }
    // The drawn lines are cleared and drawn in one piece, so that nothing flickers.
    write_pieces(&written);
    lock(&QUEUE).writing_since = None;
    CHANGED.notify_all();
    result
}

pub(super) fn write_to_stdout(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn wake_thread() {
    match *HAS_THREAD {
        true => CHANGED.notify_all(),
        // With nothing to print it does not fail.
        false => drop(write_now("")),
    }
}

fn write_as_it_comes() {
    loop {
        let queue = lock(&QUEUE);
        let queue = CHANGED.wait_while(queue, |queue| queue.is_empty());
        drop(queue);
        let _ = write_now("");
    }
}

fn write_pieces(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match io::stderr().write(first_piece(rest)) {
            Ok(0) => return,
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(RETRY);
                continue;
            }
            // There is nowhere else to tell of it.
            Err(_) => return,
        }
        lock(&QUEUE).writing_since = Some(Instant::now());
    }
}

/// All that is left, or as many whole lines of it as are written at once.
fn first_piece(rest: &[u8]) -> &[u8] {
    if rest.len() <= PIECE {
        return rest;
    }
    let last = rest[..PIECE].iter().rposition(|byte| *byte == b'\n');
    &rest[..last.map_or(PIECE, |last| last + 1)]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole at any moment, so a panic elsewhere does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_find_no_room_are_counted_in_their_place() {
        let mut queue = Queue::EMPTY;
        let line = format!("{}\n", "x".repeat(CAPACITY / 2));
        for text in [&line, "short\n", &line, "one\ntwo\n"] {
            queue.push(text);
        }
        let (text, _) = queue.take();
        let (kept, told) = text.split_at(line.len() + "short\n".len());
        assert!(kept.ends_with("short\n"));
        assert!(
            told.ends_with("because nobody read them lines=3\n"),
            "{told}"
        );
        assert!(queue.is_empty());
        queue.push("later\n");
        assert_eq!(queue.take().0, "later\n");
    }

    #[test]
    fn a_piece_ends_with_a_line_where_it_cannot_be_all() {
        let line = [vec![b'x'; 1499], vec![b'\n']].concat();
        let three = line.repeat(3);
        for (rest, expected) in [
            (&line[..7], 7),
            (&three, 3000),
            (&[b'x'; 5000][..], PIECE),
            (b"a\nb", 3),
        ] {
            assert_eq!(first_piece(rest).len(), expected);
        }
    }
}
