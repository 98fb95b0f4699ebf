//! One example as it lies on disk: a label and three colour planes.
//!
//! The binary version of CIFAR-10 (<https://www.cs.toronto.edu/~kriz/cifar.html>) is nothing but
//! such records in a row:
//!
//! ```text
//! byte   0      1 ..= 1024   1025 ..= 2048   2049 ..= 3072
//!        label  red          green           blue
//! ```
//!
//! A plane holds 32 rows of 32 pixels, top row first, each row from left to right.

use std::fmt;

/// Height and width of a stored image, in pixels.
pub const RECORD_SIZE: usize = 32;
/// Colour channels: red, green, blue.
pub const NUM_CHANNELS: usize = 3;
/// Bytes of one colour plane.
pub const PLANE_BYTES: usize = RECORD_SIZE * RECORD_SIZE;
/// Bytes of a record: the label and three planes.
pub const RECORD_BYTES: usize = 1 + NUM_CHANNELS * PLANE_BYTES;
/// Labels are below this.
pub const NUM_CLASSES: u8 = 10;

/// A view of one record.
#[derive(Clone, Copy)]
pub struct Record<'a>(&'a [u8; RECORD_BYTES]);

impl<'a> Record<'a> {
    /// Sees `bytes` as a record. Its label is taken as it is; [`Records`] checks labels.
    #[must_use]
    pub fn new(bytes: &'a [u8; RECORD_BYTES]) -> Self {
        Record(bytes)
    }

    /// The class of the image, in `0..10` within [`Records`].
    #[must_use]
    pub fn label(self) -> u8 {
        self.0[0]
    }

    /// Plane `channel` (0 red, 1 green, 2 blue): 1024 bytes, row by row.
    ///
    /// # Panics
    ///
    /// If `channel` is not below [`NUM_CHANNELS`].
    #[must_use]
    pub fn plane(self, channel: usize) -> &'a [u8] {
        &self.0[1 + channel * PLANE_BYTES..][..PLANE_BYTES]
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record(label {})", self.label())
    }
}

/// Many records in one block of memory. Every label is a class.
#[derive(Clone, PartialEq, Eq)]
pub struct Records(Vec<u8>);

/// Why bytes are no records; [`crate::verify`] adds the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end inside this record.
    Truncated {
        /// Index of the record.
        record: usize,
    },
    /// This record's label names no class.
    Label {
        /// Index of the record.
        record: usize,
        /// What stands where the label should.
        label: u8,
    },
}

impl Records {
    /// Takes bytes as records.
    ///
    /// # Errors
    ///
    /// If they are not a whole number of records, or a label is not below [`NUM_CLASSES`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, Malformed> {
        check(&bytes).map(|()| Records(bytes))
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / RECORD_BYTES
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Record `index`.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn get(&self, index: usize) -> Record<'_> {
        Record(&self.0.as_chunks().0[index])
    }

    /// All records, in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.0.as_chunks().0.iter().map(Record)
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({})", self.len())
    }
}

/// Checks that `bytes` are whole records whose labels are classes, and names the first that is not.
///
/// # Errors
///
/// As [`Records::new`].
pub fn check(bytes: &[u8]) -> Result<(), Malformed> {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        let record = records.len();
        return Err(Malformed::Truncated { record });
    }
    match records.iter().position(|record| record[0] >= NUM_CLASSES) {
        Some(record) => Err(Malformed::Label {
            record,
            label: records[record][0],
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three records, each of one label and one byte per plane.
    fn one_colour_records() -> Vec<u8> {
        [(3, [10, 20, 30]), (9, [1, 2, 3]), (0, [255, 0, 128])]
            .into_iter()
            .flat_map(|(label, planes)| {
                std::iter::once(label).chain(planes.into_iter().flat_map(|p| [p; PLANE_BYTES]))
            })
            .collect()
    }

    #[test]
    fn planes_are_red_green_blue() {
        let records = Records::new(one_colour_records()).unwrap();
        let decoded: Vec<(u8, [u8; 3])> = records
            .iter()
            .map(|record| (record.label(), [0, 1, 2].map(|c| record.plane(c)[500])))
            .collect();
        assert_eq!(
            decoded,
            [(3, [10, 20, 30]), (9, [1, 2, 3]), (0, [255, 0, 128])]
        );
    }

    #[test]
    fn a_label_that_is_no_class_is_named() {
        let mut bytes = one_colour_records();
        bytes[2 * RECORD_BYTES] = 17;
        let malformed = Malformed::Label {
            record: 2,
            label: 17,
        };
        assert_eq!(Records::new(bytes), Err(malformed));
    }

    proptest! {
        #[test]
        fn bytes_cut_anywhere_are_refused_and_the_record_is_named(length in 0..3 * RECORD_BYTES) {
            let mut bytes = one_colour_records();
            bytes.truncate(length);
            let record = length / RECORD_BYTES;
            if length % RECORD_BYTES == 0 {
                prop_assert_eq!(Records::new(bytes).map(|records| records.len()), Ok(record));
            } else {
                prop_assert_eq!(Records::new(bytes), Err(Malformed::Truncated { record }));
            }
        }
    }
}
