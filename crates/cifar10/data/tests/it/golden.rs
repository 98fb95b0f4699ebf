//! Is an image what TensorFlow makes of the same record under the same draws?
//!
//! `fixtures/distort/make.py` says what is compared and made it.

use std::path::Path;

use cifar_data::distort::{self, Distortion, IMAGE_VALUES};
use cifar_data::record::{RECORD_BYTES, Record};
use safetensors::SafeTensors;

const NUM_RECORDS: usize = 8;

/// Of distorted images. TensorFlow takes each step in f32, this crate the scalar ones in f64: seen are 7e-7, some units
/// in the last place of values around 2, and 5e-6 in the image of almost one colour, where a
/// deviation below one grey level is divided by 1/42.
const TOLERANCE: f32 = 1e-5;

/// The fixture's tensors, one entry per record.
struct Fixture(Vec<u8>);

impl Fixture {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/distort/distort.safetensors");
        Fixture(std::fs::read(path).unwrap())
    }

    fn bytes(&self, name: &str, index: usize) -> Vec<u8> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let data = tensors.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(data.len() / NUM_RECORDS)
            .nth(index)
            .unwrap()
            .to_vec()
    }

    fn floats(&self, name: &str, index: usize) -> Vec<f32> {
        let words = |bytes: Vec<u8>| bytes.as_chunks().0.to_vec();
        words(self.bytes(name, index))
            .into_iter()
            .map(f32::from_le_bytes)
            .collect()
    }

    fn integer(&self, name: &str, index: usize) -> i32 {
        i32::from_le_bytes(*self.bytes(name, index).first_chunk().unwrap())
    }

    fn record(&self, index: usize) -> [u8; RECORD_BYTES] {
        self.bytes("records", index).try_into().unwrap()
    }

    fn distortion(&self, index: usize) -> Distortion {
        Distortion {
            row: self.integer("row", index) as usize,
            column: self.integer("column", index) as usize,
            flip: self.integer("flip", index) == 1,
            brightness: self.floats("brightness", index)[0],
            contrast: self.floats("contrast", index)[0],
        }
    }
}

/// Compares what `make` writes with the fixture's tensor `name`, record by record.
fn check(name: &str, tolerance: f32, make: impl Fn(&Fixture, usize, &mut [f32; IMAGE_VALUES])) {
    let fixture = Fixture::open();
    for index in 0..NUM_RECORDS {
        let mut image = [0.0; IMAGE_VALUES];
        make(&fixture, index, &mut image);
        let expected = fixture.floats(name, index);
        let errors = image
            .iter()
            .zip(&expected)
            .map(|(value, expected)| (value - expected).abs());
        let worst = errors.fold(0.0, f32::max);
        assert!(worst <= tolerance, "{name} {index}: {worst}");
    }
}

#[test]
fn distortions_are_those_of_tensorflow() {
    check("distorted", TOLERANCE, |fixture, index, image| {
        let record = fixture.record(index);
        distort::distort(Record::new(&record), &fixture.distortion(index), image);
    });
}

#[test]
fn standardization_has_the_bits_of_tensorflow() {
    check("standardized", 0.0, |fixture, index, image| {
        let record = fixture.record(index);
        distort::central_crop(Record::new(&record), image);
    });
}
