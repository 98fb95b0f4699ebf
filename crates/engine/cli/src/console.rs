//! What a program writes besides its logs: results on stdout, sentences for people on stderr, and the
//! lines at the end of a terminal that show how something goes.
//!
//! This is the only place that writes to either stream, logs included: so nothing is written across
//! the lines that are drawn. A thread writes stderr (`stderr.rs`), so a reader that stops reading stops no
//! program. A stream that cannot be written never ends a program: what was written to
//! stderr is lost, and the caller decides what a closed stdout means. Under `--log-format json` every
//! line on stderr is a JSON object.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::process::{ExitCode, Termination};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;
use std::{env, iter, thread};

use anyhow::Context;
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthChar;

use crate::exit::{Exit, Failure, OrExit};
use crate::log_format::{LogFormat, timestamp};

mod stderr;

/// The format of this process's stderr, once `--log-format` is known.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// How long a reader may take for lines that a program does not need to have read.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// Writes results to stdout, all at once, and tells whether anybody reads on. A reader may take its time.
///
/// # Errors
///
/// [`Exit::Disk`] if stdout cannot be written though it is open.
pub fn print(text: &str) -> Result<Reader, Failure> {
    let written = match io::stdout().is_terminal() {
        true => stderr::write_now(text),
        false => {
            // What was said before comes before, where both streams lead to one file.
            stderr::flush();
            stderr::write_to_stdout(text)
        }
    };
    match written {
        Ok(()) => Ok(Reader::Present),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error)
            .context("cannot write to stdout")
            .or_exit(Exit::Disk),
    }
}

/// Writes lines for programs to stdout, such as `listening ADDR`, from a program that goes on whether or not
/// they are read. A reader that does not read for a second finds them later.
///
/// # Errors
///
/// As [`print()`].
pub fn announce(lines: &str) -> Result<(), Failure> {
    let lines = lines.to_owned();
    let (done, printed) = mpsc::channel();
    thread::Builder::new()
        .name("announce".to_owned())
        .spawn(move || {
            // The caller may have gone on.
            let _ = done.send(print(&lines));
        })?;
    match printed.recv_timeout(PATIENCE) {
        Ok(printed) => printed.map(|_| ()),
        Err(_) => Ok(()),
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
    stderr::write(&match format() {
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
    stderr::write(&match format() {
        LogFormat::Json if !is_json() => json_line("INFO", line, iter::empty()),
        _ => format!("{line}\n"),
    });
}

/// Tells why a program ends.
fn say_failure(program: &str, failure: &Failure) {
    stderr::write(&match format() {
        LogFormat::Text => format!("{program}: {failure}\n"),
        LogFormat::Json => {
            let exit_code = failure.exit() as i32;
            let fields = [("program", json!(program)), ("exit_code", json!(exit_code))];
            json_line("ERROR", &failure.to_string(), fields.into_iter())
        }
    });
}

/// Ends a program: prints the failure, if any, as one line on stderr and gives its exit code.
#[must_use]
pub fn report(program: &str, result: Result<Exit, Failure>) -> ExitCode {
    let exit = result.unwrap_or_else(|failure| {
        say_failure(program, &failure);
        failure.exit()
    });
    finish();
    ExitCode::from(exit as u8).report()
}

/// Ends this process because of its command line: with [`Exit::Usage`] where that is wrong, with 0
/// where it asks for help.
pub fn refuse(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit()
    }
    let told = error.render();
    stderr::write(&match asks_for_json(env::args_os()) {
        true => json_line("ERROR", told.to_string().trim_end(), iter::empty()),
        false if has_colours() => told.ansi().to_string(),
        false => told.to_string(),
    });
    finish();
    std::process::exit(Exit::Usage as i32)
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

fn has_colours() -> bool {
    let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    size().is_some() && can_move_cursor() && !is_refused
}

/// Draws lines at the end of the terminal, in the place of those that stand there; none clears them.
///
/// Nothing happens where there is no [`canvas`]. A line that is too long for the terminal is cut.
pub fn draw(lines: Vec<String>) {
    if canvas().is_some() {
        stderr::draw(lines);
    }
}

/// Clears what is drawn, and gives the reader of stderr a moment for the last words. Every program calls this
/// before it ends, from whichever thread.
pub fn finish() {
    stderr::draw(Vec::new());
    stderr::flush();
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

/// Has this process write its stderr in `format` from now on.
pub(crate) fn set_format(format: LogFormat) {
    if FORMAT.set(format).is_ok() {
        panic::set_hook(Box::new(|panic| {
            stderr::write(&told_of_panic(panic));
            stderr::flush();
        }));
    }
}

fn told_of_panic(panic: &PanicHookInfo<'_>) -> String {
    if format() == LogFormat::Json {
        return json_line("ERROR", &panic.to_string(), iter::empty());
    }
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    let how = match backtrace.status() {
        BacktraceStatus::Captured => backtrace.to_string(),
        _ => "note: RUST_BACKTRACE=1 shows the functions that led there".to_owned(),
    };
    format!("\nthread '{name}' {panic}\n{how}\n")
}

fn told_of_lost_lines(lines: usize) -> String {
    const LOST: &str = "lines were not written because nobody read them";
    match format() {
        LogFormat::Text => format!("{}  WARN {LOST} lines={lines}\n", timestamp()),
        LogFormat::Json => json_line("WARN", LOST, [("lines", json!(lines))].into_iter()),
    }
}

/// stderr for the logs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr::write(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
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
