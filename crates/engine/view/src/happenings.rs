//! What happened last, in sentences.

use std::collections::VecDeque;

use serde::Serialize;

/// Happenings that are kept.
pub const KEPT: usize = 100;

/// A thing that happens again within so many happenings is told as one, with a number.
const LOOK_BACK: usize = 12;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A server started.
    Start,
    /// The run went back.
    Rewind,
    /// A worker registered.
    Joined,
    /// A worker left.
    Left,
    /// A worker was given up.
    Lost,
    /// A tower step was overdue and also given to another worker.
    Overdue,
    /// A gradient did not count.
    Dropped,
    /// A gradient was not believed.
    InDoubt,
    /// Two workers came to different bits.
    Differed,
    /// A worker takes no further part.
    Quarantined,
    /// A checkpoint was written.
    Checkpoint,
    /// No gradient came for some seconds, or the server itself was suspended.
    StoodStill,
    /// The server left.
    End,
}

/// Something that happened, perhaps several times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happening {
    /// Stays the same when it happens again.
    pub id: u64,
    /// Grows with everything that happens.
    #[serde(skip)]
    pub serial: u64,
    /// When it happened last, in microseconds since 1970.
    pub at_micros: u64,
    /// What kind of thing it is.
    pub kind: Kind,
    /// The worker that it is about, if it is about one.
    pub worker: Option<u32>,
    /// A sentence.
    pub text: String,
    /// How often it happened.
    pub times: u64,
}

/// What happened last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Happenings {
    /// The newest last.
    kept: VecDeque<Happening>,
    last_serial: u64,
}

impl Happenings {
    /// Something happened. The same kind of thing about the same worker is told once if it happens
    /// again soon.
    pub(crate) fn add(&mut self, at_micros: u64, kind: Kind, worker: Option<u32>, text: String) {
        self.last_serial += 1;
        let serial = self.last_serial;
        let recent = self.kept.len().saturating_sub(LOOK_BACK)..self.kept.len();
        let repeats = matches!(kind, Kind::Overdue | Kind::Dropped);
        let before = recent
            .filter(|_| repeats)
            .find(|index| self.kept[*index].kind == kind && self.kept[*index].worker == worker);
        let before = before.and_then(|index| self.kept.remove(index));
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Happening {
            id: before.as_ref().map_or(serial, |before| before.id),
            serial,
            at_micros,
            kind,
            worker,
            text,
            times: before.map_or(0, |before| before.times) + 1,
        });
    }

    /// The newest last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Happening> {
        self.kept.iter()
    }

    /// The number of the newest.
    #[must_use]
    pub fn last_serial(&self) -> u64 {
        self.last_serial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(happenings: &Happenings) -> Vec<(Kind, u64)> {
        let told = happenings.iter();
        told.map(|happening| (happening.kind, happening.times))
            .collect()
    }

    #[test]
    fn a_straggler_is_told_once_with_a_number() {
        let mut happenings = Happenings::default();
        happenings.add(1, Kind::Joined, Some(3), "it joined".to_owned());
        for at in 2..20 {
            happenings.add(at, Kind::Overdue, Some(3), format!("overdue {at}"));
            happenings.add(at, Kind::Dropped, Some(3), format!("dropped {at}"));
        }
        assert_eq!(
            told(&happenings),
            [(Kind::Joined, 1), (Kind::Overdue, 18), (Kind::Dropped, 18)]
        );
        let last = happenings.iter().next_back().unwrap();
        assert_eq!((last.text.as_str(), last.at_micros), ("dropped 19", 19));
        assert_eq!(happenings.last_serial(), 37);
    }

    #[test]
    fn only_the_last_are_kept() {
        let mut happenings = Happenings::default();
        for at in 0..500 {
            happenings.add(at, Kind::Checkpoint, None, String::new());
        }
        assert_eq!(happenings.iter().count(), KEPT);
        assert_eq!(happenings.iter().next().unwrap().at_micros, 400);
    }
}
