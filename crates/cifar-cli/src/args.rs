//! Values on a command line.

use std::time::Duration;

/// A time in seconds, such as `15` or `0.5`.
///
/// # Errors
///
/// A phrase that goes on after the value, if it is no number above 0.
pub fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(positive(text)?).map_err(|_| "is too long a time".to_owned())
}

/// A number above 0.
///
/// # Errors
///
/// A phrase that goes on after the value, if it is none.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("is no number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_above_zero_are_times() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e300", "5s", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
