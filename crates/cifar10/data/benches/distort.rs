//! How fast one core makes images.
//!
//! On paper: an image is 1728 bytes read twice (sums, then values) and 6912 bytes written. The sums
//! take two additions and a product per byte, the values a conversion, two products and two sums;
//! with 4 lanes (SSE2, what x86-64 builds assume) about 1728 * 9 / 4 = 3,900 operations, two or
//! three in a cycle: 0.5 us at 3 GHz. Weaving three planes into pixels does not fit the lanes well
//! and about doubles that; the draws need four blocks of ChaCha8, 0.2 us. So 1 to 2 us, 500,000 to
//! 1,000,000 images/s. The bound from memory is far off: 6912 bytes at 10 GB/s are 0.7 us, and a
//! batch stays in the cache. Measured on one core of an EPYC: 2.1 us for an image, 2.4 us with its
//! draws and the digest of the examples, 424,000 images/s; a synthetic record takes 15 us. On a newer one
//! (Zen 5) 642,000 images/s with their draws, of which the draws take a sixteenth. Compiled for AVX2,
//! with the same bits, it was slower there, 354,000: the weaving does not gain from wider lanes.
//!
//! A worker needs M times its steps a second: 400,000 images/s is 3,000 batches of 128.
//!
//! Seed 1; 1024 synthetic records, in batches of 128.

use std::path::Path;

use cifar_data::{Batch, Dataset, Split, WhenAbsent, distort, pipeline, synthetic};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pserver_run::{DataSet, InputKind, Sample};

const SEED: u64 = 1;
const NUM_EXAMPLES: u32 = 1024;
const BATCH_SIZE: usize = 128;

fn images(criterion: &mut Criterion) {
    let data_set = DataSet::Synthetic {
        num_examples: NUM_EXAMPLES,
    };
    let dataset = Dataset::open(data_set, Path::new("unused"), &WhenAbsent::Fail)
        .expect("a synthetic set needs no file");
    let samples: Vec<Sample> = (0..NUM_EXAMPLES)
        .map(|example| Sample { epoch: 0, example })
        .collect();
    let mut group = criterion.benchmark_group("distort");

    group.throughput(Throughput::Elements(1));
    let distortion = distort::Distortion::draw(SEED, 0, 0);
    let mut image = [0.0; distort::IMAGE_VALUES];
    group.bench_function("one image", |bencher| {
        bencher.iter(|| distort::distort(dataset.train(0), &distortion, &mut image));
    });

    group.throughput(Throughput::Elements(BATCH_SIZE as u64));
    let mut batches = samples.chunks_exact(BATCH_SIZE).cycle();
    let mut batch = Batch::empty();
    for (name, input) in [
        ("distorted batch", InputKind::Distorted),
        ("plain batch", InputKind::Plain),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let samples = batches.next().expect("a cycle does not end");
                pipeline::train_batch(&dataset, input, SEED, samples, &mut batch);
            });
        });
    }

    group.throughput(Throughput::Elements(100));
    group.bench_function("draw 100 synthetic records", |bencher| {
        bencher.iter(|| synthetic::draw(Split::Test, 100));
    });
    group.finish();
}

criterion_group!(benches, images);
criterion_main!(benches);
