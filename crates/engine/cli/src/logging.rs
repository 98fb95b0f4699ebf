//! Logs on stderr, for people or for machines.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::console::{self, LogWriter};
pub use crate::log_format::{LogFormat, timestamp};

/// The flags that every program has for its logs.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Who reads the logs on stderr
    #[arg(long, value_enum, default_value_t, help_heading = "Logs")]
    pub log_format: LogFormat,

    /// Which logs to write, such as `info`, `debug` or `pserver_server=debug`
    #[arg(
        long,
        env = "RUST_LOG",
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    pub log_level: String,
}

/// Sends the logs of this process to stderr. Called once, at the start of a program.
///
/// # Errors
///
/// If the filter cannot be understood, or logs already go somewhere.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    use anyhow::Context;
    console::set_format(args.log_format);
    let filter = EnvFilter::try_new(&args.log_level)
        .with_context(|| format!("--log-level {:?} is no filter of logs", args.log_level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        .log_internal_errors(false)
        .with_target(false);
    let result = match args.log_format {
        LogFormat::Text => builder.with_ansi(false).with_timer(TutorialTime).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| anyhow::anyhow!("cannot set up logs: {error}"))
}

/// Writes one of the lines that the tutorial's users know: date, time, colon, text.
pub fn tutorial_line(text: &str) {
    console::say(&format!("{}: {text}", timestamp()));
}

struct TutorialTime;

impl FormatTime for TutorialTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&timestamp())
    }
}
