//! A person's picture as the network takes its images.
//!
//! The tutorial evaluates records of 32x32 pixels by their central 24x24. A picture of any size is made
//! such a record first: the largest square in its middle, scaled to 32x32. So a PNG of a test image
//! gets the very numbers that it has in a score, and of any other picture the same part is looked at.
//!
//! What a picture would take is known from its header, and checked before a pixel is decoded. One that is cut
//! short is refused, wherever the cut is. PNG also has checksums. JPEG has none: damage that is still a possible
//! image cannot be told from one.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use anyhow::{anyhow, bail, ensure};
use cifar_data::distort::{IMAGE_VALUES, central_crop};
use cifar_data::record::{NUM_CHANNELS, RECORD_BYTES, RECORD_SIZE, Record};
use image::codecs::png::PngDecoder;
use image::imageops::{FilterType, crop_imm, resize};
use image::metadata::Orientation;
use image::{
    DynamicImage, GenericImageView, ImageDecoder, ImageFormat, Limits, Rgb, RgbImage, Rgba,
};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Most pixels of a picture, which bound the time: more than the 108 megapixels of a phone.
const MAX_PIXELS: u64 = 120_000_000;

/// Most memory that a picture may take: its file, its pixels, and what decoding needs besides.
const MAX_BYTES: u64 = 1 << 30;

/// Bytes that tell a PNG from a JPEG.
const SIGNATURE_BYTES: u64 = 8;

/// A picture as it is in its file.
struct Picture {
    image: DynamicImage,
    /// How the camera was held.
    orientation: Orientation,
}

type Decode = fn(&[u8]) -> anyhow::Result<Picture>;

/// Reads a PNG or JPEG file: `[24, 24, 3]`, standardized, as an example of an evaluation.
///
/// # Errors
///
/// What is wrong with the file, after its name.
pub fn read(path: &Path) -> anyhow::Result<[f32; IMAGE_VALUES]> {
    let picture = File::open(path).map_err(unreadable).and_then(picture_in);
    let picture = picture.map_err(|fault| anyhow!("{} {fault}", path.display()))?;
    let mut image = [0.0; IMAGE_VALUES];
    central_crop(Record::new(&record_of(&picture)), &mut image);
    Ok(image)
}

/// The picture in a file. An error is a phrase that goes on after the file's name.
fn picture_in(mut file: impl Read) -> anyhow::Result<Picture> {
    let mut bytes = Vec::new();
    let mut signature = file.by_ref().take(SIGNATURE_BYTES);
    signature.read_to_end(&mut bytes).map_err(unreadable)?;
    let (is_whole, decode): (fn(&[u8]) -> bool, Decode) = match image::guess_format(&bytes) {
        Ok(ImageFormat::Png) => (is_whole_png, decode_png),
        Ok(ImageFormat::Jpeg) => (is_whole_jpeg, decode_jpeg),
        _ => bail!("is neither a PNG nor a JPEG"),
    };
    let mut rest = file.take(MAX_BYTES);
    rest.read_to_end(&mut bytes).map_err(unreadable)?;
    ensure!(
        bytes.len() as u64 <= MAX_BYTES,
        "is a file of over {} GB, which is too large",
        MAX_BYTES >> 30
    );
    ensure!(
        is_whole(&bytes),
        "is cut short: the end of the image is missing"
    );
    decode(&bytes)
}

fn decode_png(bytes: &[u8]) -> anyhow::Result<Picture> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    let mut decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(undecodable)?;
    let bytes_per_pixel = decoder.color_type().bytes_per_pixel();
    check_size(decoder.dimensions(), bytes.len(), bytes_per_pixel.into())?;
    let orientation = decoder.orientation().map_err(undecodable)?;
    let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    Ok(Picture { image, orientation })
}

fn decode_jpeg(bytes: &[u8]) -> anyhow::Result<Picture> {
    let options = DecoderOptions::default()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(undecodable)?;
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
    let pixels = decoder.decode().map_err(undecodable)?;
    let image = RgbImage::from_raw(width, height, pixels).expect("a pixel is three bytes");
    Ok(Picture {
        image: image.into(),
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
    })
}

fn unreadable(error: io::Error) -> anyhow::Error {
    anyhow!("cannot be read: {error}")
}

/// The file begins as a PNG or a JPEG, but is damaged, or of a kind that cannot be decoded.
fn undecodable(error: impl fmt::Display) -> anyhow::Error {
    anyhow!("cannot be decoded: {error}")
}

fn check_size(
    (width, height): (u32, u32),
    file_bytes: usize,
    bytes_per_pixel: u64,
) -> anyhow::Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    let needed = pixels
        .saturating_mul(bytes_per_pixel)
        .saturating_add(file_bytes as u64);
    ensure!(
        pixels <= MAX_PIXELS && needed <= MAX_BYTES,
        "has {width} x {height} pixels, which is too large: a picture may have {} megapixels and take {} GB of \
         memory; scale it down",
        MAX_PIXELS / 1_000_000,
        MAX_BYTES >> 30
    );
    Ok(())
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

/// The record of a picture, under label 0: the largest square in the middle.
fn record_of(picture: &Picture) -> [u8; RECORD_BYTES] {
    let size = RECORD_SIZE as u32;
    let (width, height) = picture.image.dimensions();
    let side = width.min(height);
    let (left, top) = ((width - side) / 2, (height - side) / 2);
    let on_white = OnWhite(&picture.image);
    let square = crop_imm(&on_white, left, top, side, side);
    let mut small = DynamicImage::from(resize(&*square, size, size, FilterType::Triangle));
    small.apply_orientation(picture.orientation);
    let mut record = [0; RECORD_BYTES];
    for (index, pixel) in small.into_rgb8().pixels().enumerate() {
        for channel in 0..NUM_CHANNELS {
            record[1 + channel * RECORD_SIZE * RECORD_SIZE + index] = pixel[channel];
        }
    }
    record
}

/// A picture, seen where it lies: a copy would take as much memory again. What can be seen through is seen on
/// white, as most programs show it.
struct OnWhite<'a>(&'a DynamicImage);

impl GenericImageView for OnWhite<'_> {
    type Pixel = Rgb<u8>;

    fn dimensions(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    fn get_pixel(&self, x: u32, y: u32) -> Rgb<u8> {
        let Rgba([r, g, b, alpha]) = self.0.get_pixel(x, y);
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

    use image::RgbaImage;
    use proptest::prelude::*;

    use super::*;

    /// A record in which every byte differs from its neighbours.
    fn some_record() -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        let bytes = record[1..].iter_mut().enumerate();
        bytes.for_each(|(index, byte)| *byte = (index * 37 % 251) as u8);
        record
    }

    /// The picture that is this record.
    fn some_picture() -> RgbImage {
        let record = some_record();
        let record = Record::new(&record);
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
    fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.into().write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    /// What is said of a file that holds these bytes.
    fn said_of(bytes: &[u8]) -> Result<[u8; RECORD_BYTES], String> {
        let picture = picture_in(bytes).map_err(|error| error.to_string())?;
        Ok(record_of(&picture))
    }

    #[test]
    fn a_png_of_a_record_is_that_record_whatever_its_name() {
        let png = encoded(some_picture(), ImageFormat::Png);
        assert_eq!(said_of(&png), Ok(some_record()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpeg");
        fs::write(&path, png).unwrap();
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
        let wide = DynamicImage::from(picture);
        for picture in [wide.rotate90(), wide] {
            let record = record_of(&upright(picture));
            let planes = [0, 1, 2].map(|channel| Record::new(&record).plane(channel).to_vec());
            assert_eq!(planes, [255, 0, 0].map(|value| vec![value; 1024]));
        }
    }

    #[test]
    fn what_can_be_seen_through_is_white() {
        for (seen, pixel) in [(255, [10, 20, 30, 0]), (127, [0, 0, 0, 128])] {
            let record = record_of(&upright(RgbaImage::from_pixel(40, 40, Rgba(pixel))));
            assert!(record[1..].iter().all(|byte| *byte == seen));
        }
    }

    #[test]
    fn what_is_no_picture_is_named() {
        for text in [&b"no picture"[..], b"", b"GIF89a and so on"] {
            assert_eq!(said_of(text).unwrap_err(), "is neither a PNG nor a JPEG");
        }
    }

    #[test]
    fn a_picture_that_is_cut_anywhere_is_refused() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let whole = encoded(some_picture(), format);
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
        let jpeg = encoded(some_picture(), ImageFormat::Jpeg);
        let whole = with_exif(&jpeg, &jpeg);
        said_of(&whole).unwrap();
        let said = said_of(&whole[..jpeg.len() + 100]).unwrap_err();
        assert!(said.contains("is cut short"), "{said}");
    }

    /// A JPEG with these contents before its own, where cameras have what they tell of a picture.
    fn with_exif(jpeg: &[u8], contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len() + 2).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xFF, 0xE1], &length, contents, &jpeg[2..]].concat()
    }

    #[test]
    fn a_picture_that_would_take_too_much_is_refused_by_its_header() {
        // 13,000 x 13,000 of RGB, with its checksum.
        const HEADER: [u8; 21] = *b"IHDR\0\0\x32\xc8\0\0\x32\xc8\x08\x02\0\0\0\x6d\xc0\x7f\x6f";
        let mut png = encoded(some_picture(), ImageFormat::Png);
        png[12..33].copy_from_slice(&HEADER);
        let mut jpeg = encoded(some_picture(), ImageFormat::Jpeg);
        let mut marks = jpeg.windows(2);
        let frame = marks.position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x32, 0xC8, 0x32, 0xC8]);
        for file in [png, jpeg] {
            let expected = "has 13000 x 13000 pixels, which is too large: a picture may have 120 megapixels \
                            and take 1 GB of memory; scale it down";
            assert_eq!(said_of(&file).unwrap_err(), expected);
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
        let picture = DynamicImage::from(some_picture()).grayscale();
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
            let color = kind.color();
            let record = said_of(&encoded(kind, ImageFormat::Png)).unwrap();
            assert_eq!(record, expected, "{color:?}");
        }
    }

    #[test]
    fn a_picture_is_seen_as_the_camera_was_held() {
        let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([4 * x as u8, 4 * y as u8, 0]));
        let jpeg = encoded(picture, ImageFormat::Jpeg);
        let as_it_is = picture_in(&jpeg[..]).unwrap().image;
        for number in 1..=8 {
            // One entry, 0x0112: a number of 16 bits.
            let exif = [
                b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(),
                &[number, 0, 0, 0, 0, 0, 0],
            ]
            .concat();
            let found = said_of(&with_exif(&jpeg, &exif)).unwrap();
            let mut expected = as_it_is.clone();
            expected.apply_orientation(Orientation::from_exif(number).unwrap());
            for (found, expected) in found.into_iter().zip(record_of(&upright(expected))) {
                let difference = found.abs_diff(expected);
                assert!(difference <= 1, "{number}: {found} for {expected}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_file_is_an_error_or_a_picture(at in 0_usize..6000, is_png in any::<bool>()) {
            let format = if is_png { ImageFormat::Png } else { ImageFormat::Jpeg };
            let mut bytes = encoded(some_picture(), format);
            let at = at % bytes.len();
            bytes[at] ^= 0x55;
            let _ = said_of(&bytes);
        }

        #[test]
        fn a_picture_of_any_size_is_a_record(width in 1_u32..300, height in 1_u32..300) {
            let record = record_of(&upright(RgbImage::from_pixel(width, height, Rgb([1, 2, 3]))));
            prop_assert_eq!(Record::new(&record).plane(2)[512], 3);
        }
    }
}
