//! Values on a command line.
//!
//! Each kind of value is read in one place, when it is typed: these numbers here, addresses in
//! `pserver_guard::address`, URLs in `cifar_data::args`.

use std::env;
use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Command, Parser};

use crate::console::refuse;

/// The longest time that a flag takes, 31 years: no clock overflows when it is added to now.
const MAX_SECONDS: f64 = 1e9;

/// The shortest: nothing here is done more often, and no time is rounded to none.
const MIN_SECONDS: f64 = 0.001;

/// A time in seconds, such as `15` or `0.5`.
///
/// # Errors
///
/// What a time looks like, if it is none.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (MIN_SECONDS..=MAX_SECONDS).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(
            "a time is a number of seconds from 0.001 to 1,000,000,000, without a unit or commas"
                .to_owned(),
        ),
    }
}

/// The same as a number, for what goes on calculating with it.
///
/// # Errors
///
/// As [`seconds`].
pub fn number_of_seconds(text: &str) -> Result<f64, String> {
    seconds(text).map(|time| time.as_secs_f64())
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

/// A number from 0 to 1.
///
/// # Errors
///
/// A phrase that goes on after the value, if it is none.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("is no number from 0 to 1".to_owned()),
    }
}

/// Reads the command line of this process; ends it where that is wrong or asks for help.
///
/// As [`Parser::parse`], [without empty variables](without_empty_variables).
#[must_use]
pub fn parse<P: Parser>() -> P {
    let mut command = without_empty_variables(P::command());
    let matches = command.try_get_matches_from_mut(env::args_os());
    let parsed = matches.and_then(|matches| P::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| refuse(&error.format(&mut command)))
}

/// The same command, to which an environment variable that is empty is one that is not set.
#[must_use]
pub fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| match arg.get_env().is_some_and(is_empty) {
            true => arg.env(Resettable::Reset),
            false => arg,
        })
        .mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_a_clock_can_wait_are_times() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("1e9"), Ok(Duration::from_secs(1_000_000_000)));
        for wrong in [
            "0", "-1", "nan", "inf", "1e19", "1e300", "1e-9", "5s", "1,000", " 5", "",
        ] {
            let error = seconds(wrong).unwrap_err();
            assert!(error.contains("without a unit"), "{wrong}: {error}");
        }
    }

    #[test]
    fn only_finite_numbers_above_zero_are_positive() {
        assert_eq!(positive("0.1"), Ok(0.1));
        for wrong in ["0", "-1", "nan", "inf", "1e400", "x", ""] {
            assert!(positive(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fraction_is_from_none_to_all() {
        assert_eq!((fraction("0"), fraction("1")), (Ok(0.0), Ok(1.0)));
        for wrong in ["-0.1", "1.1", "nan", "50%", ""] {
            assert!(fraction(wrong).is_err(), "{wrong}");
        }
    }
}
