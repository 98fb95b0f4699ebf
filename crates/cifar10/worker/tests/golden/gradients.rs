//! Loss, logits and every gradient of a full batch.

use cifar_worker::engine::Engine;
use cifar_worker::gradients::tensors_of;
use cifar_worker::model::{Model, Variables};
use pserver_run::Kernels;
use tch::Device;

use crate::fixture::{Fixture, length, read, relative_distance, samples};
use crate::formula;
use crate::tower_step::all_gradients;

/// Seed of the formula with which the fixture was made.
const SEED: u64 = 753;
const BATCH_SIZE: usize = 128;

/// TensorFlow's own two CPU kernels differ by 3e-6 here.
const TOLERANCE: f64 = 1e-5;

#[test]
fn the_formula_makes_the_numbers_that_tensorflow_saw() {
    let bytes = read("gradients/gradients.safetensors");
    let fixture = Fixture::new(&bytes);
    let layout = cifar_model::layout();
    let variables = formula::variables(&layout, SEED);
    for (spec, range) in layout.iter() {
        let expected = fixture.f32(&format!("formula/{}", spec.name));
        assert_eq!(
            variables[range][..expected.len()],
            expected,
            "{}",
            spec.name
        );
    }
    let batch = formula::batch(SEED, 0, BATCH_SIZE);
    assert_eq!(batch.images[..10], fixture.f32("formula/images"));
    let labels: Vec<i32> = batch.labels[..10]
        .iter()
        .map(|label| i32::from(*label))
        .collect();
    assert_eq!(labels, fixture.i32("formula/labels"));
}

#[test]
fn a_full_batch_has_tensorflows_logits() {
    let bytes = read("gradients/gradients.safetensors");
    let fixture = Fixture::new(&bytes);
    let layout = cifar_model::layout();
    let model = Model::new(Device::Cpu).unwrap();
    let variables = formula::variables(&layout, SEED);
    let variables = Variables::new(&layout, &variables, Device::Cpu).unwrap();
    let (images, _) = tensors_of(&formula::batch(SEED, 0, BATCH_SIZE), Device::Cpu).unwrap();
    let logits = model.inference(&variables, &images).unwrap();
    let logits = Vec::<f32>::try_from(logits.contiguous().view(-1)).unwrap();
    assert!(relative_distance(&logits, &fixture.f32("logits")) < TOLERANCE);
}

#[test]
fn libtorchs_kernels_give_tensorflows_loss_and_gradients() {
    check(Kernels::Torch);
}

#[test]
fn direct_kernels_give_tensorflows_loss_and_gradients() {
    check(Kernels::Direct);
}

#[test]
fn winograds_kernels_give_tensorflows_loss_and_gradients() {
    check(Kernels::Winograd);
}

fn check(kernels: Kernels) {
    let bytes = read("gradients/gradients.safetensors");
    let fixture = Fixture::new(&bytes);
    let layout = cifar_model::layout();
    let variables = formula::variables(&layout, SEED);
    let batch = formula::batch(SEED, 0, BATCH_SIZE);
    let mut engine = Engine::new(Device::Cpu, kernels, &layout, BATCH_SIZE).unwrap();
    let (losses, gradients) = all_gradients(&mut engine, &variables, &batch);
    for (found, name) in [
        (losses.cross_entropy, "loss/cross_entropy"),
        (losses.local3_weight_loss, "loss/local3/weights"),
        (losses.local4_weight_loss, "loss/local4/weights"),
        (losses.total, "loss/total"),
    ] {
        let expected = fixture.f32(name)[0];
        assert!(
            (found / expected - 1.0).abs() < 1e-6,
            "{name}: {found}, expected {expected}"
        );
    }

    let (norms, sums, strides) = (
        fixture.f64("norms"),
        fixture.f64("sums"),
        fixture.i64("strides"),
    );
    for (index, (spec, range)) in layout.iter().enumerate() {
        let gradient = &gradients[range];
        let expected = fixture.f32(&format!("samples/{}", spec.name));
        let found = samples(gradient, strides[index], expected.len());
        let distance = relative_distance(&found, &expected);
        assert!(distance < TOLERANCE, "{}: {distance:e}", spec.name);

        let norm = length(gradient.iter().map(|number| f64::from(*number)));
        assert!(
            (norm / norms[index] - 1.0).abs() < TOLERANCE,
            "norm of {}",
            spec.name
        );
        let sum: f64 = gradient.iter().map(|number| f64::from(*number)).sum();
        let scale = norms[index] * (gradient.len() as f64).sqrt();
        assert!(
            (sum - sums[index]).abs() / scale < TOLERANCE,
            "sum of {}",
            spec.name
        );
    }
}
