//! Are batches what the sample sequence says, on either thread?

use std::path::Path;

use cifar_data::distort::{self, Distortion, IMAGE_VALUES};
use cifar_data::pipeline;
use cifar_data::{Batch, Dataset, Split, WhenAbsent};
use pserver_run::{ExamplesDigest, InputKind, Sample};

const SEED: u64 = 3;

fn dataset() -> Dataset {
    let data_set = "synthetic:40".parse().unwrap();
    Dataset::open(data_set, Path::new("unused"), &WhenAbsent::Fail).unwrap()
}

fn samples() -> Vec<Sample> {
    [(0, 7), (0, 39), (1, 7), (1, 0)]
        .map(|(epoch, example)| Sample { epoch, example })
        .to_vec()
}

/// What workers of a run of [`SEED`] prepare.
fn batch(dataset: &Dataset, input: InputKind, samples: &[Sample]) -> Batch {
    let mut batch = Batch::empty();
    pipeline::train_batch(dataset, input, SEED, samples, &mut batch);
    batch
}

#[test]
fn a_batch_holds_its_samples_in_order() {
    let dataset = dataset();
    let batch = batch(&dataset, InputKind::Distorted, &samples());
    for (index, sample) in samples().into_iter().enumerate() {
        let record = dataset.train(sample.example as usize);
        let distortion = Distortion::draw(SEED, sample.epoch, sample.example);
        let mut image = [0.0; IMAGE_VALUES];
        distort::distort(record, &distortion, &mut image);
        assert_eq!(batch.labels[index], record.label());
        assert!(batch.images.chunks_exact(IMAGE_VALUES).nth(index).unwrap() == image);
    }
}

#[test]
fn an_example_is_distorted_anew_in_each_epoch() {
    let batch = batch(&dataset(), InputKind::Distorted, &samples());
    let images: Vec<&[f32]> = batch.images.chunks_exact(IMAGE_VALUES).collect();
    assert!(images[0] != images[2]);
}

#[test]
fn plain_inputs_do_not_depend_on_seed_and_epoch() {
    let dataset = dataset();
    let batch = |seed| {
        let mut batch = Batch::empty();
        let samples = samples();
        pipeline::train_batch(&dataset, InputKind::Plain, seed, &samples, &mut batch);
        batch
    };
    assert!(batch(1).images == batch(2).images);
    let batch = batch(1);
    let images: Vec<&[f32]> = batch.images.chunks_exact(IMAGE_VALUES).collect();
    assert!(images[0] == images[2]);
}

#[test]
fn evaluation_reads_its_split_in_file_order() {
    let dataset = dataset();
    for (split, len) in [(Split::Test, 8), (Split::Train, 40)] {
        let batch = pipeline::inputs(&dataset, split, 0..len);
        let labels = dataset.records(split).iter().map(|record| record.label());
        assert_eq!(batch.labels, labels.collect::<Vec<u8>>());
        assert_eq!(batch.images.len(), len as usize * IMAGE_VALUES);
    }
}

#[test]
fn every_image_is_standardized() {
    let batch = batch(&dataset(), InputKind::Distorted, &samples());
    for image in batch.images.chunks_exact(IMAGE_VALUES) {
        let sum: f64 = image.iter().map(|value| f64::from(*value)).sum();
        let squares: f64 = image.iter().map(|value| f64::from(*value).powi(2)).sum();
        assert!(sum.abs() < 1e-2, "{sum}");
        // The deviations of 1728 values rounded to 2^-24 of about 1 do not add up to this.
        assert!(
            (squares / IMAGE_VALUES as f64 - 1.0).abs() < 1e-5,
            "{squares}"
        );
    }
}

#[test]
fn the_digest_tells_which_examples_these_are() {
    let dataset = dataset();
    let digest = |samples: &[Sample]| batch(&dataset, InputKind::Plain, samples).examples_digest;
    assert_eq!(digest(&samples()), ExamplesDigest::of(samples()));
    let mut others = samples();
    others.swap(0, 1);
    assert_ne!(digest(&samples()), digest(&others));
    others = samples();
    others[0].epoch = 9;
    assert_ne!(digest(&samples()), digest(&others));
}
