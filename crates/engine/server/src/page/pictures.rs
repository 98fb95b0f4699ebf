//! Pictures of a run: examples as the model sees them, and the filters of its first layer.
//!
//! They are part of what a page is told, so that they are there when the server has left.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pserver_run::GlobalStep;
use pserver_state::checkpoint;
use serde::Serialize;

use crate::summary_writer::IMAGES_FOLDER;

/// Sample images that a run keeps in its train dir.
pub(crate) const NUM_SAMPLES: usize = 3;

/// No sample image is as large as this.
const MAX_SAMPLE_BYTES: u64 = 1024 * 1024;

/// Filters in a row of the picture.
const FILTERS_PER_ROW: usize = 16;

/// A file's time of change, in microseconds since 1970, and its length.
pub(crate) type Stamp = Option<(u64, u64)>;

/// The files of a run that are pictures, or become one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The sample images.
    pub(crate) samples: [Stamp; NUM_SAMPLES],
    /// The newest checkpoint.
    pub(crate) checkpoint: Option<(GlobalStep, PathBuf, Stamp)>,
}

/// Where a sample image lies.
pub(crate) fn sample_path(train_dir: &Path, number: usize) -> PathBuf {
    train_dir.join(IMAGES_FOLDER).join(format!("{number}.png"))
}

/// The pictures that pages are shown. One that cannot be had leaves the one before it.
#[derive(Debug, Default)]
pub(crate) struct Pictures {
    samples: [Drawn<String>; NUM_SAMPLES],
    filters: Drawn<Filters>,
    /// Counts the pictures that were drawn; the serial number of the newest.
    pub(crate) serial: u64,
}

/// A picture, what it was drawn from last, and its serial number.
#[derive(Debug, Default)]
struct Drawn<T> {
    picture: Option<T>,
    from: Stamp,
    serial: u64,
}

/// The filters of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Filters {
    /// Its step.
    pub(crate) global_step: u64,
    /// Their picture, as a `data:` URL.
    pub(crate) src: String,
}

impl<T> Drawn<T> {
    /// Draws what has changed since it was drawn last; not again what could not be drawn.
    fn draw(&mut self, from: Stamp, serial: &mut u64, draw: impl FnOnce() -> Option<T>) {
        if from.is_none() || from == self.from {
            return;
        }
        self.from = from;
        if let Some(picture) = draw() {
            *serial += 1;
            (self.picture, self.serial) = (Some(picture), *serial);
        }
    }

    fn newer_than(&self, serial: u64) -> Option<&T> {
        self.picture.as_ref().filter(|_| self.serial > serial)
    }
}

impl Pictures {
    /// Draws those whose files have changed.
    pub(crate) fn draw(&mut self, train_dir: &Path, files: &Files) {
        for (number, stamp) in files.samples.into_iter().enumerate() {
            let sample = || Some(url_of(&read_sample(train_dir, number).ok()?));
            self.samples[number].draw(stamp, &mut self.serial, sample);
        }
        if let Some((step, path, stamp)) = &files.checkpoint {
            let filters = || {
                Some(Filters {
                    global_step: step.0,
                    src: url_of(&filters_of(path).ok()?),
                })
            };
            self.filters.draw(*stamp, &mut self.serial, filters);
        }
    }

    /// Samples that are newer than those up to a serial number, each as a `data:` URL.
    pub(crate) fn samples_since(&self, serial: u64) -> [Option<&str>; NUM_SAMPLES] {
        let samples = self.samples.each_ref();
        samples.map(|sample| sample.newer_than(serial).map(String::as_str))
    }

    /// The filters, if they are newer.
    pub(crate) fn filters_since(&self, serial: u64) -> Option<&Filters> {
        self.filters.newer_than(serial)
    }
}

/// A picture that needs no request of its own, which nobody answers once the server has left.
fn url_of(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

/// Reads a sample image.
///
/// # Errors
///
/// If it is not there, or too large to be one.
fn read_sample(train_dir: &Path, number: usize) -> io::Result<Vec<u8>> {
    let file = File::open(sample_path(train_dir, number))?;
    let mut bytes = Vec::new();
    file.take(MAX_SAMPLE_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_SAMPLE_BYTES {
        false => Ok(bytes),
        true => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// The filters of a checkpoint as one PNG picture: of the variable `[size, size, 3 colours, filters]`.
///
/// # Errors
///
/// If the checkpoint cannot be read, or has no such variable.
fn filters_of(path: &Path) -> anyhow::Result<Vec<u8>> {
    let found = checkpoint::variable(path, is_of_filters)?;
    let (shape, values) = found.context("no variable has filters of three colours")?;
    Ok(Picture::of_filters(&values, shape[0], shape[3]).to_png()?)
}

fn is_of_filters(shape: &[usize]) -> bool {
    matches!(shape, &[height, width, 3, filters] if height == width && height > 0 && filters > 0)
}

/// A picture of four bytes a pixel: red, green, blue, and whether anything is there.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    width: usize,
    pixels: Vec<[u8; 4]>,
}

impl Picture {
    /// Filters of `size` x `size` x 3, each with its zero in grey and as much contrast as fits, and
    /// a line of nothing between them.
    fn of_filters(values: &[f32], size: usize, num_filters: usize) -> Self {
        let columns = FILTERS_PER_ROW.min(num_filters);
        let rows = num_filters.div_ceil(columns);
        let width = columns * (size + 1) - 1;
        let mut pixels = vec![[0; 4]; width * (rows * (size + 1) - 1)];
        for filter in 0..num_filters {
            let value = |at: usize| values[at * num_filters + filter];
            let largest = (0..size * size * 3).map(|at| value(at).abs());
            let scale = 127.0 / largest.fold(f32::MIN_POSITIVE, f32::max);
            let (row, column) = (filter / columns, filter % columns);
            for place in 0..size * size {
                let y = row * (size + 1) + place / size;
                let x = column * (size + 1) + place % size;
                let colour = |of: usize| (128.0 + scale * value(place * 3 + of)) as u8;
                pixels[y * width + x] = [colour(0), colour(1), colour(2), 255];
            }
        }
        Picture { width, pixels }
    }

    fn to_png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut bytes = Vec::new();
        let height = self.pixels.len() / self.width;
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgba);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(self.pixels.as_flattened())?;
        writer.finish()?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pserver_run::Layout;
    use pserver_state::TrainingState;
    use pserver_state::initial::initial_variables;

    use super::*;
    use crate::fixtures::run_config;

    #[test]
    fn filters_stand_side_by_side_with_a_line_between() {
        // Two filters of 1 x 1: pure red and dark blue, in the order of the variable.
        let values = [0.5, 0.0, 0.0, 0.0, 0.0, -0.1];
        let picture = Picture::of_filters(&values, 1, 2);
        assert_eq!(picture.width, 3);
        let [red, gap, blue] = picture.pixels[..] else {
            panic!("three pixels");
        };
        assert_eq!(
            (red, gap, blue),
            ([255, 128, 128, 255], [0; 4], [128, 128, 1, 255])
        );
    }

    #[test]
    fn a_checkpoint_has_a_picture_of_its_filters() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::example();
        let state = TrainingState::initial(initial_variables(&layout, 1));
        let path = checkpoint::save(dir.path(), &layout, &state, &run_config()).unwrap();
        let png = filters_of(&path).unwrap();
        let decoder = png::Decoder::new(io::Cursor::new(png));
        let reader = decoder.read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (31, 3));
        fs::write(&path, "no checkpoint").unwrap();
        assert!(filters_of(&path).is_err());
        for other in [&[5, 5, 3, 0], &[0, 0, 3, 1], &[5, 4, 3, 8], &[5, 5, 1, 8]] {
            assert!(!is_of_filters(other), "{other:?}");
        }
    }

    #[test]
    fn a_sample_that_is_no_picture_by_its_size_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_sample(dir.path(), 0).is_err());
        fs::create_dir(dir.path().join(IMAGES_FOLDER)).unwrap();
        fs::write(sample_path(dir.path(), 0), [1, 2]).unwrap();
        assert_eq!(read_sample(dir.path(), 0).unwrap(), [1, 2]);
        let large = File::create(sample_path(dir.path(), 1)).unwrap();
        large.set_len(MAX_SAMPLE_BYTES + 1).unwrap();
        assert!(read_sample(dir.path(), 1).is_err());
    }
}
