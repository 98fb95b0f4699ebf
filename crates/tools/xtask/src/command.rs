//! External programs: shown while they run, and reported in one line when they fail.

use std::fmt;
use std::io;
use std::iter;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::Context;

/// Tells on stderr what is done. A stderr that cannot be written stops nothing.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
pub(crate) use say;

/// A program that ran and did not succeed. Its exit code becomes that of xtask.
#[derive(Debug)]
pub(crate) struct CommandFailed {
    command: String,
    status: ExitStatus,
    hint: String,
}

impl CommandFailed {
    /// The program's own code, or 128 and the signal that ended it, as in a shell.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let code = self
            .status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

impl fmt::Display for CommandFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An ExitStatus reads `exit status: 1` or `signal: 9 (SIGKILL)`.
        write!(
            f,
            "`{}` failed ({}): {}",
            self.command, self.status, self.hint
        )
    }
}

impl std::error::Error for CommandFailed {}

/// A command from its words, the first of which is the program.
///
/// # Panics
///
/// If there are no words.
pub(crate) fn of(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().expect("a command names its program");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs to the end with all output on stderr. `hint` says what to do if it fails.
pub(crate) fn run(command: &mut Command, hint: &str) -> anyhow::Result<()> {
    let status = command
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    check(command, status, hint)
}

/// Runs to the end and returns what it wrote to stdout; stderr is shown as it comes.
pub(crate) fn output(command: &mut Command, hint: &str) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    check(command, output.status, hint)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` wrote what is not UTF-8", shown(command)))
}

/// Whether a program is there and ends well, which is all that is asked of it: nothing is shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A command as one would type it, the program by its name alone.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = iter::once(name).chain(command.get_args());
    words
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn check(command: &Command, status: ExitStatus, hint: &str) -> anyhow::Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(CommandFailed {
        command: shown(command),
        status,
        hint: hint.to_owned(),
    }
    .into())
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "'\"$*".contains(c)) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(script: &str) -> CommandFailed {
        let error = run(Command::new("sh").args(["-c", script]), "try again").unwrap_err();
        error.downcast().unwrap()
    }

    #[test]
    fn failure_says_what_ran_how_it_ended_and_what_to_do() {
        let failed = failure("exit 3");
        assert_eq!(
            failed.to_string(),
            "`sh -c 'exit 3'` failed (exit status: 3): try again"
        );
        assert_eq!(failed.exit_code(), ExitCode::from(3));
    }

    #[test]
    fn death_by_signal_counts_as_in_a_shell() {
        assert_eq!(
            failure("kill -TERM $$").exit_code(),
            ExitCode::from(128 + 15)
        );
    }

    #[test]
    fn missing_program_is_named() {
        let error = run(&mut Command::new("/nowhere/no-such-program"), "").unwrap_err();
        assert_eq!(error.to_string(), "cannot start `no-such-program`");
    }

    #[test]
    fn output_is_what_was_written() {
        assert_eq!(
            output(Command::new("echo").arg("a b"), "").unwrap(),
            "a b\n"
        );
    }
}
