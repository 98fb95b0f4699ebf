//! Reads a fixture and compares with it.

use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// The bytes of a fixture file.
pub(crate) fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The tensors of a fixture.
pub(crate) struct Fixture<'a>(SafeTensors<'a>);

impl<'a> Fixture<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Fixture(SafeTensors::deserialize(bytes).unwrap())
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<i64> {
        self.0
            .tensor(name)
            .unwrap()
            .shape()
            .iter()
            .map(|size| *size as i64)
            .collect()
    }

    pub(crate) fn f32(&self, name: &str) -> Vec<f32> {
        self.numbers(name, Dtype::F32, f32::from_le_bytes)
    }

    pub(crate) fn f64(&self, name: &str) -> Vec<f64> {
        self.numbers(name, Dtype::F64, f64::from_le_bytes)
    }

    pub(crate) fn i32(&self, name: &str) -> Vec<i32> {
        self.numbers(name, Dtype::I32, i32::from_le_bytes)
    }

    pub(crate) fn i64(&self, name: &str) -> Vec<i64> {
        self.numbers(name, Dtype::I64, i64::from_le_bytes)
    }

    fn numbers<T, const N: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        parse: fn([u8; N]) -> T,
    ) -> Vec<T> {
        let tensor = self.0.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor
            .data()
            .chunks_exact(N)
            .map(|bytes| parse(bytes.try_into().unwrap()))
            .collect()
    }
}

/// Length of `found - expected` relative to that of `expected`.
pub(crate) fn relative_distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found
        .iter()
        .zip(expected)
        .map(|(found, expected)| f64::from(found - expected));
    length(differences) / length(expected.iter().map(|number| f64::from(*number)))
}

/// Euclidean length.
pub(crate) fn length(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|number| number * number).sum::<f64>().sqrt()
}

/// The elements that a fixture keeps of a long tensor: every `stride`-th, `count` of them.
pub(crate) fn samples(numbers: &[f32], stride: i64, count: usize) -> Vec<f32> {
    numbers
        .iter()
        .step_by(stride as usize)
        .take(count)
        .copied()
        .collect()
}
