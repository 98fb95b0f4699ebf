//! How a line of a log looks.

use clap::ValueEnum;

/// Who reads the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// People: the tutorial's lines as its users know them.
    #[default]
    Text,
    /// Machines: each line one JSON object.
    Json,
}

/// Local date and time with microseconds, as Python prints `datetime.now()`.
#[must_use]
pub fn timestamp() -> String {
    jiff::ZonedDateTime::now()
        .strftime("%Y-%m-%d %H:%M:%S.%6f")
        .to_string()
}
