//! From a record to an image: crop, distortions, standardization.
//!
//! The tutorial's `distorted_inputs` does, in this order: random crop to 24x24, random flip
//! left-right, random brightness, random contrast, per-image standardization
//! (`tensorflow/models: tutorials/image/cifar10/cifar10_input.py`). None of them clamps, so the
//! pixels' values enter only linearly and the whole is one formula per channel.
//!
//! For a crop of `n` = 576 pixels `x` in channel `c`, let `m_c` be the channel's mean, `v_c` its
//! (population) variance, `m` the mean of the three `m_c`, and `d`, `k` the draws of brightness and
//! contrast:
//!
//! - brightness gives `x + d`, of channel mean `m_c + d`;
//! - contrast gives `k (x + d - (m_c + d)) + (m_c + d)` = `k (x - m_c) + m_c + d`, of channel mean
//!   `m_c + d` still, of variance `k^2 v_c`;
//! - the mean over all `3n` values is `m + d`, and so `d` falls out of every deviation from it:
//!   `k (x - m_c) + (m_c - m)`. Brightness does not reach the model, in the tutorial as here;
//! - their variance is the mean over the channels of `k^2 v_c + (m_c - m)^2`, and
//! - standardization divides by `s` = `max(stddev, 1/sqrt(3n))`.
//!
//! With the integers `S_c` = sum of `x`, `Q_c` = sum of `x^2` and `T` = the three `S_c` together,
//! `x - m_c` is `(n x - S_c) / n`, `m_c - m` is `(3 S_c - T) / 3n` and `v_c` is
//! `(n Q_c - S_c^2) / n^2`: the numerators are exact, and what is rounded is one product and one
//! sum per value. That is closer to the formula than TensorFlow's chain of f32 steps, even for an
//! image of almost one colour, where differences of rounded means would be magnified 42 times.

use pserver_run::stream::{Purpose, Stream};

use crate::record::{NUM_CHANNELS, RECORD_SIZE, Record};

/// Height and width of the model's images, in pixels; the tutorial's name.
pub const IMAGE_SIZE: usize = 24;
/// Numbers in an image: 24 rows of 24 pixels of 3 channels.
pub const IMAGE_VALUES: usize = NUM_PIXELS * NUM_CHANNELS;

/// Pixels of an image: `n` above.
const NUM_PIXELS: usize = IMAGE_SIZE * IMAGE_SIZE;
/// Where a crop may begin: 0 to 8, in either direction.
const NUM_OFFSETS: u32 = (RECORD_SIZE - IMAGE_SIZE) as u32 + 1;
/// Where the central crop begins.
const CENTRAL_OFFSET: usize = (RECORD_SIZE - IMAGE_SIZE) / 2;

/// `max_delta` of the tutorial's `random_brightness`.
const MAX_BRIGHTNESS: f32 = 63.0;
/// `lower` of the tutorial's `random_contrast`.
const LOWER_CONTRAST: f32 = 0.2;
/// `upper` of the tutorial's `random_contrast`.
const UPPER_CONTRAST: f32 = 1.8;

/// The draws for one example in one epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distortion {
    /// First row of the crop, in `0..=8`.
    pub row: usize,
    /// First column of the crop, in `0..=8`.
    pub column: usize,
    /// Whether left and right are swapped.
    pub flip: bool,
    /// Added to every value, in `[-63, 63)`. Standardization takes it out again; it is drawn
    /// because the tutorial draws it.
    pub brightness: f32,
    /// Factor of each value's distance from its channel's mean, in `[0.2, 1.8)`.
    pub contrast: f32,
}

impl Distortion {
    /// The draws of a run with `seed` for `example` in `epoch`: the same for every caller.
    #[must_use]
    pub fn draw(seed: u64, epoch: u64, example: u32) -> Self {
        let mut stream = Stream::new(seed, Purpose::Distortion, epoch, u64::from(example));
        // Fields are drawn in the order in which they stand here, which is the tutorial's.
        Distortion {
            row: stream.below(NUM_OFFSETS) as usize,
            column: stream.below(NUM_OFFSETS) as usize,
            flip: stream.coin(),
            brightness: stream.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS),
            contrast: stream.uniform(LOWER_CONTRAST, UPPER_CONTRAST),
        }
    }

    /// No distortion: the central crop, as the tutorial evaluates.
    const NONE: Distortion = Distortion {
        row: CENTRAL_OFFSET,
        column: CENTRAL_OFFSET,
        flip: false,
        brightness: 0.0,
        contrast: 1.0,
    };
}

/// Writes the standardized central crop of `record` to `image`.
///
/// `[24, 24, 3]`: row by row, the channels of a pixel side by side. Mean 0, standard deviation 1
/// unless the image is nearly of one grey. The tutorial's `inputs`, for evaluation.
///
/// Rounds and sums where and as TensorFlow's `per_image_standardization` does on a CPU, so that the
/// image has the same bits as there: a comparison of the two (`docs/parity.md`) then sees what they
/// compute from it and nothing of how it was rounded.
pub fn central_crop(record: Record<'_>, image: &mut [f32; IMAGE_VALUES]) {
    let crops = [0, 1, 2].map(|channel| Crop {
        plane: record.plane(channel),
        distortion: &Distortion::NONE,
    });
    // Exact up to the division: the sum is a whole number below 2^24.
    let sum: u32 = crops
        .map(Crop::sums)
        .iter()
        .map(|channel| channel.sum)
        .sum();
    let mean = sum as f32 / IMAGE_VALUES as f32;
    write_image(crops, [|x| f32::from(x) - mean; NUM_CHANNELS], image);

    let stddev = (sum_of_squares(image) / IMAGE_VALUES as f32).sqrt();
    let adjusted_stddev = stddev.max(1.0 / (IMAGE_VALUES as f32).sqrt());
    for value in image {
        *value /= adjusted_stddev;
    }
}

/// Writes the distorted and standardized `record` to `image`, as [`central_crop`] does.
///
/// # Panics
///
/// If the crop does not lie in the record: `row` or `column` above 8.
pub fn distort(record: Record<'_>, distortion: &Distortion, image: &mut [f32; IMAGE_VALUES]) {
    let crops = [0, 1, 2].map(|channel| Crop {
        plane: record.plane(channel),
        distortion,
    });
    let sums = crops.map(Crop::sums);
    let maps = affine_maps(sums, f64::from(distortion.contrast));
    write_image(crops, maps.map(|map| move |x| map.apply(x)), image);
}

/// The window of a plane that is in the image.
#[derive(Clone, Copy)]
struct Crop<'a> {
    plane: &'a [u8],
    distortion: &'a Distortion,
}

impl Crop<'_> {
    /// Row `row` of the window, not flipped.
    fn row(self, row: usize) -> [u8; IMAGE_SIZE] {
        let start = (self.distortion.row + row) * RECORD_SIZE + self.distortion.column;
        *self.plane[start..]
            .first_chunk()
            .expect("a crop lies in its record")
    }

    /// Row `row` of the image: flipped where the distortion says so.
    fn image_row(self, row: usize) -> [u8; IMAGE_SIZE] {
        let mut bytes = self.row(row);
        if self.distortion.flip {
            bytes.reverse();
        }
        bytes
    }

    fn sums(self) -> Sums {
        let mut sums = Sums { sum: 0, squares: 0 };
        for row in 0..IMAGE_SIZE {
            for x in self.row(row) {
                sums.sum += u32::from(x);
                sums.squares += u32::from(x) * u32::from(x);
            }
        }
        sums
    }
}

/// `S_c` and `Q_c` of the module's formula: at most 576 * 255 and 576 * 255^2, about 2^25.2.
#[derive(Clone, Copy)]
struct Sums {
    sum: u32,
    squares: u32,
}

/// `(n x - sum) * scale + shift` is the image's value for `x`.
#[derive(Clone, Copy)]
struct AffineMap {
    sum: f32,
    scale: f32,
    shift: f32,
}

/// The module's formula, per channel.
fn affine_maps(sums: [Sums; NUM_CHANNELS], contrast: f64) -> [AffineMap; NUM_CHANNELS] {
    let n = NUM_PIXELS as f64;
    let total: u32 = sums.iter().map(|channel| channel.sum).sum();
    let channel_offset = |sum: u32| (3.0 * f64::from(sum) - f64::from(total)) / (3.0 * n);
    let variance = |Sums { sum, squares }| {
        let numerator = NUM_PIXELS as u64 * u64::from(squares) - u64::from(sum) * u64::from(sum);
        let within = contrast * contrast * numerator as f64 / (n * n);
        within + channel_offset(sum) * channel_offset(sum)
    };
    let stddev = (sums.iter().copied().map(variance).sum::<f64>() / 3.0).sqrt();
    let adjusted_stddev = stddev.max(1.0 / (IMAGE_VALUES as f64).sqrt());
    sums.map(|Sums { sum, .. }| AffineMap {
        sum: sum as f32,
        scale: (contrast / (n * adjusted_stddev)) as f32,
        shift: (channel_offset(sum) / adjusted_stddev) as f32,
    })
}

impl AffineMap {
    fn apply(self, x: u8) -> f32 {
        // Both terms of the difference are whole numbers below 2^24, so it is exact.
        (f32::from(x) * NUM_PIXELS as f32 - self.sum) * self.scale + self.shift
    }
}

/// The sum of the squares, in f32, in the order of TensorFlow's kernel: four vectors of eight partial
/// sums, which are then added vector by vector, and the halves of what is left to each other.
fn sum_of_squares(values: &[f32; IMAGE_VALUES]) -> f32 {
    const LANES: usize = 8;
    let mut partial = [[0.0; LANES]; 4];
    for vectors in values.as_chunks().0.as_chunks::<4>().0 {
        for (sums, vector) in partial.iter_mut().zip(vectors) {
            add_each(sums, vector.map(|value: f32| value * value));
        }
    }
    let [mut sums, rest @ ..] = partial;
    rest.into_iter()
        .for_each(|vector| add_each(&mut sums, vector));
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

fn add_each<const N: usize>(sums: &mut [f32; N], numbers: [f32; N]) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum += number;
    }
}

/// Writes the value of each byte of the crops, weaving the three planes into pixels.
fn write_image(
    crops: [Crop<'_>; NUM_CHANNELS],
    values: [impl Fn(u8) -> f32; NUM_CHANNELS],
    image: &mut [f32; IMAGE_VALUES],
) {
    const ROW_VALUES: usize = IMAGE_SIZE * NUM_CHANNELS;
    for (row, pixels) in image.as_chunks_mut::<ROW_VALUES>().0.iter_mut().enumerate() {
        let [red, green, blue] =
            [0, 1, 2].map(|channel| crops[channel].image_row(row).map(&values[channel]));
        let columns = pixels
            .as_chunks_mut::<NUM_CHANNELS>()
            .0
            .iter_mut()
            .enumerate();
        for (column, pixel) in columns {
            *pixel = [red[column], green[column], blue[column]];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{PLANE_BYTES, RECORD_BYTES};

    /// The tutorial's steps one after the other, in f64 and with every image in between.
    fn step_by_step(record: Record<'_>, distortion: &Distortion) -> Vec<f64> {
        let mut image = Vec::new();
        for row in 0..IMAGE_SIZE {
            for column in 0..IMAGE_SIZE {
                let column = if distortion.flip {
                    IMAGE_SIZE - 1 - column
                } else {
                    column
                };
                let pixel = (distortion.row + row) * RECORD_SIZE + distortion.column + column;
                image.extend([0, 1, 2].map(|channel| f64::from(record.plane(channel)[pixel])));
            }
        }
        for value in &mut image {
            *value += f64::from(distortion.brightness);
        }
        for channel in 0..NUM_CHANNELS {
            let of_channel = image.iter().skip(channel).step_by(NUM_CHANNELS);
            let mean = of_channel.sum::<f64>() / NUM_PIXELS as f64;
            for value in image.iter_mut().skip(channel).step_by(NUM_CHANNELS) {
                *value = (*value - mean) * f64::from(distortion.contrast) + mean;
            }
        }
        let mean = image.iter().sum::<f64>() / IMAGE_VALUES as f64;
        let squares = image.iter().map(|value| (value - mean) * (value - mean));
        let stddev = (squares.sum::<f64>() / IMAGE_VALUES as f64).sqrt();
        let adjusted = stddev.max(1.0 / (IMAGE_VALUES as f64).sqrt());
        image
            .iter()
            .map(|value| (value - mean) / adjusted)
            .collect()
    }

    /// Values reach 41; f32 has 24 bits, and three roundings of 2^-24 of 41 are 7e-6.
    const TOLERANCE: f64 = 1e-5;

    /// TensorFlow rounds the mean, by at most 2^-17 below 256, and in an image of nearly one colour
    /// multiplies that by up to 42: 3.2e-4. Rounding its sum of squares adds 4e-5 at most.
    const TOLERANCE_OF_TENSORFLOWS_ROUNDING: f64 = 4e-4;

    fn check(bytes: &[u8; RECORD_BYTES], distortion: &Distortion) {
        let mut image = [0.0; IMAGE_VALUES];
        distort(Record::new(bytes), distortion, &mut image);
        let expected = step_by_step(Record::new(bytes), distortion);
        assert_close(&image, &expected, TOLERANCE);
        central_crop(Record::new(bytes), &mut image);
        let expected = step_by_step(Record::new(bytes), &Distortion::NONE);
        assert_close(&image, &expected, TOLERANCE_OF_TENSORFLOWS_ROUNDING);
    }

    fn assert_close(image: &[f32], expected: &[f64], tolerance: f64) {
        for (value, expected) in image.iter().zip(expected) {
            let difference = (f64::from(*value) - expected).abs();
            assert!(difference < tolerance, "{value} is not {expected}");
        }
    }

    fn any_distortion() -> impl Strategy<Value = Distortion> {
        (any::<u64>(), any::<u64>(), any::<u32>())
            .prop_map(|(seed, epoch, example)| Distortion::draw(seed, epoch, example))
    }

    proptest! {
        #[test]
        fn one_formula_equals_the_steps(
            bytes in prop::collection::vec(any::<u8>(), RECORD_BYTES),
            distortion in any_distortion(),
        ) {
            check(bytes.first_chunk().unwrap(), &distortion);
        }

        #[test]
        fn nearly_flat_images_lose_no_precision(
            colours: [u8; 3], pixel in 1..RECORD_BYTES, value: u8, distortion in any_distortion(),
        ) {
            let mut bytes = [0; RECORD_BYTES];
            for (plane, colour) in bytes[1..].chunks_exact_mut(PLANE_BYTES).zip(colours) {
                plane.fill(colour);
            }
            check(&bytes, &distortion);
            bytes[pixel] = value;
            check(&bytes, &distortion);
        }

        #[test]
        fn draws_stay_in_their_ranges(distortion in any_distortion()) {
            prop_assert!(distortion.row <= 8 && distortion.column <= 8);
            prop_assert!((-63.0..63.0).contains(&distortion.brightness));
            prop_assert!((0.2..1.8).contains(&distortion.contrast));
        }
    }

    #[test]
    fn an_image_of_one_colour_becomes_zero() {
        let mut image = [1.0; IMAGE_VALUES];
        central_crop(Record::new(&[200; RECORD_BYTES]), &mut image);
        assert_eq!(image, [0.0; IMAGE_VALUES]);
    }

    #[test]
    fn channels_of_a_pixel_lie_side_by_side() {
        let mut bytes = [0; RECORD_BYTES];
        // The red top left pixel of the central crop, the blue bottom right one.
        bytes[1 + 4 * RECORD_SIZE + 4] = 255;
        bytes[1 + 2 * PLANE_BYTES + 27 * RECORD_SIZE + 27] = 255;
        let mut image = [0.0; IMAGE_VALUES];
        central_crop(Record::new(&bytes), &mut image);
        let bright: Vec<usize> = (0..IMAGE_VALUES).filter(|i| image[*i] > 1.0).collect();
        assert_eq!(bright, [0, IMAGE_VALUES - 1]);
    }

    #[test]
    fn every_crop_is_drawn() {
        let mut seen = [[false; 9]; 9];
        for example in 0..2000 {
            let Distortion { row, column, .. } = Distortion::draw(1, 0, example);
            seen[row][column] = true;
        }
        assert_eq!(seen, [[true; 9]; 9]);
    }

    #[test]
    fn the_draws_of_an_example_never_change() {
        let drawn = Distortion::draw(1, 2, 3);
        assert_eq!(drawn, GOLDEN);
    }

    /// Drawn once by this code; a change here changes every run.
    const GOLDEN: Distortion = Distortion {
        row: 2,
        column: 3,
        flip: false,
        brightness: -35.608276,
        contrast: 1.4690237,
    };
}
