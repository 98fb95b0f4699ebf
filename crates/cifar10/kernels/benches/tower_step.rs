//! A tower step of 128 examples on one core, in every form that this processor has.
//!
//! By the definition of the network the gradient of a batch takes 14.06 GFLOP, of which 11.3 are the
//! second convolution's. A core with two 512-bit multipliers at 3.5 GHz does 224 GFLOP/s: 63 ms. By
//! Winograd's filtering 1.8 GFLOP are left of the 11.3, so 4.6 of all: 20 ms, and the
//! transforms besides.
//!
//! Seed 1; images, labels and variables are random numbers.

use cifar_kernels::{Convolutions, HEAD_VALUES, InstructionSet, Network, TRUNK_VALUES};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SEED: u32 = 1;
const BATCH_SIZE: usize = 128;
const IMAGE_VALUES: usize = 24 * 24 * 3;

fn tower_step(criterion: &mut Criterion) {
    let mut random = numbers(SEED);
    let images: Vec<f32> = random.by_ref().take(BATCH_SIZE * IMAGE_VALUES).collect();
    let scaled = random.map(|number| 0.06 * number);
    let variables: Vec<f32> = scaled.take(TRUNK_VALUES + HEAD_VALUES).collect();
    let labels: Vec<u8> = (0..BATCH_SIZE).map(|image| (image % 10) as u8).collect();
    let mut gradients = vec![0.0; TRUNK_VALUES + HEAD_VALUES];
    let (trunk, head) = gradients.split_at_mut(TRUNK_VALUES);

    let mut group = criterion.benchmark_group("tower step");
    group.sample_size(20);
    group.throughput(Throughput::Elements(BATCH_SIZE as u64));
    for instructions in InstructionSet::all() {
        for convolutions in [Convolutions::Direct, Convolutions::Winograd] {
            let mut network = Network::new(instructions, convolutions, BATCH_SIZE);
            let name = format!("{}, {convolutions:?}", instructions.name());
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    network.head_gradients(&variables, &images, &labels, head);
                    network.trunk_gradients(&variables, &images, trunk);
                });
            });
        }
    }
    group.finish();
}

/// Numbers in -1..1, by Marsaglia's xorshift.
fn numbers(seed: u32) -> impl Iterator<Item = f32> {
    let next = |state: &u32| {
        let state = state ^ (state << 13);
        let state = state ^ (state >> 17);
        Some(state ^ (state << 5))
    };
    std::iter::successors(Some(seed), next)
        .map(|state| (state >> 8) as f32 / (1 << 23) as f32 - 1.0)
}

criterion_group!(benches, tower_step);
criterion_main!(benches);
