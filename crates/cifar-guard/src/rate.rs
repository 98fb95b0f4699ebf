//! How often is too often.

use std::collections::BTreeMap;
use std::time::Instant;

/// So many at once, and so many a second in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// In the long run.
    pub per_sec: f64,
}

/// What somebody may still do, by a [`Rate`]. Pure: time is an argument.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    rate: Rate,
    left: f64,
    at: Instant,
}

impl Allowance {
    /// All of it is left.
    #[must_use]
    pub fn new(now: Instant, rate: Rate) -> Self {
        Allowance {
            rate,
            left: rate.burst,
            at: now,
        }
    }

    /// Takes one; false if none is left.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }

    /// Whether it is as if nothing had been taken.
    pub fn is_whole(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= self.rate.burst
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.rate.per_sec).min(self.rate.burst);
        self.at = now;
    }
}

/// What each of many may still do.
#[derive(Debug)]
pub struct Allowances {
    rate: Rate,
    most: usize,
    of: BTreeMap<String, Allowance>,
}

impl Allowances {
    /// Nobody has done anything. At most `most` are remembered at a time.
    #[must_use]
    pub fn new(rate: Rate, most: usize) -> Self {
        Allowances {
            rate,
            most,
            of: BTreeMap::new(),
        }
    }

    /// Takes one for `who`; false if none is left, or more are about than can be told apart.
    pub fn take(&mut self, now: Instant, who: &str) -> bool {
        if let Some(allowance) = self.of.get_mut(who) {
            return allowance.take(now);
        }
        if self.of.len() >= self.most {
            self.of.retain(|_, allowance| !allowance.is_whole(now));
        }
        if self.of.len() >= self.most {
            return false;
        }
        let mut allowance = Allowance::new(now, self.rate);
        let is_left = allowance.take(now);
        self.of.insert(who.to_owned(), allowance);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_so_many_a_second() {
        let start = Instant::now();
        let rate = Rate {
            burst: 3.0,
            per_sec: 2.0,
        };
        let mut allowance = Allowance::new(start, rate);
        let taken =
            |allowance: &mut Allowance, now| (0..10).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, start), 3);
        assert_eq!(taken(&mut allowance, start + Duration::from_secs(1)), 2);
        assert!(!allowance.is_whole(start + Duration::from_secs(2)));
        assert!(allowance.is_whole(start + Duration::from_secs(100)));
        assert_eq!(taken(&mut allowance, start + Duration::from_secs(100)), 3);
    }

    #[test]
    fn each_has_an_allowance_and_old_ones_are_forgotten() {
        let start = Instant::now();
        let rate = Rate {
            burst: 1.0,
            per_sec: 1.0,
        };
        let mut allowances = Allowances::new(rate, 2);
        assert!(allowances.take(start, "a") && allowances.take(start, "b"));
        assert!(!allowances.take(start, "a") && !allowances.take(start, "c"));
        assert!(allowances.take(start + Duration::from_secs(1), "c"));
    }
}
