//! What a large picture takes of the memory while it is read.

use cap::Cap;
use cifar_worker::picture;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

const WIDTH: u32 = 4000;
const HEIGHT: u32 = 3000;

/// Rows of the scaled picture and what the decoder has for itself.
const BESIDES: usize = 12 << 20;

/// Memory beyond the limit is not given: the process would end.
#[test]
fn a_picture_takes_the_memory_of_its_pixels_and_no_copy_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let rgb = RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([10, 20, 30]));
    let rgba = RgbaImage::from_pixel(WIDTH, HEIGHT, Rgba([10, 20, 30, 40]));
    for (name, image, format, bytes_per_pixel) in [
        (
            "a.png",
            DynamicImage::from(rgb.clone()),
            ImageFormat::Png,
            3,
        ),
        ("b.png", rgba.into(), ImageFormat::Png, 4),
        ("c.jpg", rgb.into(), ImageFormat::Jpeg, 3),
    ] {
        let path = folder.path().join(name);
        image.save_with_format(&path, format).unwrap();
        drop(image);
        let pixels = (WIDTH * HEIGHT) as usize * bytes_per_pixel;
        let limit = ALLOCATOR.allocated() + pixels + BESIDES;
        ALLOCATOR.set_limit(limit).unwrap();
        picture::read(&path).unwrap();
        ALLOCATOR.set_limit(usize::MAX).unwrap();
    }
}
