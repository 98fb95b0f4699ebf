//! How far a download is: a bar on a terminal, a log line every tenth elsewhere.

use std::fmt;
use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// The tutorial prints `>> Downloading NAME 12.3%`; so does this, and goes on with how fast.
const TEMPLATE: &str =
    ">> Downloading {msg} {tenths}% [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

/// A log gets a line each time this many more percent are there.
const LOG_EVERY_PERCENT: u64 = 10;

/// Shows how much of a file has come.
#[derive(Debug)]
pub struct Progress {
    name: String,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    /// Standard error is a terminal.
    Bar(ProgressBar),
    /// It is a file or a pipe. The next line is due at this percentage.
    Log { next_percent: u64 },
}

impl Progress {
    /// Starts to show the download of `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let shown = if io::stderr().is_terminal() {
            Shown::Bar(bar(name))
        } else {
            Shown::Log { next_percent: 0 }
        };
        Progress {
            name: name.to_owned(),
            shown,
        }
    }

    /// Shows that `received` of `total` bytes are there; `total` is `None` where nobody knows.
    pub fn set(&mut self, received: u64, total: Option<u64>) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(received);
            }
            Shown::Log { next_percent } => {
                let Some(percent) = total.and_then(|total| (100 * received).checked_div(total))
                else {
                    return;
                };
                if percent >= *next_percent {
                    tracing::info!(
                        path = self.name,
                        percent,
                        received_bytes = received,
                        ">> Downloading"
                    );
                    *next_percent = (percent / LOG_EVERY_PERCENT + 1) * LOG_EVERY_PERCENT;
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.abandon();
        }
    }
}

fn bar(name: &str) -> ProgressBar {
    let tenths = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // Nothing can be done about a terminal that takes no text.
        let _ = write!(text, "{:.1}", 100.0 * state.fraction());
    };
    let style = ProgressStyle::with_template(TEMPLATE)
        .expect("the template is a constant and parses")
        .with_key("tenths", tenths);
    ProgressBar::no_length()
        .with_style(style)
        .with_message(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_parses() {
        bar("cifar-10-binary.tar.gz").finish();
    }
}
