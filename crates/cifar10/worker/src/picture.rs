//! A person's picture as the network takes its images.
//!
//! The tutorial evaluates records of 32x32 pixels by their central 24x24. A picture of any size is made
//! such a record first: the largest square in its middle, scaled to 32x32. So a PNG of a test image
//! gets the very numbers that it has in a score, and of any other picture the same part is looked at.
//!
//! What a picture would take is known from its header, and checked before a pixel is decoded. One that is cut
//! short is refused, wherever the cut is. PNG also has checksums. JPEG has none: damage that is still a possible
//! image cannot be told from one.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use cifar_data::distort::{IMAGE_VALUES, central_crop};
use cifar_data::record::{NUM_CHANNELS, RECORD_BYTES, RECORD_SIZE, Record};
use image::codecs::png::PngDecoder;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{
    DynamicImage, GenericImageView, ImageDecoder, ImageError, ImageFormat, Limits, Rgb, RgbImage,
    Rgba,
};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Most pixels of a picture, which bound the time: more than the 108 megapixels of a phone.
const MAX_PIXELS: u64 = 120_000_000;

/// Most memory that a picture may take: its file, its pixels, and what decoding needs besides.
const MAX_BYTES: u64 = 1 << 30;

/// Bytes that tell a PNG from a JPEG.
const SIGNATURE_BYTES: u64 = 8;

/// A picture that cannot be classified.
#[derive(Debug, thiserror::Error)]
#[error("{path} {fault}")]
pub struct PictureError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a picture: a phrase that goes on after its name.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// The file is something else.
    #[error("is neither a PNG nor a JPEG")]
    Format,
    /// The file ends before the image does.
    #[error("is cut short: the end of the image is missing")]
    CutShort,
    /// The picture has too many pixels, or needs too much memory.
    #[error(
        "has {width} x {height} pixels, which is too large: a picture may have {} megapixels and take {} GB of \
         memory; scale it down",
        MAX_PIXELS / 1_000_000,
        MAX_BYTES >> 30
    )]
    TooLarge {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
    },
    /// The file alone is larger than what a picture may take.
    #[error("is a file of over {} GB, which is too large", MAX_BYTES >> 30)]
    LargeFile,
    /// The file begins as a PNG, but is damaged, or of a kind that cannot be decoded.
    #[error("cannot be decoded: {0}")]
    Png(ImageError),
    /// The same of a JPEG.
    #[error("cannot be decoded: {0}")]
    Jpeg(DecodeErrors),
}

/// A picture as it is in its file.
struct Picture {
    image: DynamicImage,
    /// How the camera was held.
    orientation: Orientation,
}

type Decode = fn(&[u8]) -> Result<Picture, Fault>;

/// Reads a PNG or JPEG file: `[24, 24, 3]`, standardized, as an example of an evaluation.
///
/// # Errors
///
/// [`PictureError`].
pub fn read(path: &Path) -> Result<[f32; IMAGE_VALUES], PictureError> {
    let picture = read_picture(path).map_err(|fault| PictureError {
        path: path.to_owned(),
        fault,
    })?;
    let mut image = [0.0; IMAGE_VALUES];
    central_crop(Record::new(&record_of(&picture)), &mut image);
    Ok(image)
}

fn read_picture(path: &Path) -> Result<Picture, Fault> {
    let mut file = File::open(path).map_err(Fault::Read)?;
    let mut bytes = Vec::new();
    read_up_to(SIGNATURE_BYTES, &mut file, &mut bytes)?;
    let (is_whole, decode): (fn(&[u8]) -> bool, Decode) = match image::guess_format(&bytes) {
        Ok(ImageFormat::Png) => (is_whole_png, decode_png),
        Ok(ImageFormat::Jpeg) => (is_whole_jpeg, decode_jpeg),
        _ => return Err(Fault::Format),
    };
    read_up_to(MAX_BYTES, &mut file, &mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Fault::LargeFile);
    }
    if !is_whole(&bytes) {
        return Err(Fault::CutShort);
    }
    decode(&bytes)
}

fn read_up_to(limit: u64, file: &mut File, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    file.take(limit).read_to_end(bytes).map_err(Fault::Read)?;
    Ok(())
}

fn decode_png(bytes: &[u8]) -> Result<Picture, Fault> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    let mut decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(Fault::Png)?;
    let bytes_per_pixel = decoder.color_type().bytes_per_pixel();
    check_size(decoder.dimensions(), bytes.len(), bytes_per_pixel.into())?;
    let orientation = decoder.orientation().map_err(Fault::Png)?;
    let image = DynamicImage::from_decoder(decoder).map_err(Fault::Png)?;
    Ok(Picture { image, orientation })
}

fn decode_jpeg(bytes: &[u8]) -> Result<Picture, Fault> {
    let options = DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(Fault::Jpeg)?;
    // Strict from here on: what cannot be decoded is an error instead of grey. Headers may have bytes
    // between them, which some cameras and editors leave there.
    decoder.set_options(options.set_strict_mode(true));
    let info = decoder.info().expect("its headers are decoded");
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    // RGB; and of a progressive one, two bytes a component until the last scan is read.
    let bytes_per_pixel = 3 + 2 * u64::from(info.components);
    check_size((width, height), bytes.len(), bytes_per_pixel)?;
    let exif = info.exif_data.as_deref();
    let orientation = exif.and_then(Orientation::from_exif_chunk);
    let pixels = decoder.decode().map_err(Fault::Jpeg)?;
    let image = RgbImage::from_raw(width, height, pixels).expect("a pixel is three bytes");
    Ok(Picture {
        image: image.into(),
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
    })
}

fn check_size(
    (width, height): (u32, u32),
    file_bytes: usize,
    bytes_per_pixel: u64,
) -> Result<(), Fault> {
    let pixels = u64::from(width) * u64::from(height);
    let needed = pixels
        .saturating_mul(bytes_per_pixel)
        .saturating_add(file_bytes as u64);
    match pixels <= MAX_PIXELS && needed <= MAX_BYTES {
        true => Ok(()),
        false => Err(Fault::TooLarge { width, height }),
    }
}

/// Whether a PNG goes on to its last chunk. Its checksums tell whether what is before is sound.
fn is_whole_png(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(SIGNATURE_BYTES as usize..).unwrap_or_default();
    // A chunk is the length of its contents, its kind, the contents and a checksum.
    while let [a, b, c, d, kind @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(next) = rest.get(12 + length..) else {
            return false;
        };
        if kind.starts_with(b"IEND") {
            return true;
        }
        rest = next;
    }
    false
}

/// Whether a JPEG goes on to the mark of its end. A decoder fills up what is missing.
fn is_whole_jpeg(mut rest: &[u8]) -> bool {
    loop {
        rest = match rest {
            [0xFF, 0xD9, ..] => return true,
            [0xFF, 0xFF, ..] => &rest[1..],
            // A byte of the image, or a mark without contents.
            [0xFF, 0x00 | 0x01 | 0xD0..=0xD8, rest @ ..] => rest,
            // Contents, such as a small picture with an end of its own, and their length, which counts itself.
            [0xFF, _, high, low, ..] => {
                let length = u16::from_be_bytes([*high, *low]);
                rest.get(2 + usize::from(length)..).unwrap_or_default()
            }
            [_, rest @ ..] => rest,
            [] => return false,
        }
    }
}

/// The record of a picture, under label 0.
fn record_of(picture: &Picture) -> [u8; RECORD_BYTES] {
    let size = RECORD_SIZE as u32;
    let square = Square::in_the_middle_of(&picture.image);
    let small = image::imageops::resize(&square, size, size, FilterType::Triangle);
    let mut small = DynamicImage::from(small);
    small.apply_orientation(picture.orientation);
    let mut record = [0; RECORD_BYTES];
    for (index, pixel) in small.into_rgb8().pixels().enumerate() {
        for channel in 0..NUM_CHANNELS {
            record[1 + channel * RECORD_SIZE * RECORD_SIZE + index] = pixel[channel];
        }
    }
    record
}

/// A square of a picture, seen where it lies: a copy would take as much memory again.
struct Square<'a> {
    picture: &'a DynamicImage,
    left: u32,
    top: u32,
    side: u32,
}

impl<'a> Square<'a> {
    /// The largest one.
    fn in_the_middle_of(picture: &'a DynamicImage) -> Self {
        let (width, height) = picture.dimensions();
        let side = width.min(height);
        Square {
            picture,
            left: (width - side) / 2,
            top: (height - side) / 2,
            side,
        }
    }
}

impl GenericImageView for Square<'_> {
    type Pixel = Rgb<u8>;

    fn dimensions(&self) -> (u32, u32) {
        (self.side, self.side)
    }

    /// What can be seen through is seen on white, as most programs show it.
    fn get_pixel(&self, x: u32, y: u32) -> Rgb<u8> {
        let Rgba([r, g, b, alpha]) = self.picture.get_pixel(self.left + x, self.top + y);
        let over = |value: u8| {
            let (value, alpha) = (u32::from(value), u32::from(alpha));
            ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        Rgb([r, g, b].map(over))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{Rgb, Rgba, RgbaImage};
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

    fn upright(image: impl Into<DynamicImage>) -> Picture {
        Picture {
            image: image.into(),
            orientation: Orientation::NoTransforms,
        }
    }

    /// The bytes of a file of this picture.
    fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    /// What is said of a file that holds these bytes.
    fn said_of(bytes: &[u8]) -> Result<[f32; IMAGE_VALUES], String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, bytes).unwrap();
        read(&path).map_err(|error| error.to_string())
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
        assert_eq!(record_of(&read_picture(&path).unwrap()), some_record());
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
            let record = record_of(&upright(picture));
            let planes = [0, 1, 2].map(|channel| Record::new(&record).plane(channel).to_vec());
            assert_eq!(planes, [255, 0, 0].map(|value| vec![value; 1024]));
        }
    }

    #[test]
    fn what_can_be_seen_through_is_white() {
        let picture = RgbaImage::from_pixel(40, 40, Rgba([10, 20, 30, 0]));
        let record = record_of(&upright(picture));
        assert!(record[1..].iter().all(|byte| *byte == 255));
        let half = RgbaImage::from_pixel(40, 40, Rgba([0, 0, 0, 128]));
        let record = record_of(&upright(half));
        assert!(record[1..].iter().all(|byte| *byte == 127));
    }

    #[test]
    fn what_is_no_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("a.png cannot be read: "), "{error}");
        for text in [&b"no picture"[..], b"", b"GIF89a and so on"] {
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err();
            assert!(
                error
                    .to_string()
                    .ends_with("a.png is neither a PNG nor a JPEG")
            );
        }
    }

    #[test]
    fn a_picture_that_is_cut_anywhere_is_refused() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let whole = encoded(&picture_of(&some_record()), format);
            said_of(&whole).unwrap();
            for end in 0..whole.len() {
                let said = said_of(&whole[..end]);
                assert!(said.is_err(), "{format:?}, {end} of {} bytes", whole.len());
            }
            let said = said_of(&whole[..whole.len() / 2]).unwrap_err();
            assert!(said.contains("is cut short"), "{said}");
            let and_more = [&whole[..], b"and more"].concat();
            assert_eq!(said_of(&and_more), said_of(&whole));
        }
    }

    #[test]
    fn the_end_of_a_small_picture_inside_is_not_the_end_of_a_jpeg() {
        let inside = encoded(&picture_of(&some_record()), ImageFormat::Jpeg);
        let segment = jpeg_segment(0xE1, &inside);
        let whole = with_segment(
            &encoded(&picture_of(&some_record()), ImageFormat::Jpeg),
            &segment,
        );
        said_of(&whole).unwrap();
        let said = said_of(&whole[..segment.len() + 100]).unwrap_err();
        assert!(said.contains("is cut short"), "{said}");
    }

    /// A mark with contents, as it stands in a JPEG.
    fn jpeg_segment(mark: u8, contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, mark], &length[..], contents].concat()
    }

    fn with_segment(jpeg: &[u8], segment: &[u8]) -> Vec<u8> {
        [&jpeg[..2], segment, &jpeg[2..]].concat()
    }

    #[test]
    fn a_picture_that_would_take_too_much_is_refused_by_its_header() {
        // 13,000 x 13,000 of RGB, with its checksum.
        const HEADER: [u8; 21] = *b"IHDR\0\0\x32\xc8\0\0\x32\xc8\x08\x02\0\0\0\x6d\xc0\x7f\x6f";
        let mut png = encoded(&picture_of(&some_record()), ImageFormat::Png);
        png[12..33].copy_from_slice(&HEADER);
        let mut jpeg = encoded(&picture_of(&some_record()), ImageFormat::Jpeg);
        let frame = jpeg
            .windows(2)
            .position(|bytes| bytes == [0xFF, 0xC0])
            .unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x32, 0xC8, 0x32, 0xC8]);
        for file in [png, jpeg] {
            let said = said_of(&file).unwrap_err();
            let expected = "a has 13000 x 13000 pixels, which is too large: a picture may have 120 megapixels \
                            and take 1 GB of memory; scale it down";
            assert!(said.ends_with(expected), "{said}");
        }
    }

    #[test]
    fn a_large_photograph_may_be_classified() {
        // 108 megapixels of a phone as a progressive JPEG, and a panorama of 16 bits with transparency.
        assert!(check_size((12_000, 9_000), 40_000_000, 9).is_ok());
        assert!(check_size((50_000, 2_000), 200_000_000, 8).is_ok());
        assert!(check_size((u32::MAX, u32::MAX), usize::MAX, 8).is_err());
    }

    #[test]
    fn pictures_of_every_kind_of_pixel_look_alike() {
        let picture = DynamicImage::from(picture_of(&some_record())).grayscale();
        let expected = record_of(&upright(picture.to_rgb8()));
        for kind in [
            DynamicImage::from(picture.to_luma8()),
            picture.to_luma16().into(),
            picture.to_luma_alpha8().into(),
            picture.to_luma_alpha16().into(),
            picture.to_rgb16().into(),
            picture.to_rgba8().into(),
            picture.to_rgba16().into(),
        ] {
            let (_folder, path) = saved(&kind, "a", ImageFormat::Png);
            let record = record_of(&read_picture(&path).unwrap());
            assert_eq!(record, expected, "{:?}", kind.color());
        }
    }

    #[test]
    fn a_picture_is_seen_as_the_camera_was_held() {
        let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([4 * x as u8, 4 * y as u8, 0]));
        let jpeg = encoded(&picture, ImageFormat::Jpeg);
        let mut as_it_is = read_bytes(&jpeg);
        for number in 1..=8 {
            // One entry, 0x0112: a number of 16 bits.
            let exif = [
                b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(),
                &[number, 0, 0, 0, 0, 0, 0],
            ]
            .concat();
            let turned = with_segment(&jpeg, &jpeg_segment(0xE1, &exif));
            as_it_is.orientation = Orientation::from_exif(number).unwrap();
            let mut expected = as_it_is.image.clone();
            expected.apply_orientation(as_it_is.orientation);
            let found = record_of(&read_bytes(&turned));
            for (found, expected) in found.into_iter().zip(record_of(&upright(expected))) {
                assert!(
                    found.abs_diff(expected) <= 1,
                    "{number}: {found} for {expected}"
                );
            }
        }
    }

    fn read_bytes(bytes: &[u8]) -> Picture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, bytes).unwrap();
        read_picture(&path).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_file_is_an_error_or_a_picture(at in 0_usize..6000, is_png in any::<bool>()) {
            let format = if is_png { ImageFormat::Png } else { ImageFormat::Jpeg };
            let picture = DynamicImage::from(picture_of(&some_record()));
            let (_folder, path) = saved(&picture, "a", format);
            let mut bytes = fs::read(&path).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).unwrap();
            let _ = read(&path);
        }

        #[test]
        fn a_picture_of_any_size_is_a_record(width in 1_u32..300, height in 1_u32..300) {
            let picture = DynamicImage::from(RgbImage::from_pixel(width, height, Rgb([1, 2, 3])));
            let record = record_of(&upright(picture));
            prop_assert_eq!(Record::new(&record).plane(2)[512], 3);
        }
    }
}
