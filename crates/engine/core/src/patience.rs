//! How long a run waits for its workers, and what it says meanwhile.

use std::time::{Duration, Instant};

/// A run that got no gradient for this long stands still, and says what it waits for.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Between two ticks lies a quarter of a second. When it was this long, the server itself did not
/// run: it was stopped by a signal, or its machine was suspended.
const SUSPENDED: Duration = Duration::from_secs(2);

/// What the passing of time means for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Nothing.
    Quietly,
    /// The run stands still, and people should hear of it.
    StandsStill,
    /// It has stood still, or had too few workers, for too long.
    Stalled,
}

/// The patience of a run.
#[derive(Debug)]
pub(crate) struct Patience {
    stall_timeout: Duration,
    last_tick: Instant,
    last_progress: Instant,
    /// When there were last as many workers as there have to be.
    enough_workers: Instant,
    told: bool,
}

impl Patience {
    /// Patience that begins now and ends after `stall_timeout` without progress.
    pub(crate) fn new(now: Instant, stall_timeout: Duration) -> Self {
        Patience {
            stall_timeout,
            last_tick: now,
            last_progress: now,
            enough_workers: now,
            told: false,
        }
    }

    /// For how long the server itself did not run before this tick, if so.
    ///
    /// That time counts for nothing: neither here nor, if the caller sees to it, for the workers.
    pub(crate) fn wake(&mut self, now: Instant) -> Option<Duration> {
        let pause = now.saturating_duration_since(self.last_tick);
        self.last_tick = now;
        if pause < SUSPENDED {
            return None;
        }
        self.last_progress = now.min(self.last_progress + pause);
        self.enough_workers = now.min(self.enough_workers + pause);
        Some(pause)
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, now: Instant, has_enough_workers: bool) -> Passed {
        if has_enough_workers {
            self.enough_workers = now;
        }
        let still = self.still(now);
        let too_few = now.saturating_duration_since(self.enough_workers);
        if still.max(too_few) > self.stall_timeout {
            return Passed::Stalled;
        }
        if still > STANDSTILL && !self.told {
            self.told = true;
            return Passed::StandsStill;
        }
        Passed::Quietly
    }

    /// A gradient was taken; how long the run had stood still, if people were told that it did.
    pub(crate) fn progress(&mut self, now: Instant) -> Option<Duration> {
        let still = self.still(now);
        self.last_progress = now;
        std::mem::take(&mut self.told).then_some(still)
    }

    /// How long no gradient has come.
    pub(crate) fn still(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::some_time;

    const SECOND: Duration = Duration::from_secs(1);
    const STALL_TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn people_are_told_once_and_again_when_it_goes_on() {
        let start = some_time();
        let mut patience = Patience::new(start, STALL_TIMEOUT);
        assert_eq!(patience.pass(start + 5 * SECOND, true), Passed::Quietly);
        assert_eq!(patience.pass(start + 6 * SECOND, true), Passed::StandsStill);
        assert_eq!(patience.pass(start + 7 * SECOND, true), Passed::Quietly);
        assert_eq!(patience.progress(start + 8 * SECOND), Some(8 * SECOND));
        assert_eq!(patience.progress(start + 9 * SECOND), None);
    }

    #[test]
    fn too_few_workers_try_the_patience_even_if_gradients_come() {
        let start = some_time();
        let mut patience = Patience::new(start, STALL_TIMEOUT);
        patience.progress(start + 60 * SECOND);
        assert_eq!(patience.pass(start + 60 * SECOND, false), Passed::Quietly);
        assert_eq!(patience.pass(start + 61 * SECOND, false), Passed::Stalled);
    }

    #[test]
    fn the_time_that_the_server_was_suspended_does_not_count() {
        let start = some_time();
        let mut patience = Patience::new(start, STALL_TIMEOUT);
        assert_eq!(patience.wake(start + SECOND / 4), None);
        let after = start + SECOND / 4 + 3600 * SECOND;
        assert_eq!(patience.wake(after), Some(3600 * SECOND));
        assert_eq!(patience.pass(after, false), Passed::Quietly);
        assert_eq!(patience.still(after), SECOND / 4);
    }
}
