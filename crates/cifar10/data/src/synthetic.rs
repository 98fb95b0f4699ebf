//! A data set that needs no download: ten kinds of figure, drawn by rule.
//!
//! It has CIFAR-10's form, and asks of a model what CIFAR-10 asks, if less of it: a figure is told
//! by its shape, wherever it lies, whatever its size and slant, in changing colours, before a slope
//! of other colours and among blotches, under noise. Its scores say that a model learns, and
//! nothing about CIFAR-10.
//!
//! Every example is a function of its split and index alone, not of a run's seed: there is one such
//! set of each size. Only whole numbers and the basic operations on `f32` are used, which IEEE 754
//! fixes to the bit, so it is the same set on every machine.

use pserver_run::stream::{Purpose, Stream};

use crate::record::{NUM_CHANNELS, NUM_CLASSES, PLANE_BYTES, RECORD_BYTES, RECORD_SIZE, Records};
use crate::split::Split;

/// The set is the same for every run, whatever its seed.
const SEED: u64 = 10;

/// Stream positions `a` of the examples and of the labels, by split.
const fn stream_ids(split: Split) -> (u64, u64) {
    match split {
        Split::Train => (0, 2),
        Split::Test => (1, 3),
    }
}

/// Draws the first `num_examples` examples of `split`.
///
/// Each class has a tenth of them, give or take one, in no order.
///
/// # Panics
///
/// Never: the labels it draws are classes.
#[must_use]
pub fn draw(split: Split, num_examples: u32) -> Records {
    let (examples_id, labels_id) = stream_ids(split);
    let mut bytes = vec![0; num_examples as usize * RECORD_BYTES];
    let labels = shuffled_labels(labels_id, num_examples);
    let records = bytes.as_chunks_mut::<RECORD_BYTES>().0.iter_mut();
    for ((index, label), record) in (0..).zip(labels).zip(records) {
        let mut stream = Stream::new(SEED, Purpose::Synthetic, examples_id, index);
        record[0] = label;
        Scene::draw(&mut stream, label).paint(&mut stream, &mut record[1..]);
    }
    Records::new(bytes).expect("labels are drawn below the number of classes")
}

/// As many labels of each class as of any other, in random order (Durstenfeld's shuffle).
fn shuffled_labels(id: u64, num_examples: u32) -> Vec<u8> {
    let mut stream = Stream::new(SEED, Purpose::Synthetic, id, 0);
    let mut labels: Vec<u8> = (0..NUM_CLASSES)
        .cycle()
        .take(num_examples as usize)
        .collect();
    for last in (1..num_examples).rev() {
        labels.swap(last as usize, stream.below(last + 1) as usize);
    }
    labels
}

type Colour = [f32; NUM_CHANNELS];

/// Largest amount that noise adds or takes.
const NOISE: f32 = 50.0;
/// Blotches that lie about in every image.
const NUM_BLOTCHES: usize = 3;

/// Everything in an image but its noise.
struct Scene {
    figure: Figure,
    figure_colour: Colour,
    /// Colour at the image's middle, and its change per row and per column.
    ground: Colour,
    ground_slope: [Colour; 2],
    blotches: [Blotch; NUM_BLOTCHES],
}

/// Where a figure lies and which one it is.
struct Figure {
    label: u8,
    row: f32,
    column: f32,
    /// Pixels from its middle to its edge, about.
    radius: f32,
    /// Columns that it moves to the right with each row, which looks like a small turn.
    slant: f32,
}

/// A disc of one colour that means nothing.
struct Blotch {
    row: f32,
    column: f32,
    radius: f32,
    colour: Colour,
}

fn colour(stream: &mut Stream, low: f32, high: f32) -> Colour {
    [(); NUM_CHANNELS].map(|()| stream.uniform(low, high))
}

impl Scene {
    fn draw(stream: &mut Stream, label: u8) -> Self {
        let ground = colour(stream, 50.0, 205.0);
        // Lighter or darker than the ground, by less or more: now and then it can hardly be seen.
        let contrast = stream.uniform(15.0, 105.0);
        let sign = if stream.coin() { 1.0 } else { -1.0 };
        let tint = colour(stream, -30.0, 30.0);
        Scene {
            figure: Figure::draw(stream, label),
            figure_colour: [0, 1, 2].map(|c| ground[c] + sign * contrast + tint[c]),
            ground,
            ground_slope: [colour(stream, -2.0, 2.0), colour(stream, -2.0, 2.0)],
            blotches: [(); NUM_BLOTCHES].map(|()| Blotch::draw(stream, ground)),
        }
    }

    /// Writes three planes of bytes.
    fn paint(&self, stream: &mut Stream, planes: &mut [u8]) {
        let (red, rest) = planes.split_at_mut(PLANE_BYTES);
        let (green, blue) = rest.split_at_mut(PLANE_BYTES);
        for pixel in 0..PLANE_BYTES {
            let row = (pixel / RECORD_SIZE) as f32;
            let column = (pixel % RECORD_SIZE) as f32;
            let colour = self.colour_at(row, column);
            // One draw of 24 bits serves the three channels.
            let noise = stream.below(1 << 24).to_le_bytes();
            let value = |c: usize| noisy(colour[c], noise[c]);
            (red[pixel], green[pixel], blue[pixel]) = (value(0), value(1), value(2));
        }
    }

    fn colour_at(&self, row: f32, column: f32) -> Colour {
        if self.figure.covers(row, column) {
            return self.figure_colour;
        }
        if let Some(blotch) = self
            .blotches
            .iter()
            .find(|blotch| blotch.covers(row, column))
        {
            return blotch.colour;
        }
        let middle = RECORD_SIZE as f32 / 2.0;
        let [by_row, by_column] = self.ground_slope;
        [0, 1, 2]
            .map(|c| self.ground[c] + by_row[c] * (row - middle) + by_column[c] * (column - middle))
    }
}

/// The byte for `value` with noise: `noise` 0 takes [`NOISE`], 255 adds it. Cut to 0..=255.
fn noisy(value: f32, noise: u8) -> u8 {
    (value + (f32::from(noise) - 127.5) * (NOISE / 127.5)) as u8
}

impl Blotch {
    fn draw(stream: &mut Stream, ground: Colour) -> Self {
        let tint = colour(stream, -60.0, 60.0);
        Blotch {
            row: stream.uniform(0.0, 32.0),
            column: stream.uniform(0.0, 32.0),
            radius: stream.uniform(1.5, 4.5),
            colour: [0, 1, 2].map(|c| ground[c] + tint[c]),
        }
    }

    fn covers(&self, row: f32, column: f32) -> bool {
        let (v, u) = (row - self.row, column - self.column);
        u * u + v * v < self.radius * self.radius
    }
}

impl Figure {
    /// Most of it stays within any 24x24 crop.
    fn draw(stream: &mut Stream, label: u8) -> Self {
        Figure {
            label,
            row: stream.uniform(12.5, 19.5),
            column: stream.uniform(12.5, 19.5),
            radius: stream.uniform(6.0, 11.0),
            slant: stream.uniform(-0.25, 0.25),
        }
    }

    fn covers(&self, row: f32, column: f32) -> bool {
        let v = (row - self.row) / self.radius;
        let u = (column - self.column) / self.radius - self.slant * v;
        is_inside(self.label, u, v)
    }
}

/// Whether figure `label` covers the point `u` to the right of and `v` below its middle, in radii.
///
/// No figure becomes another one when left and right are swapped: the distortions do that.
fn is_inside(label: u8, u: f32, v: f32) -> bool {
    let (across, down) = (u.abs(), v.abs());
    let square = across.max(down);
    let circle = u * u + v * v;
    // Of numbers above 0, which is where `square` lets it be asked.
    let odd = |x: f32| x as i32 & 1 == 1;
    match label {
        0 => circle < 1.0,                                                 // disc
        1 => circle < 1.0 && circle > 0.4,                                 // ring
        2 => square < 0.85,                                                // square
        3 => square < 0.9 && square > 0.55,                                // frame
        4 => square < 1.0 && across.min(down) < 0.28,                      // plus
        5 => square < 0.9 && (across - down).abs() < 0.35,                 // cross
        6 => v.abs() < 0.9 && across < 0.55 * (v + 0.9),                   // triangle
        7 => square < 1.0 && odd(2.5 * (v + 1.0)),                         // horizontal bars
        8 => square < 1.0 && odd(2.5 * (u + 1.0)),                         // vertical bars
        _ => square < 1.0 && odd(2.5 * (u + 1.0)) != odd(2.5 * (v + 1.0)), // chessboard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256Digest;

    #[test]
    fn classes_are_balanced_and_in_no_order() {
        let records = draw(Split::Train, 1000);
        let labels: Vec<u8> = records.iter().map(|record| record.label()).collect();
        for class in 0..NUM_CLASSES {
            assert_eq!(labels.iter().filter(|label| **label == class).count(), 100);
        }
        assert!(!labels.is_sorted());
        assert_ne!(labels[..10], labels[10..20]);
    }

    #[test]
    fn training_and_test_examples_differ() {
        let (train, test) = (draw(Split::Train, 10), draw(Split::Test, 10));
        for (train, test) in train.iter().zip(test.iter()) {
            assert_ne!(train.plane(0), test.plane(0));
        }
    }

    #[test]
    fn the_set_is_the_same_on_every_machine() {
        let bytes: Vec<u8> = draw(Split::Train, 20)
            .iter()
            .flat_map(|record| {
                let planes = (0..NUM_CHANNELS).flat_map(move |c| record.plane(c).iter().copied());
                std::iter::once(record.label()).chain(planes)
            })
            .collect();
        assert_eq!(Sha256Digest::of(&bytes).to_string(), GOLDEN);
    }

    /// Drawn once by this code. A change of the drawing also raises the version of the
    /// synthetic set in `pserver_run::data_set`, so that old and new runs are not compared.
    const GOLDEN: &str = "07fa7a7f4f7a73218f6b5f8ae40960963b5575e34d18850954210e64ef286bc3";

    #[test]
    fn a_figure_is_its_own_mirror_image() {
        let coordinates = || (0..40).map(|i| i as f32 / 20.0 - 0.975);
        for label in 0..NUM_CLASSES {
            let mut covered = 0;
            for (u, v) in coordinates().flat_map(|u| coordinates().map(move |v| (u, v))) {
                assert_eq!(
                    is_inside(label, u, v),
                    is_inside(label, -u, v),
                    "figure {label}"
                );
                covered += usize::from(is_inside(label, u, v));
            }
            assert!(
                covered > 300,
                "figure {label} is hardly there: {covered} of 1600"
            );
        }
    }
}
