//! How often is too often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// So many at once, and so many a second in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// In the long run.
    pub per_sec: f64,
}

/// A debt that takes longer to pay is not told exactly.
const MAX_DEBT_SECS: f64 = 60.0;

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

    /// Takes so much, though less may be left: the rest is a debt.
    pub fn charge(&mut self, now: Instant, cost: f64) {
        self.refill(now);
        self.left -= cost;
    }

    /// How long it takes until there is no debt.
    pub fn debt(&mut self, now: Instant) -> Duration {
        self.refill(now);
        let debt = (-self.left).max(0.0) / self.rate.per_sec;
        Duration::from_secs_f64(debt.min(MAX_DEBT_SECS))
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

/// What each of many may still do, shared by all that it does at a time.
#[derive(Debug)]
pub struct Allowances {
    rate: Rate,
    most: usize,
    of: BTreeMap<String, Arc<Mutex<Allowance>>>,
}

impl Allowances {
    /// Nobody has done anything. At most `most` are told apart at a time.
    #[must_use]
    pub fn new(rate: Rate, most: usize) -> Self {
        Allowances {
            rate,
            most,
            of: BTreeMap::new(),
        }
    }

    /// That of `who`. Those that come when there are too many have one together.
    pub fn of(&mut self, now: Instant, who: String) -> Arc<Mutex<Allowance>> {
        if self.of.len() >= self.most {
            self.of.retain(|_, of| {
                let is_used = Arc::strong_count(of) > 1;
                is_used || !of.lock().is_ok_and(|mut of| of.is_whole(now))
            });
        }
        let who = match self.of.len() >= self.most && !self.of.contains_key(&who) {
            true => String::new(),
            false => who,
        };
        let allowance = || Arc::new(Mutex::new(Allowance::new(now, self.rate)));
        Arc::clone(self.of.entry(who).or_insert_with(allowance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_as_time_passes() {
        let start = Instant::now();
        let rate = Rate {
            burst: 3.0,
            per_sec: 2.0,
        };
        let mut allowance = Allowance::new(start, rate);
        allowance.charge(start, 3.0);
        assert_eq!(allowance.debt(start), Duration::ZERO);
        allowance.charge(start, 5.0);
        assert_eq!(allowance.debt(start), Duration::from_millis(2500));
        let later = start + Duration::from_secs(2);
        assert_eq!(allowance.debt(later), Duration::from_millis(500));
        assert!(!allowance.take(later) && allowance.take(later + Duration::from_secs(1)));
    }

    #[test]
    fn connections_of_one_peer_share_an_allowance() {
        let start = Instant::now();
        let rate = Rate {
            burst: 1.0,
            per_sec: 1.0,
        };
        let mut allowances = Allowances::new(rate, 2);
        let first = allowances.of(start, "a".to_owned());
        first.lock().unwrap().charge(start, 2.0);
        let second = allowances.of(start, "a".to_owned());
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        let again = allowances.of(start, "a".to_owned());
        let debt = again.lock().unwrap().debt(start);
        assert_eq!(debt, Duration::from_secs(1), "to come anew pays nothing");
        let others = ["b", "c", "d"].map(|who| allowances.of(start, who.to_owned()));
        assert!(!Arc::ptr_eq(&others[0], &others[1]));
        assert!(Arc::ptr_eq(&others[1], &others[2]), "they are too many");
        drop((again, others));
        let later = start + Duration::from_secs(2);
        let (new, other) = ["e", "f"]
            .map(|who| allowances.of(later, who.to_owned()))
            .into();
        assert!(!Arc::ptr_eq(&new, &other), "those before are forgotten");
    }

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
}
