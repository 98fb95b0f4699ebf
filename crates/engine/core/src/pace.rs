//! How long a tower step takes in this run, and when one is overdue.

use std::collections::VecDeque;
use std::time::Duration;

/// Tower steps that the median is taken of.
const WINDOW: usize = 64;

/// Tower steps before there is a median worth anything; the first ones are slow for other reasons.
const MIN_SAMPLES: usize = 8;

/// A tower step is overdue after this many medians: twice as slow as usual is still noise on a
/// shared machine.
const OVERDUE_MEDIANS: u32 = 3;

/// A tower step is not overdue before this, however fast the others are.
const MIN_OVERDUE: Duration = Duration::from_millis(100);

/// The time from giving a tower step out to having its gradient, of the last ones.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: VecDeque<Duration>,
    /// Taken anew with each gradient, because it is asked for far more often.
    overdue: Option<Duration>,
}

impl Pace {
    /// A tower step took this long.
    pub(crate) fn note(&mut self, time: Duration) {
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(time);
        self.overdue = (self.last.len() >= MIN_SAMPLES).then(|| {
            let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
            sorted.sort_unstable();
            (OVERDUE_MEDIANS * sorted[sorted.len() / 2]).max(MIN_OVERDUE)
        });
    }

    /// The age at which a tower step is overdue; `None` until some have been seen.
    pub(crate) fn overdue(&self) -> Option<Duration> {
        self.overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_is_three_medians_of_the_last() {
        let mut pace = Pace::default();
        for _ in 1..MIN_SAMPLES {
            pace.note(Duration::from_secs(9));
        }
        assert_eq!(pace.overdue(), None);
        for _ in 0..WINDOW {
            pace.note(Duration::from_secs(2));
        }
        pace.note(Duration::from_secs(100));
        assert_eq!(pace.overdue(), Some(Duration::from_secs(6)));
    }

    #[test]
    fn tiny_steps_are_not_overdue_at_once() {
        let mut pace = Pace::default();
        (0..WINDOW).for_each(|_| pace.note(Duration::from_micros(50)));
        assert_eq!(pace.overdue(), Some(MIN_OVERDUE));
    }
}
