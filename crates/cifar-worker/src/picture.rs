//! A person's picture as the network takes its images.
//!
//! The tutorial evaluates records of 32x32 pixels by their central 24x24. A picture of any size is made
//! such a record first: the largest square in its middle, scaled to 32x32. So a PNG of a test image
//! gets the very numbers that it has in a score, and of any other picture the same part is looked at.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use cifar_data::distort::{IMAGE_VALUES, central_crop};
use cifar_data::record::{NUM_CHANNELS, RECORD_BYTES, RECORD_SIZE, Record};
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage};

/// Longest side of a picture that is read.
const MAX_SIDE: u32 = 20_000;

/// Memory that one may take while it is read: a photograph of 100 megapixels.
const MAX_DECODING_BYTES: u64 = 512 << 20;

/// A picture that cannot be classified.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{path} is neither a PNG nor a JPEG")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The file begins as one, but is damaged, cut short, or too large.
    #[error("{path} is no picture that can be read")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ImageError,
    },
}

/// Reads a PNG or JPEG file: `[24, 24, 3]`, standardized, as an example of an evaluation.
///
/// # Errors
///
/// [`PictureError`].
pub fn read(path: &Path) -> Result<[f32; IMAGE_VALUES], PictureError> {
    let picture = decode(path)?;
    let mut image = [0.0; IMAGE_VALUES];
    central_crop(Record::new(&record_of(&picture)), &mut image);
    Ok(image)
}

fn decode(path: &Path) -> Result<DynamicImage, PictureError> {
    let read_error = |source| PictureError::Read {
        path: path.to_owned(),
        source,
    };
    let content_error = |source| PictureError::Content {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read_error)?;
    let mut reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(read_error)?;
    if !reader
        .format()
        .is_some_and(|format| format.reading_enabled())
    {
        return Err(PictureError::Format {
            path: path.to_owned(),
        });
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODING_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(content_error)?;
    // A camera says how it was held; a picture without such a note stays as it is.
    let orientation = decoder.orientation().map_err(content_error)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(content_error)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// The record of a picture, under label 0.
fn record_of(picture: &DynamicImage) -> [u8; RECORD_BYTES] {
    let size = RECORD_SIZE as u32;
    let side = picture.width().min(picture.height());
    let (left, top) = ((picture.width() - side) / 2, (picture.height() - side) / 2);
    let square = on_white(&picture.crop_imm(left, top, side, side));
    let small = match side == size {
        true => square,
        false => image::imageops::resize(&square, size, size, FilterType::Triangle),
    };
    let mut record = [0; RECORD_BYTES];
    for (index, pixel) in small.pixels().enumerate() {
        for channel in 0..NUM_CHANNELS {
            record[1 + channel * RECORD_SIZE * RECORD_SIZE + index] = pixel[channel];
        }
    }
    record
}

/// What can be seen through is seen on white, as most programs show it.
fn on_white(picture: &DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let picture = picture.to_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let image::Rgba([r, g, b, alpha]) = *picture.get_pixel(x, y);
        let over = |value: u8| {
            let (value, alpha) = (u32::from(value), u32::from(alpha));
            ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        image::Rgb([r, g, b].map(over))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{ImageFormat, Rgb, Rgba, RgbaImage};
    use proptest::prelude::*;

    use super::*;

    /// A record in which every byte differs from its neighbours.
    fn some_record() -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        let bytes = record[1..].iter_mut().enumerate();
        bytes.for_each(|(index, byte)| *byte = (index * 37 % 251) as u8);
        record
    }

    fn picture_of(record: &[u8; RECORD_BYTES]) -> RgbImage {
        let record = Record::new(record);
        let size = RECORD_SIZE as u32;
        RgbImage::from_fn(size, size, |x, y| {
            let index = y as usize * RECORD_SIZE + x as usize;
            Rgb([0, 1, 2].map(|channel| record.plane(channel)[index]))
        })
    }

    fn saved(
        picture: &DynamicImage,
        name: &str,
        format: ImageFormat,
    ) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        picture.save_with_format(&path, format).unwrap();
        (folder, path)
    }

    #[test]
    fn a_png_of_a_record_is_that_record_whatever_its_name() {
        let picture = DynamicImage::from(picture_of(&some_record()));
        let (_folder, path) = saved(&picture, "a.jpeg", ImageFormat::Png);
        assert_eq!(record_of(&decode(&path).unwrap()), some_record());
        let mut expected = [0.0; IMAGE_VALUES];
        central_crop(Record::new(&some_record()), &mut expected);
        assert_eq!(read(&path).unwrap(), expected);
    }

    #[test]
    fn the_middle_of_a_larger_picture_is_looked_at() {
        // A red square of 100x100 in the middle of a wide picture that is blue besides.
        let picture = RgbImage::from_fn(300, 100, |x, _| match (100..200).contains(&x) {
            true => Rgb([255, 0, 0]),
            false => Rgb([0, 0, 255]),
        });
        for picture in [
            DynamicImage::from(picture.clone()),
            DynamicImage::from(picture).rotate90(),
        ] {
            let record = record_of(&picture);
            let planes = [0, 1, 2].map(|channel| Record::new(&record).plane(channel).to_vec());
            assert_eq!(planes, [255, 0, 0].map(|value| vec![value; 1024]));
        }
    }

    #[test]
    fn what_can_be_seen_through_is_white() {
        let picture = RgbaImage::from_pixel(40, 40, Rgba([10, 20, 30, 0]));
        let record = record_of(&DynamicImage::from(picture));
        assert!(record[1..].iter().all(|byte| *byte == 255));
        let half = RgbaImage::from_pixel(40, 40, Rgba([0, 0, 0, 128]));
        let record = record_of(&DynamicImage::from(half));
        assert!(record[1..].iter().all(|byte| *byte == 127));
    }

    #[test]
    fn what_is_no_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert!(matches!(read(&path), Err(PictureError::Read { .. })));
        for text in [&b"no picture"[..], b"", b"GIF89a and so on"] {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, PictureError::Format { .. }), "{error:?}");
            assert!(
                error
                    .to_string()
                    .ends_with("a.png is neither a PNG nor a JPEG")
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_file_that_is_cut_or_damaged_is_an_error_or_a_picture(
            cut in 0_usize..6000, at in 0_usize..6000, is_png in any::<bool>()
        ) {
            let format = if is_png { ImageFormat::Png } else { ImageFormat::Jpeg };
            let picture = DynamicImage::from(picture_of(&some_record()));
            let (_folder, path) = saved(&picture, "a", format);
            let mut bytes = fs::read(&path).unwrap();
            bytes.truncate(cut.max(1));
            let at = at % bytes.len();
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).unwrap();
            let _ = read(&path);
        }

        #[test]
        fn a_picture_of_any_size_is_a_record(width in 1_u32..300, height in 1_u32..300) {
            let picture = DynamicImage::from(RgbImage::from_pixel(width, height, Rgb([1, 2, 3])));
            let record = record_of(&picture);
            prop_assert_eq!(Record::new(&record).plane(2)[512], 3);
        }
    }
}
