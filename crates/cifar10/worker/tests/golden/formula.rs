//! Variables and batches that a fixture does not store, because both sides can make them.
//!
//! Element `i` of stream `s` is the number that the generator SplitMix64 draws from state
//! `s * 2^40 + i`; `make.py` has the same in Python.

use cifar_data::Batch;
use pserver_run::{ExamplesDigest, Initializer, Layout};
use pserver_state::Values;

const IMAGE_VALUES: usize = 24 * 24 * 3;

fn draw(stream: u64, index: usize) -> u64 {
    let mut z = (stream << 40)
        .wrapping_add(index as u64)
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Between -1 and 1.
fn symmetric(stream: u64, index: usize) -> f32 {
    let unit = (draw(stream, index) >> 40) as f32 / (1 << 24) as f32;
    2.0 * unit - 1.0
}

/// Variables with the spread of the model's initial ones; biases a little off their constants.
pub(crate) fn variables(layout: &Layout, seed: u64) -> Values {
    let mut variables = Values::zeros(layout.num_values());
    for (index, (spec, range)) in layout.iter().enumerate() {
        let stream = 64 * seed + index as u64;
        for (i, value) in variables[range].iter_mut().enumerate() {
            *value = match spec.initializer {
                Initializer::TruncatedNormal { stddev } => {
                    symmetric(stream, i) * (stddev * 3.0_f64.sqrt()) as f32
                }
                Initializer::Constant(constant) => constant + symmetric(stream, i) * 0.05,
            };
        }
    }
    variables
}

/// Batch number `number` of `batch_size` examples.
pub(crate) fn batch(seed: u64, number: u64, batch_size: usize) -> Batch {
    let images_stream = 64 * seed + 10 + 2 * number;
    let scale = 3.0_f64.sqrt() as f32;
    Batch {
        images: (0..batch_size * IMAGE_VALUES)
            .map(|i| symmetric(images_stream, i) * scale)
            .collect(),
        labels: (0..batch_size)
            .map(|i| (draw(images_stream + 1, i) % 10) as u8)
            .collect(),
        examples_digest: ExamplesDigest([0; 16]),
    }
}
