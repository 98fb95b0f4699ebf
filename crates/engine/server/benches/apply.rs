//! How fast one core makes the next state, and how near to copying memory that is.
//!
//! On paper: a model is 1,068,298 numbers, 4.27 MB. A commit of N towers reads N gradients, the
//! variables and the averages, and writes the last two anew: N + 4 models, 25.6 MB for two towers.
//! `memcpy` touches as many bytes, of which it reads half and writes half. The arithmetic is N + 5
//! operations on a number (N - 1 sums, a quotient, 2 for the descent, 3 for the averages), 7.5 million
//! for two towers, and with eight lanes (AVX2) a million instructions with the finite check: 0.15 ms
//! at two in a cycle of 3 GHz. The bytes take 0.5 to 1 ms at the 25 to 50 GB/s that one core gets from
//! the last cache or memory. So memory is the bound, as long as each byte is touched once.
//!
//! The digest of a state reads 8.5 MB and is bound by its products: one of 32 bits on each 8 bytes, four
//! in a cycle at best. The norm of a gradient reads 4.27 MB, two operations on a number.
//!
//! Measured on one core of an EPYC (Zen 5) with neighbours, medians of rounds that took turns: two
//! towers 0.36 ms, 70 GB/s, `memcpy` 0.37 ms; digest 0.21 ms, 41 GB/s; norm 0.07 ms, 60 GB/s. Where
//! neighbours are about, compare numbers of one run, and more than one run.
//!
//! Bytes are bytes touched. Seed 1; the tutorial's layout.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pserver_core::averages::MOVING_AVERAGE_DECAY;
use pserver_run::{Initializer, Layout, VariableSpec};
use pserver_server::snapshot::apply;
use pserver_state::initial::initial_variables;
use pserver_state::{TrainingState, Values};
use pserver_wire::gradient::norm;

const SEED: u64 = 1;
const NUM_TOWERS: [usize; 4] = [1, 2, 4, 8];

/// As many numbers as a small convolutional network has.
fn layout() -> Layout {
    Layout::new(vec![VariableSpec {
        name: "variables".to_owned(),
        shape: vec![1_068_298],
        initializer: Initializer::TruncatedNormal { stddev: 0.04 },
    }])
}

fn initial_state() -> TrainingState {
    TrainingState::initial(initial_variables(&layout(), SEED))
}

/// One gradient for each tower.
fn gradients(num_towers: usize) -> Vec<Values> {
    let seeds = SEED + 1..;
    seeds
        .take(num_towers)
        .map(|seed| initial_variables(&layout(), seed))
        .collect()
}

/// A commit, and a copy that touches as many bytes beside it.
fn updates(criterion: &mut Criterion) {
    for num_towers in NUM_TOWERS {
        let mut group = criterion.benchmark_group(format!("apply, towers: {num_towers}"));
        let num_bytes = (num_towers + 4) * layout().size_bytes();
        group.throughput(Throughput::Bytes(num_bytes as u64));

        let gradients = gradients(num_towers);
        let gradients: Vec<&[f32]> = gradients.iter().map(|gradient| &gradient[..]).collect();
        let mut state = initial_state();
        let mut next = state.clone();
        group.bench_function("commit", |bencher| {
            bencher.iter(|| {
                apply(&state, &gradients, 1e-6, MOVING_AVERAGE_DECAY, &mut next)
                    .expect("small steps stay finite");
                std::mem::swap(&mut state, &mut next);
            });
        });

        let from = vec![1_u8; num_bytes / 2];
        let mut to = vec![0_u8; num_bytes / 2];
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| black_box(&mut to).copy_from_slice(black_box(&from)));
        });
        group.finish();
    }
}

fn digest(criterion: &mut Criterion) {
    let state = initial_state();
    let mut group = criterion.benchmark_group("digest");
    let num_bytes = 2 * layout().size_bytes();
    group.throughput(Throughput::Bytes(num_bytes as u64));
    group.bench_function("state", |bencher| {
        bencher.iter(|| black_box(&state).digest());
    });
    group.finish();
}

fn norm_of_a_gradient(criterion: &mut Criterion) {
    let gradients = gradients(1);
    let mut group = criterion.benchmark_group("norm");
    group.throughput(Throughput::Bytes(layout().size_bytes() as u64));
    group.bench_function("gradient", |bencher| {
        bencher.iter(|| norm(black_box(&gradients[0])));
    });
    group.finish();
}

criterion_group!(benches, updates, digest, norm_of_a_gradient);
criterion_main!(benches);
