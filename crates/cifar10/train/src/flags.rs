//! The flags that a program is started with.

use std::ffi::OsString;

/// Flags of a command line, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(Vec<(String, Option<OsString>)>);

impl Flags {
    /// Gives a flag this value, in the place of the one that it has.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.put(name, Some(value.into()));
        self
    }

    /// As [`set`](Self::set), unless the flag has a value.
    #[must_use]
    pub fn set_default(self, name: &str, value: &str) -> Self {
        match self.contains(name) {
            true => self,
            false => self.set(name, value),
        }
    }

    /// Adds a flag that takes no value.
    #[must_use]
    pub fn switch(mut self, name: &str) -> Self {
        self.put(name, None);
        self
    }

    /// Takes a flag away.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(other, _)| other != name);
        self
    }

    /// Adds all of `others`, which win over those that are there.
    #[must_use]
    pub fn with(mut self, others: &Flags) -> Self {
        for (name, value) in &others.0 {
            self.put(name, value.clone());
        }
        self
    }

    /// Whether the flag is there.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    /// A word for each flag: `--name`, or `--name=value`, which stays one flag whatever the value is.
    pub fn words(&self) -> impl Iterator<Item = OsString> {
        self.0.iter().map(|(name, value)| {
            let mut word = OsString::from(format!("--{name}"));
            if let Some(value) = value {
                word.push("=");
                word.push(value);
            }
            word
        })
    }

    fn put(&mut self, name: &str, value: Option<OsString>) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, place)) => *place = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_stands_once_however_often_it_is_set() {
        let typed = Flags::default()
            .set("log-frequency", "5")
            .set("train-dir", "-x");
        let flags = Flags::default()
            .set("log-frequency", "0")
            .switch("fresh")
            .with(&typed)
            .set_default("log-frequency", "7")
            .set_default("seed", "1");
        let words: Vec<OsString> = flags.words().collect();
        assert_eq!(
            words,
            ["--log-frequency=5", "--fresh", "--train-dir=-x", "--seed=1"]
        );
        assert!(!flags.without("fresh").contains("fresh"));
    }
}
