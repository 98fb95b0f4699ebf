//! Which tower steps were applied, where they need not be applied in order: asynchronous mode.
//!
//! The key of a gradient is the same there, but counts only through the sample sequence: its serial number is applied
//! once, and the set of those that were applied is kept with each state. A fall back to a checkpoint takes the first as
//! many serial numbers as there were updates for applied.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The serial numbers of the tower steps that were applied: everything below a limit, and some
/// above it.
///
/// Kept with each state, so that a push that is repeated after the server's death cannot count
/// twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedSerials {
    /// All below this one were applied, and this one was not.
    floor: u64,
    above: BTreeSet<u64>,
}

impl AppliedSerials {
    /// The first `count` of them.
    #[must_use]
    pub fn first(count: u64) -> Self {
        AppliedSerials {
            floor: count,
            above: BTreeSet::new(),
        }
    }

    /// Whether it was applied.
    #[must_use]
    pub fn contains(&self, serial: u64) -> bool {
        serial < self.floor || self.above.contains(&serial)
    }

    /// Notes that it is applied.
    pub fn insert(&mut self, serial: u64) {
        if serial >= self.floor {
            self.above.insert(serial);
        }
        while self.above.remove(&self.floor) {
            self.floor += 1;
        }
    }

    /// How many were applied ahead of one that was not.
    #[must_use]
    pub fn num_ahead(&self) -> usize {
        self.above.len()
    }

    /// Those that were not, in order, without end.
    pub fn missing(&self) -> impl Iterator<Item = u64> {
        (self.floor..).filter(|serial| !self.above.contains(serial))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_in_whatever_order_it_is_filled(serials in prop::collection::vec(0_u64..40, 0..60)) {
            let mut applied = AppliedSerials::default();
            let mut set = BTreeSet::new();
            for serial in serials {
                applied.insert(serial);
                set.insert(serial);
            }
            for serial in 0..50 {
                prop_assert_eq!(applied.contains(serial), set.contains(&serial));
            }
            let first_missing = (0..).find(|serial| !set.contains(serial));
            prop_assert_eq!(applied.missing().next(), first_missing);
            prop_assert_eq!(applied.floor, first_missing.unwrap());
        }
    }
}
