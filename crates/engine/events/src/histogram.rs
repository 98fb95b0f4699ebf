//! How some numbers are distributed, over TensorFlow's buckets.
//!
//! Source: tensorflow/tensorflow, `core/lib/histogram/histogram.cc`. The limits of the buckets grow by a
//! tenth from 1e-12 to 1e20, and are the same for every histogram:
//!
//! ```text
//! -f64::MAX, -1e20, ... -1.1e-12, -1e-12, 0, 1e-12, 1.1e-12, 1.21e-12, ... 1e20, f64::MAX
//! ```
//!
//! A number is in the bucket of the first limit above it.

use std::sync::LazyLock;

use crate::messages;

/// Limits above zero.
const NUM_POSITIVE: usize = 775;

/// Number of buckets.
pub const NUM_BUCKETS: usize = 2 * NUM_POSITIVE + 1;

/// How some numbers are distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// What is known besides the buckets.
    pub moments: Moments,
    /// The first bucket with a number in it.
    first_bucket: usize,
    /// How many numbers are in each bucket from there to the last with a number in it.
    counts: Vec<u64>,
}

/// Range and sums of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The smallest; of no numbers, `f64::MAX`.
    pub min: f64,
    /// The largest; of no numbers, `f64::MIN`.
    pub max: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
}

impl Moments {
    const OF_NOTHING: Moments = Moments {
        min: f64::MAX,
        max: f64::MIN,
        sum: 0.0,
        sum_squares: 0.0,
    };

    /// Of finite numbers. Each lane takes every eighth number, so that a vector takes eight at once.
    fn of(numbers: &[f32]) -> Self {
        const LANES: usize = 8;
        let (vectors, rest) = numbers.as_chunks::<LANES>();
        let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut sum, mut sum_squares) = ([0.0; LANES], [0.0; LANES]);
        for vector in vectors {
            for (lane, number) in vector.iter().copied().enumerate() {
                min[lane] = if number < min[lane] {
                    number
                } else {
                    min[lane]
                };
                max[lane] = if number > max[lane] {
                    number
                } else {
                    max[lane]
                };
                let number = f64::from(number);
                sum[lane] += number;
                sum_squares[lane] += number * number;
            }
        }
        let mut moments = Moments::OF_NOTHING;
        for number in min.into_iter().chain(max).filter(|it| it.is_finite()) {
            moments.reach(f64::from(number));
        }
        moments.sum = sum.iter().sum();
        moments.sum_squares = sum_squares.iter().sum();
        for number in rest.iter().map(|number| f64::from(*number)) {
            moments.reach(number);
            moments.sum += number;
            moments.sum_squares += number * number;
        }
        moments
    }

    /// Widens the range to `number`.
    fn reach(&mut self, number: f64) {
        self.min = self.min.min(number);
        self.max = self.max.max(number);
    }

    fn are_finite(&self) -> bool {
        let Moments {
            min,
            max,
            sum,
            sum_squares,
        } = *self;
        [min, max, sum, sum_squares].iter().all(|it| it.is_finite())
    }
}

impl Histogram {
    /// The distribution of `numbers`. Those that are not finite are left out.
    #[must_use]
    pub fn of(numbers: &[f32]) -> Self {
        let are_finite = numbers
            .iter()
            .fold(true, |are_finite, number| are_finite & number.is_finite());
        if !are_finite {
            let finite = numbers.iter().copied().filter(|number| number.is_finite());
            return Histogram::of(&finite.collect::<Vec<_>>());
        }
        let moments = Moments::of(numbers);
        let finder = &*BUCKET_FINDER;
        // Equal numbers often follow each other: in two tables their counts need not wait for each other.
        let (mut counts, mut other_counts) = (vec![0_u64; NUM_BUCKETS], vec![0_u64; NUM_BUCKETS]);
        let (pairs, rest) = numbers.as_chunks::<2>();
        for [number, other] in pairs {
            counts[finder.bucket(*number)] += 1;
            other_counts[finder.bucket(*other)] += 1;
        }
        for number in rest {
            counts[finder.bucket(*number)] += 1;
        }
        for (count, other) in counts.iter_mut().zip(other_counts) {
            *count += other;
        }
        let is_used = |count: &u64| *count > 0;
        let first_bucket = counts.iter().position(is_used).unwrap_or(0);
        let end = counts.iter().rposition(is_used).map_or(0, |last| last + 1);
        counts.truncate(end);
        counts.drain(..first_bucket);
        Histogram {
            moments,
            first_bucket,
            counts,
        }
    }

    /// The histogram with these counts in the buckets from `first_bucket` on, from a process that may
    /// send anything; `None` if there are not as many buckets, or a moment is not finite.
    #[must_use]
    pub fn from_buckets(moments: Moments, first_bucket: usize, counts: Vec<u64>) -> Option<Self> {
        let fit = counts.len() <= NUM_BUCKETS && first_bucket <= NUM_BUCKETS - counts.len();
        (fit && moments.are_finite()).then_some(Histogram {
            moments,
            first_bucket,
            counts,
        })
    }

    /// The first bucket that is used, and how many numbers are in each from there to the last.
    #[must_use]
    pub fn buckets(&self) -> (usize, &[u64]) {
        (self.first_bucket, &self.counts)
    }

    /// How many numbers there are.
    #[must_use]
    pub fn num(&self) -> f64 {
        self.counts.iter().map(|count| *count as f64).sum()
    }

    /// As TensorFlow writes it: empty buckets that follow each other are one.
    pub(crate) fn to_message(&self) -> messages::Histogram {
        let limits = &BUCKET_FINDER.limits;
        let (mut bucket_limits, mut buckets) = (Vec::new(), Vec::new());
        let mut last_is_empty = false;
        for (bucket, limit) in limits.iter().enumerate() {
            let count = bucket
                .checked_sub(self.first_bucket)
                .and_then(|index| self.counts.get(index))
                .copied()
                .unwrap_or(0);
            if count == 0 && last_is_empty {
                bucket_limits.pop();
                buckets.pop();
            }
            last_is_empty = count == 0;
            bucket_limits.push(*limit);
            buckets.push(count as f64);
        }
        let Moments {
            min,
            max,
            sum,
            sum_squares,
        } = self.moments;
        messages::Histogram {
            min,
            max,
            num: self.num(),
            sum,
            sum_squares,
            bucket_limits,
            buckets,
        }
    }
}

static BUCKET_FINDER: LazyLock<BucketFinder> = LazyLock::new(BucketFinder::new);

/// Finds the bucket of a number with one look into a table and one comparison, without a branch: a
/// summary has millions of numbers to sort into buckets.
struct BucketFinder {
    /// All limits, ascending.
    limits: Vec<f64>,
    /// For all floats that begin with the same [`CELL_BITS`], of sign, exponent and mantissa.
    cells: Box<[Cell; 1 << CELL_BITS]>,
}

/// Floats of a cell are less than a sixteenth apart, and limits a tenth.
const CELL_BITS: u32 = 1 + 8 + 4;

/// What is known of floats that are nearly equal.
#[derive(Clone, Copy)]
struct Cell {
    /// The bucket of the smallest.
    bucket: u32,
    /// From this one on they are in the next bucket.
    next_from: f32,
}

impl BucketFinder {
    fn new() -> Self {
        let mut positive = Vec::with_capacity(NUM_POSITIVE);
        let mut limit = 1e-12;
        while limit < 1e20 {
            positive.push(limit);
            limit *= 1.1;
        }
        positive.push(f64::MAX);
        let negative = positive.iter().rev().map(|limit| -limit);
        let limits: Vec<f64> = negative
            .chain([0.0])
            .chain(positive.iter().copied())
            .collect();
        assert_eq!(limits.len(), NUM_BUCKETS);
        let cells = Box::new(std::array::from_fn(|index| {
            Cell::new(index as u32, &limits)
        }));
        BucketFinder { limits, cells }
    }

    /// The first bucket whose limit is above `number`, which is finite.
    #[inline(always)]
    fn bucket(&self, number: f32) -> usize {
        let cell = self.cells[(number.to_bits() >> (u32::BITS - CELL_BITS)) as usize];
        cell.bucket as usize + usize::from(number >= cell.next_from)
    }
}

impl Cell {
    fn new(index: u32, limits: &[f64]) -> Self {
        let bits = index << (u32::BITS - CELL_BITS);
        let ends = [bits, bits | (u32::MAX >> CELL_BITS)].map(f32::from_bits);
        let smallest = ends[0].min(ends[1]);
        let bucket = limits.partition_point(|limit| *limit <= f64::from(smallest));
        let next_from = limits.get(bucket).map_or(f32::INFINITY, |limit| {
            let nearest = *limit as f32;
            let is_below = f64::from(nearest) < *limit;
            if is_below { nearest.next_up() } else { nearest }
        });
        Cell {
            bucket: bucket as u32,
            next_from,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket_by_definition(number: f32) -> usize {
        let limits = &BUCKET_FINDER.limits;
        limits.partition_point(|limit| *limit <= f64::from(number))
    }

    #[test]
    fn the_limits_are_tensorflows() {
        let limits = &BUCKET_FINDER.limits;
        assert_eq!(limits.len(), NUM_BUCKETS);
        assert_eq!(limits[NUM_POSITIVE], 0.0);
        let small = [1e-12, 1e-12 * 1.1, 1e-12 * 1.1 * 1.1];
        assert_eq!(limits[NUM_POSITIVE + 1..][..3], small);
        assert_eq!([limits[0], limits[NUM_BUCKETS - 1]], [-f64::MAX, f64::MAX]);
        assert!(limits.is_sorted());
    }

    /// As `tf.summary.histogram` writes `[0, 1, 1, -2]`.
    #[test]
    fn empty_buckets_in_a_row_are_written_as_one() {
        let message = Histogram::of(&[0.0, 1.0, 1.0, -2.0, f32::NAN]).to_message();
        assert_eq!((message.min, message.max, message.num), (-2.0, 1.0, 4.0));
        assert_eq!((message.sum, message.sum_squares), (0.0, 6.0));
        assert_eq!(message.buckets, [0.0, 1.0, 0.0, 1.0, 0.0, 2.0, 0.0]);
        assert_eq!(message.bucket_limits.len(), 7);
        assert_eq!(message.bucket_limits[2..4], [0.0, 1e-12]);
        assert!(message.bucket_limits[4] <= 1.0 && message.bucket_limits[5] > 1.0);
        assert_eq!(message.bucket_limits[6], f64::MAX);
    }

    #[test]
    fn no_numbers_are_one_empty_bucket() {
        let message = Histogram::of(&[]).to_message();
        assert_eq!(message.bucket_limits, [f64::MAX]);
        assert_eq!((message.num, message.buckets), (0.0, vec![0.0]));
    }

    #[test]
    fn a_histogram_that_no_numbers_could_have_is_refused() {
        let made = |sum, first_bucket, len| {
            let moments = Moments {
                sum,
                ..Moments::OF_NOTHING
            };
            Histogram::from_buckets(moments, first_bucket, vec![1; len]).is_some()
        };
        assert!(made(0.0, 0, NUM_BUCKETS) && made(0.0, NUM_BUCKETS, 0));
        assert!(!made(f64::NAN, 0, 1));
        assert!(!made(0.0, 1, NUM_BUCKETS));
        assert!(!made(0.0, usize::MAX, 1) && !made(0.0, 0, NUM_BUCKETS + 1));
    }

    /// Just at, below and above each limit, and at the ends of each cell of the table.
    #[test]
    fn the_table_gives_the_bucket_of_the_definition() {
        let limits = BUCKET_FINDER.limits.iter().map(|limit| *limit as f32);
        let cells =
            (0..1 << CELL_BITS).map(|cell: u32| f32::from_bits(cell << (u32::BITS - CELL_BITS)));
        let exact = limits.chain(cells).filter(|number| number.is_finite());
        for number in exact.flat_map(|it| [it, -it, it.next_up(), it.next_down()]) {
            if number.is_finite() {
                assert_eq!(
                    BUCKET_FINDER.bucket(number),
                    bucket_by_definition(number),
                    "{number:e}"
                );
            }
        }
        assert_eq!(BUCKET_FINDER.bucket(-0.0), bucket_by_definition(0.0));
    }

    proptest! {
        #[test]
        fn every_number_is_in_the_bucket_of_the_definition(bits: u32) {
            let number = f32::from_bits(bits);
            if number.is_finite() {
                prop_assert_eq!(BUCKET_FINDER.bucket(number), bucket_by_definition(number));
            }
        }

        #[test]
        fn a_histogram_survives_its_parts(numbers in prop::collection::vec(-1e3_f32..1e3, 0..50)) {
            let histogram = Histogram::of(&numbers);
            let (first, counts) = histogram.buckets();
            let again = Histogram::from_buckets(histogram.moments, first, counts.to_vec());
            prop_assert_eq!(again.as_ref(), Some(&histogram));
            prop_assert_eq!(histogram.num(), numbers.len() as f64);
        }
    }
}
