//! Which date a moment on the server's clock has.

use std::time::{Duration, Instant};

use pserver_core::update::micros;

/// A moment on the server's clock and on the calendar: from it follows the date of any other.
#[derive(Clone, Copy, Debug)]
pub struct Calendar {
    /// On the server's clock.
    pub moment: Instant,
    /// The same, since 1970.
    pub since_1970: Duration,
}

impl Calendar {
    /// The same, but no earlier than a time in microseconds since 1970: what a run did before a restart
    /// was not later than what it does after it, though the clock was set back meanwhile.
    #[must_use]
    pub fn not_before(self, micros: u64) -> Self {
        Calendar {
            since_1970: self.since_1970.max(Duration::from_micros(micros)),
            ..self
        }
    }

    /// The date of a moment, in microseconds since 1970.
    #[must_use]
    pub fn micros(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.moment);
        micros(self.since_1970 + since)
    }
}
