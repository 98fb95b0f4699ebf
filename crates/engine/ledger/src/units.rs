//! Numbers and times as people read them.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use pserver_run::GlobalStep;

/// A list for people is cut after this many lines.
pub(crate) const MAX_LINES: usize = 20;

/// A number with its thousands apart: `100,000`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 step`, `2 steps`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(number))
}

/// How often: `once`, `twice`, `3 times`.
pub(crate) fn times(number: u64) -> String {
    match number {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{} times", count(number)),
    }
}

/// Milliseconds to a tenth, without the unit: `1,234.5`.
pub(crate) fn millis(micros: u64) -> String {
    let tenths = micros.saturating_add(50) / 100;
    format!("{}.{}", count(tenths / 10), tenths % 10)
}

/// The part in a hundred: `48 %`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    format!("{share:.0} %")
}

/// A time in the units that fit it: `1 h 02 min`, `3 min 05 s`, `12.3 s`.
#[must_use]
pub fn duration(micros: u64) -> String {
    let tenths = micros / 100_000;
    let seconds = tenths / 10;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    if hours > 0 {
        format!("{} h {:02} min", count(hours), minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {:02} s", seconds % 60)
    } else {
        format!("{seconds}.{} s", tenths % 10)
    }
}

/// A moment given in microseconds since 1970: `2026-11-24 00:09:43 UTC`.
pub(crate) fn moment(at_micros: u64) -> String {
    let micros = i64::try_from(at_micros).unwrap_or(i64::MAX);
    let moment = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
    format!("{} UTC", moment.strftime("%Y-%m-%d %H:%M:%S"))
}

/// Steps from the first to the last: `step 7`, `steps 7 to 1,000`.
pub(crate) fn steps(first: GlobalStep, last: GlobalStep) -> String {
    if first == last {
        format!("step {}", count(first.0))
    } else {
        format!("steps {} to {}", count(first.0), count(last.0))
    }
}

/// The first of many stretches, and how many more there are: `step 7, steps 9 to 12 and 3 more stretches`.
pub(crate) fn stretches(stretches: &[Range<GlobalStep>]) -> String {
    let text = |range: &Range<GlobalStep>| steps(range.start, GlobalStep(range.end.0 - 1));
    let first: Vec<String> = stretches.iter().take(MAX_LINES).map(text).collect();
    let more = stretches.len().saturating_sub(MAX_LINES);
    match (first.split_last(), more) {
        (Some((last, before)), 0) if !before.is_empty() => {
            format!("{} and {last}", before.join(", "))
        }
        (_, 0) => first.concat(),
        (_, more) => format!(
            "{} and {} more stretches",
            first.join(", "),
            count(more as u64)
        ),
    }
}

/// Writes the first lines of a list, and how many more there are.
pub(crate) fn write_lines<T: fmt::Display>(f: &mut fmt::Formatter<'_>, lines: &[T]) -> fmt::Result {
    for line in lines.iter().take(MAX_LINES) {
        writeln!(f, "  {line}")?;
    }
    match lines.len().saturating_sub(MAX_LINES) {
        0 => Ok(()),
        more => writeln!(f, "  ... and {} more", count(more as u64)),
    }
}

/// The middle one of these numbers, or the mean of the middle two; 0 if there are none.
#[must_use]
pub fn median(numbers: impl IntoIterator<Item = u64>) -> u64 {
    let mut numbers: Vec<u64> = numbers.into_iter().collect();
    numbers.sort_unstable();
    match (numbers.len(), numbers.len() / 2) {
        (0, _) => 0,
        (length, middle) if length % 2 == 1 => numbers[middle],
        (_, middle) => numbers[middle - 1].midpoint(numbers[middle]),
    }
}

/// The smallest of these numbers that 95 in 100 of them do not exceed; 0 if there are none.
pub(crate) fn percentile_95(numbers: impl IntoIterator<Item = u64>) -> u64 {
    let mut numbers: Vec<u64> = numbers.into_iter().collect();
    numbers.sort_unstable();
    let rank = (numbers.len() * 95).div_ceil(100);
    numbers.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_thousands_apart() {
        let counts = [0, 999, 1000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "step"), "1 step");
        assert_eq!(counted(1000, "step"), "1,000 steps");
        assert_eq!(millis(1_234_560), "1,234.6");
        assert_eq!(millis(49), "0.0");
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        let second = 1_000_000;
        assert_eq!(duration(12_340_000), "12.3 s");
        assert_eq!(duration(185 * second), "3 min 05 s");
        assert_eq!(duration(3720 * second), "1 h 02 min");
        assert_eq!(moment(1_700_000_000 * second), "2023-11-14 22:13:20 UTC");
        assert!(moment(u64::MAX).ends_with("UTC"));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3, 1, 2]), 2);
        assert_eq!(median([4, 1, 2, 3]), 2);
        assert_eq!(median([]), 0);
        assert_eq!(percentile_95(1..=100), 95);
        assert_eq!(percentile_95([7]), 7);
        assert_eq!(percentile_95([]), 0);
    }
}
