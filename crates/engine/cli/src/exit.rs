//! Exit codes: the same meaning in every program, so that the one who started it knows what to do.

use std::fmt;

/// How a program ends. A bug that panics ends it with 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done. A worker says so only when the server said that the run is complete.
    Complete = 0,
    /// An error that no other code describes.
    Unexpected = 1,
    /// Wrong usage of the command line.
    Usage = 2,
    /// The loss or a gradient was not finite.
    Diverged = 65,
    /// The disk is full or cannot be written.
    Disk = 74,
    /// Try again later: the server is away past the retry window, the run stands still.
    TryAgain = 75,
    /// No retry mends it: configuration, data digest, layout, numerics, damaged state.
    Permanent = 78,
    /// Left on SIGINT, after a checkpoint.
    Interrupted = 130,
    /// Left on SIGTERM, after a checkpoint.
    Terminated = 143,
}

impl Exit {
    /// Every way to end.
    const ALL: [Exit; 9] = [
        Exit::Complete,
        Exit::Unexpected,
        Exit::Usage,
        Exit::Diverged,
        Exit::Disk,
        Exit::TryAgain,
        Exit::Permanent,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    /// The meaning of another program's exit code, if it has one here.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Exit> {
        Exit::ALL.into_iter().find(|exit| *exit as i32 == code)
    }
}

/// An error and the exit code that it means.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure {
            exit: Exit::Unexpected,
            error: error.into(),
        }
    }
}

/// The error with its causes, in one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl Failure {
    /// An error and its exit code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Failure {
            exit,
            error: error.into(),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// Gives an error its exit code.
pub trait OrExit<T> {
    /// The value, or the error with its exit code.
    ///
    /// # Errors
    ///
    /// The same as before.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            exit,
            error: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_keeps_the_code_it_was_given() {
        let full = || Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full().or_exit(Exit::Disk).unwrap_err().exit(), Exit::Disk);
        let unclassified = || -> Result<(), Failure> { Ok(full()?) };
        assert_eq!(unclassified().unwrap_err().exit(), Exit::Unexpected);
    }
}
