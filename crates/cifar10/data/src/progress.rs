//! How far a download is: a line that is drawn again and again on a terminal, a log line every tenth
//! elsewhere.

use std::time::{Duration, Instant};

use pserver_cli::console;

/// A log gets a line each time this many more percent are there.
const LOG_EVERY_PERCENT: u64 = 10;

/// A terminal gets a new line this often.
const DRAW_EVERY: Duration = Duration::from_millis(100);

const BYTES_OF_MB: f64 = 1e6;

/// Shows how much of a file has come. Dropped, it leaves nothing on a terminal.
#[derive(Debug)]
pub struct Progress {
    name: String,
    /// How much was there when this transfer began, and when that was.
    begun: (u64, Instant),
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    /// On a terminal, where it was drawn at this moment.
    Drawn { at: Option<Instant> },
    /// In the log. The next line is due at this percentage.
    Log { next_percent: u64 },
}

impl Progress {
    /// Starts to show the download of `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let shown = match console::canvas() {
            Some(_) => Shown::Drawn { at: None },
            None => Shown::Log { next_percent: 0 },
        };
        Progress {
            name: name.to_owned(),
            begun: (0, now()),
            shown,
        }
    }

    /// A transfer begins, of what follows the `have` bytes that are there.
    pub fn begin(&mut self, have: u64) {
        self.begun = (have, now());
    }

    /// Shows that `received` of `total` bytes are there; `total` is `None` where nobody knows.
    pub fn set(&mut self, received: u64, total: Option<u64>) {
        match &mut self.shown {
            Shown::Drawn { at } => {
                if at.is_none_or(|at| at.elapsed() >= DRAW_EVERY) {
                    *at = Some(now());
                    let (before, since) = self.begun;
                    let came = received.saturating_sub(before) as f64;
                    let rate = came / since.elapsed().as_secs_f64().max(1e-9);
                    console::draw(vec![line(&self.name, received, total, rate)]);
                }
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
        if let Shown::Drawn { .. } = self.shown {
            console::draw(Vec::new());
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how fast a download goes changes no example"
)]
fn now() -> Instant {
    Instant::now()
}

/// The tutorial prints `>> Downloading NAME 12.3%`; so does this, and goes on with how fast.
fn line(name: &str, received: u64, total: Option<u64>, bytes_per_sec: f64) -> String {
    let mb = |bytes: u64| bytes as f64 / BYTES_OF_MB;
    let rate = bytes_per_sec / BYTES_OF_MB;
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = 100.0 * received as f64 / total as f64;
            let left = mb(total.saturating_sub(received)) / rate.max(1e-9);
            format!(
                ">> Downloading {name} {percent:.1}%  {:.1} of {:.1} MB  {rate:.1} MB/s  {left:.0} s left",
                mb(received),
                mb(total),
            )
        }
        None => format!(
            ">> Downloading {name}  {:.1} MB  {rate:.1} MB/s",
            mb(received)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_there_how_fast_and_how_long_it_takes() {
        let name = "cifar-10-binary.tar.gz";
        for (received, total, expected) in [
            (
                17_000_000,
                Some(170_000_000),
                ">> Downloading cifar-10-binary.tar.gz 10.0%  17.0 of 170.0 MB  1.7 MB/s  90 s left",
            ),
            (
                17_000_000,
                None,
                ">> Downloading cifar-10-binary.tar.gz  17.0 MB  1.7 MB/s",
            ),
        ] {
            assert_eq!(line(name, received, total, 1.7e6), expected);
        }
    }
}
