//! What a program writes besides its logs: results on stdout, sentences for people on stderr, and the
//! lines at the end of a terminal that show how something goes.
//!
//! This is the only place that writes to either stream, logs included: so nothing is written across
//! the lines that are drawn. A stream that cannot be written never ends a program: what was written to
//! stderr is lost, and the caller decides what a closed stdout means. Under `--log-format json` every
//! line on stderr is a JSON object.

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{env, iter, panic};

use anyhow::Context;
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthChar;

use crate::exit::{Exit, Failure, OrExit};
use crate::logging::LogFormat;

/// The format of this process's stderr, once `--log-format` is known.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// The lines that stand at the end of the terminal. Code that writes to a stream holds this lock.
static DRAWN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Clears the terminal from the beginning of the cursor's line on.
const CLEAR: &str = "\r\x1b[J";

/// The size of a terminal that does not tell it.
const USUAL_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

/// How much a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// Who takes what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reader {
    /// Somebody reads on.
    Present,
    /// The reader closed its end, as `head` does when it has seen enough.
    Gone,
}

/// Writes results to stdout, all at once, and tells whether anybody reads on.
///
/// # Errors
///
/// [`Exit::Disk`] if stdout cannot be written though it is open.
pub fn print(text: &str) -> Result<Reader, Failure> {
    let write = || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    };
    // A reader of a pipe may take its time; nothing is drawn there that could be in the way.
    let written = match io::stdout().is_terminal() {
        true => beside_drawn_lines(write),
        false => write(),
    };
    match written {
        Ok(()) => Ok(Reader::Present),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error)
            .context("cannot write to stdout")
            .or_exit(Exit::Disk),
    }
}

/// Writes results for people to stdout, as [`print()`] does. A terminal breaks their lines as those of
/// [`say`].
///
/// # Errors
///
/// As [`print()`].
pub fn print_for_people(text: &str) -> Result<Reader, Failure> {
    match size_of(&io::stdout()) {
        Some(size) => print(&wrapped(text, size.columns)),
        None => print(&format!("{text}\n")),
    }
}

/// Tells people something on stderr. On a terminal, lines are broken between words, but for those that
/// are indented: these are commands, or rows of a table.
pub fn say(text: &str) {
    write_stderr(&match format() {
        LogFormat::Text => match size() {
            Some(size) => wrapped(text, size.columns),
            None => format!("{text}\n"),
        },
        LogFormat::Json => json_line("INFO", text, iter::empty()),
    });
}

/// Writes a line of a program that this one started.
pub fn pass_on(line: &str) {
    let is_json = || serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object());
    write_stderr(&match format() {
        LogFormat::Json if !is_json() => json_line("INFO", line, iter::empty()),
        _ => format!("{line}\n"),
    });
}

/// Tells why a program ends.
pub(crate) fn say_failure(program: &str, failure: &Failure) {
    write_stderr(&match format() {
        LogFormat::Text => format!("{program}: {failure}\n"),
        LogFormat::Json => {
            let exit_code = failure.exit() as i32;
            let fields = [("program", json!(program)), ("exit_code", json!(exit_code))];
            json_line("ERROR", &failure.to_string(), fields.into_iter())
        }
    });
}

/// Ends this process because of its command line: with [`Exit::Usage`] where that is wrong, with 0
/// where it asks for help.
pub fn refuse(error: &clap::Error) -> ! {
    if error.use_stderr() && asks_for_json(env::args_os()) {
        write_stderr(&json_line(
            "ERROR",
            error.to_string().trim_end(),
            iter::empty(),
        ));
        std::process::exit(Exit::Usage as i32)
    }
    error.exit()
}

/// The size of the terminal that stderr is, if it is one.
#[must_use]
pub fn size() -> Option<Size> {
    size_of(&io::stderr())
}

fn size_of(stream: &(impl IsTerminal + AsFd)) -> Option<Size> {
    if !stream.is_terminal() {
        return None;
    }
    let size = tcgetwinsize(stream).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Some(size.map_or(USUAL_SIZE, |size| Size {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    }))
}

/// The size to draw for, where drawing makes sense: on a terminal that can move its cursor, for people.
#[must_use]
pub fn canvas() -> Option<Size> {
    size().filter(|_| can_move_cursor() && format() == LogFormat::Text)
}

/// Whether the terminal, if there is one, is of a kind that moves its cursor where it is told.
#[must_use]
pub fn can_move_cursor() -> bool {
    env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Draws lines at the end of the terminal, in the place of those that stand there; none clears them.
///
/// Nothing happens where there is no [`canvas`]. A line that is too long for the terminal is cut.
pub fn draw(lines: Vec<String>) {
    if canvas().is_none() {
        return;
    }
    let mut drawn = lock_drawn();
    if lines.is_empty() && drawn.is_empty() {
        return;
    }
    *drawn = lines;
    // At once, so that nothing flickers.
    write_bytes(format!("{CLEAR}{}", frame(&drawn)).as_bytes());
}

/// Clears what is drawn, for a program that is about to end, whatever else it does meanwhile.
pub fn clear() {
    if let Ok(drawn) = DRAWN.try_lock()
        && !drawn.is_empty()
    {
        write_bytes(CLEAR.as_bytes());
    }
}

/// The control sequences and text that draw lines.
///
/// The cursor stays where they begin. So a terminal that is resized, and may break them anew, has it
/// there too, and what stands there can be cleared without knowing how much that is.
fn frame(lines: &[String]) -> String {
    let size = size().unwrap_or(USUAL_SIZE);
    let shown = &lines[..lines.len().min(size.rows)];
    // A name that somebody gave itself moves no cursor.
    let printable = |line: &String| line.replace(char::is_control, "\u{fffd}");
    let cut = |line: String| cut(&line, size.columns - 1).to_owned();
    let cut: Vec<String> = shown.iter().map(printable).map(cut).collect();
    let mut text = cut.join("\n");
    if shown.len() > 1 {
        text += &format!("\x1b[{}A", shown.len() - 1);
    }
    text + "\r"
}

/// The beginning of a line that takes at most so many columns.
fn cut(line: &str, columns: usize) -> &str {
    let mut width = 0;
    for (index, character) in line.char_indices() {
        width += character.width().unwrap_or(0);
        if width > columns {
            return &line[..index];
        }
    }
    line
}

fn wrapped(text: &str, columns: usize) -> String {
    // A flag, a path or a URL stays whole, so that it can be copied.
    let options = textwrap::Options::new(columns)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .break_words(false);
    let line = |line: &str| match line.starts_with(' ') {
        true => format!("{line}\n"),
        false => textwrap::fill(line, &options) + "\n",
    };
    text.split('\n').map(line).collect()
}

/// Writes while nothing is drawn, and draws again afterwards.
fn beside_drawn_lines<T>(write: impl FnOnce() -> T) -> T {
    let drawn = lock_drawn();
    if drawn.is_empty() {
        return write();
    }
    write_bytes(CLEAR.as_bytes());
    let result = write();
    write_bytes(frame(&drawn).as_bytes());
    result
}

fn lock_drawn() -> std::sync::MutexGuard<'static, Vec<String>> {
    // The lines are whole at any moment, so a panic elsewhere does no harm.
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has this process write its stderr in `format` from now on.
pub(crate) fn set_format(format: LogFormat) {
    let is_first = FORMAT.set(format).is_ok();
    if is_first && format == LogFormat::Json {
        panic::set_hook(Box::new(|panic| {
            write_stderr(&json_line("ERROR", &panic.to_string(), iter::empty()));
        }));
    }
}

/// stderr for the logs: what it does not take is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        beside_drawn_lines(|| write_bytes(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
}

fn write_stderr(text: &str) {
    beside_drawn_lines(|| write_bytes(text.as_bytes()));
}

fn write_bytes(bytes: &[u8]) {
    // There is nowhere else to tell of it.
    let _ = io::stderr().write_all(bytes);
}

/// A line as the logs have them.
fn json_line(
    level: &str,
    message: &str,
    fields: impl Iterator<Item = (&'static str, Value)>,
) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ");
    let mut line = json!({"timestamp": now.to_string(), "level": level, "message": message});
    for (name, value) in fields {
        line[name] = value;
    }
    format!("{line}\n")
}

/// Whether a command line that cannot be parsed asks for JSON all the same.
fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let mut before = OsString::new();
    for argument in arguments {
        if argument == "--log-format=json" || (before == "--log-format" && argument == "json") {
            return true;
        }
        before = argument;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_told_in_the_format_that_it_asks_for() {
        for (line, expected) in [
            ("cifar-ps --log-format json --what", true),
            ("cifar-ps --what --log-format=json", true),
            ("cifar-ps --log-format text json", false),
            ("cifar-ps json", false),
        ] {
            let arguments = line.split(' ').map(OsString::from);
            assert_eq!(asks_for_json(arguments), expected, "{line}");
        }
    }

    #[test]
    fn sentences_are_broken_between_words_and_commands_are_not() {
        let text = "Stopped at step 12. A higher --max-steps goes on:\n  cifar-train --train-dir runs/default";
        assert_eq!(
            wrapped(text, 22),
            "Stopped at step 12. A\nhigher --max-steps\ngoes on:\n  cifar-train --train-dir runs/default\n"
        );
        assert_eq!(
            wrapped("a /long/path/of-a-file b", 8),
            "a\n/long/path/of-a-file\nb\n"
        );
    }

    #[test]
    fn a_line_is_cut_where_its_columns_end() {
        for (line, columns, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "abc"),
            ("äöü", 2, "äö"),
            ("a\u{4e00}b", 2, "a"),
            ("", 0, ""),
        ] {
            assert_eq!(cut(line, columns), expected, "{line}");
        }
    }

    #[test]
    fn a_drawn_line_moves_no_cursor() {
        let text = frame(&["a\x1b]0;b\n".to_owned()]);
        assert_eq!(text, "a\u{fffd}]0;b\u{fffd}\r");
    }

    #[test]
    fn a_line_of_json_has_what_the_logs_have() {
        let line = json_line("ERROR", "a \"b\"\nc", [("exit_code", json!(2))].into_iter());
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "a \"b\"\nc");
        assert_eq!(value["level"], "ERROR");
        assert_eq!(value["exit_code"], 2);
        let time = value["timestamp"].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
}
