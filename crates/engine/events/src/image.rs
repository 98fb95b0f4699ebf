//! Pictures: from numbers of any range to PNG files.

use crate::messages;

/// Red, green and blue.
const NUM_CHANNELS: usize = 3;

/// What stands for a pixel that is not finite: red, as in TensorFlow.
const BAD_COLOR: [u8; NUM_CHANNELS] = [255, 0, 0];

/// An image as a PNG file in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    width: u32,
    height: u32,
    png: Vec<u8>,
}

impl Image {
    /// An image of these pixels: `[height, width, 3]`, red, green and blue.
    ///
    /// # Panics
    ///
    /// If there are none, or not as many.
    #[must_use]
    pub fn of_rgb(width: u32, height: u32, pixels: &[u8]) -> Self {
        let mut png = Vec::new();
        encode(width, height, pixels, &mut png)
            .expect("there are as many pixels as the sizes say, and memory takes them");
        Image { width, height, png }
    }

    /// The PNG file.
    #[must_use]
    pub fn png(&self) -> &[u8] {
        &self.png
    }

    pub(crate) fn to_message(&self) -> messages::Image {
        messages::Image {
            height: self.height as i32,
            width: self.width as i32,
            colorspace: NUM_CHANNELS as i32,
            encoded: self.png.clone(),
        }
    }
}

fn encode(
    width: u32,
    height: u32,
    pixels: &[u8],
    file: &mut Vec<u8>,
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()
}

/// The pixels `[height, width, 3]` of an image of any range as bytes, as `tf.summary.image` has them:
/// one with numbers below zero has zero at 128 and its largest magnitude at 1 or 255; another begins
/// at 0 and has its largest number at 255.
///
/// Source: tensorflow/tensorflow, `core/kernels/summary_image_op.cc`.
///
/// # Panics
///
/// If these are not whole pixels.
#[must_use]
pub fn rgb_of_floats(image: &[f32]) -> Vec<u8> {
    const AS_GOOD_AS_ZERO: f32 = 1e-6;
    let (pixels, rest) = image.as_chunks::<NUM_CHANNELS>();
    assert!(rest.is_empty(), "a pixel has three numbers");
    let is_finite = |pixel: &[f32; NUM_CHANNELS]| pixel.iter().all(|it| it.is_finite());
    let numbers = pixels.iter().filter(|pixel| is_finite(pixel)).flatten();
    let (min, max) = numbers.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), number| {
        (min.min(*number), max.max(*number))
    });
    let (largest, span, offset) = if min < 0.0 {
        (max.max(-min), 127.0, 128.0)
    } else {
        (max, 255.0, 0.0)
    };
    let scale = if largest < AS_GOOD_AS_ZERO {
        0.0
    } else {
        span / largest
    };
    let to_bytes = |pixel: &[f32; NUM_CHANNELS]| match is_finite(pixel) {
        // Whole numbers from 0 to 255: the fraction is cut off.
        true => pixel.map(|number| (number * scale + offset) as u8),
        false => BAD_COLOR,
    };
    pixels.iter().flat_map(to_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn an_image_is_a_png_of_its_pixels() {
        let pixels: Vec<u8> = (0..2 * 3 * 3).collect();
        let image = Image::of_rgb(2, 3, &pixels);
        let mut reader = png::Decoder::new(Cursor::new(image.png()))
            .read_info()
            .unwrap();
        let mut found = vec![0; pixels.len()];
        let info = reader.next_frame(&mut found).unwrap();
        assert_eq!((info.width, info.height), (2, 3));
        assert_eq!(info.color_type, png::ColorType::Rgb);
        assert_eq!(found, pixels);
    }

    #[test]
    fn numbers_become_bytes_as_in_tensorflow() {
        let cases: [(&[f32], &[u8]); 5] = [
            (&[0.0, 0.5, 2.0], &[0, 63, 255]),
            (&[-1.0, 0.0, 0.5], &[1, 128, 191]),
            (&[-0.5, 0.0, 1.0], &[64, 128, 255]),
            (&[0.0, 1e-7, 0.0], &[0, 0, 0]),
            (
                &[f32::NAN, 9.0, 9.0, 1.0, 1.0, 1.0],
                &[255, 0, 0, 255, 255, 255],
            ),
        ];
        for (numbers, bytes) in cases {
            assert_eq!(rgb_of_floats(numbers), bytes);
        }
    }
}
