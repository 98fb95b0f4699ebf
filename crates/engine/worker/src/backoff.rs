//! How long to wait before trying again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The wait before retry number `attempt`, counted from 0: doubling from 0.1 s up to 5 s, of which
/// between half and all is waited, as `jitter` in `0..1` says, so that workers that lost their
/// server together do not all come back at the same moment.
#[must_use]
pub fn delay(attempt: u32, jitter: f64) -> Duration {
    let longest = FIRST.saturating_mul(1 << attempt.min(16)).min(LONGEST);
    longest.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        assert_eq!(delay(0, 1.0), FIRST);
        assert_eq!(delay(1, 1.0), 2 * FIRST);
        assert_eq!(delay(1000, 1.0), LONGEST);
        assert_eq!(delay(3, 0.0), delay(3, 1.0) / 2);
    }
}
