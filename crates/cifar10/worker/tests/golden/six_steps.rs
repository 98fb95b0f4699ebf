//! Six synchronous steps of two towers: gradients of the worker, commits of the server.

use cifar_worker::engine::Engine;
use pserver_core::averages::MOVING_AVERAGE_DECAY;
use pserver_run::{Kernels, Layout};
use pserver_server::snapshot::apply;
use pserver_state::{TrainingState, Values};
use tch::Device;

use crate::fixture::{Fixture, length, read, samples};
use crate::formula;
use crate::tower_step::all_gradients;

const SEED: u64 = 482;
const NUM_STEPS: usize = 6;
const NUM_TOWERS: usize = 2;
const BATCH_SIZE: usize = 16;
const LEARNING_RATE: f32 = 0.1;

/// Error of a tensor relative to how far it has moved. After one step it has moved so little that
/// the last bit of a variable counts; later two f32 computations agree to 8e-6.
fn tolerance(step: usize) -> f64 {
    if step == 0 { 2e-4 } else { 1e-5 }
}

#[test]
fn six_steps_of_two_towers_are_tensorflows_with_libtorchs_kernels() {
    six_steps(Kernels::Torch);
}

#[test]
fn six_steps_of_two_towers_are_tensorflows_with_direct_kernels() {
    six_steps(Kernels::Direct);
}

#[test]
fn six_steps_of_two_towers_are_tensorflows_with_winograds_kernels() {
    six_steps(Kernels::Winograd);
}

fn six_steps(kernels: Kernels) {
    let bytes = read("six_steps/six_steps.safetensors");
    let fixture = Fixture::new(&bytes);
    let layout = cifar_model::layout();
    let mut engine = Engine::new(Device::Cpu, kernels, &layout, BATCH_SIZE).unwrap();
    let expected_losses = fixture.f32("losses");

    let mut state = TrainingState::initial(formula::variables(&layout, SEED));
    for step in 0..NUM_STEPS {
        let towers: Vec<_> = (0..NUM_TOWERS)
            .map(|tower| {
                let batch = formula::batch(SEED, (NUM_TOWERS * step + tower) as u64, BATCH_SIZE);
                all_gradients(&mut engine, &state.variables, &batch)
            })
            .collect();
        for (tower, (losses, _)) in towers.iter().enumerate() {
            let expected = expected_losses[NUM_TOWERS * step + tower];
            assert!(
                (losses.total / expected - 1.0).abs() < 1e-6,
                "loss of step {step} tower {tower}"
            );
        }
        let gradients = towers.iter().map(|(_, gradients)| gradients);
        let gradients: Vec<&[f32]> = gradients.map(|gradient| &gradient[..]).collect();
        let mut next = state.clone();
        apply(
            &state,
            &gradients,
            LEARNING_RATE,
            MOVING_AVERAGE_DECAY,
            &mut next,
        )
        .unwrap();
        state = next;
        check(&fixture, &layout, step, "", "moved", &state.variables);
        check(
            &fixture,
            &layout,
            step,
            "/ExponentialMovingAverage",
            "average_moved",
            &state.averages,
        );
    }
}

/// Compares the kept samples of each tensor after `step`, relative to the way it has come.
fn check(
    fixture: &Fixture<'_>,
    layout: &Layout,
    step: usize,
    suffix: &str,
    moved: &str,
    values: &Values,
) {
    let (strides, moved) = (fixture.i64("strides"), fixture.f64(moved));
    let num_variables = layout.specs().len();
    for (index, (spec, range)) in layout.iter().enumerate() {
        let name = format!("samples/{}{suffix}", spec.name);
        let all_steps = fixture.f32(&name);
        let count = all_steps.len() / NUM_STEPS;
        let expected = &all_steps[step * count..][..count];
        let found = samples(&values[range.clone()], strides[index], count);
        let differences = found
            .iter()
            .zip(expected)
            .map(|(found, expected)| f64::from(found - expected));
        let error = length(differences) / (count as f64).sqrt();
        let movement = moved[step * num_variables + index] / (range.len() as f64).sqrt();
        assert!(
            error / movement < tolerance(step),
            "{name} after step {step}: {:e}",
            error / movement
        );
    }
}
