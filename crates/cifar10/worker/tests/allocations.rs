//! A tower step with this project's kernels takes no large piece of memory, from the batch to the gradients.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cifar_data::prefetch::{Prefetcher, TrainBatches};
use cifar_data::{Dataset, WhenAbsent};
use cifar_worker::engine::Engine;
use pserver_run::{DataSet, GlobalStep, InputKind, Kernels, SampleSequence, Tower, TowerStep};
use pserver_state::initial::initial_variables;
use pserver_wire::gradient_buffer::{GradientBuffer, Parts};
use tch::Device;

/// Bytes. The system hands out pieces from about here on as fresh pages, which have to be cleared.
const LARGE: usize = 64 << 10;

const BATCH_SIZE: usize = 128;

/// Steps after which every buffer has its size.
const WARM_UP: u64 = 5;

/// Steps with each kind of kernels.
const STEPS: u64 = 30;

struct Counting;

static NUM_LARGE: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: everything is handed on as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        if memory.size() > LARGE {
            NUM_LARGE.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, memory: Memory) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, memory) }
    }
}

#[test]
fn a_tower_step_takes_no_large_piece_of_memory() {
    let layout = cifar_model::layout();
    let variables = initial_variables(&layout, 1);
    let parts = Parts::new(layout.num_values(), &Engine::CUTS);
    let data_set: DataSet = "synthetic:5120".parse().unwrap();
    let dataset = Dataset::open(data_set, "unused".as_ref(), &WhenAbsent::Fail).unwrap();
    let mut prefetcher = Prefetcher::start(TrainBatches {
        sequence: SampleSequence::new(1, 1, BATCH_SIZE as u32, 5120, InputKind::Distorted),
        dataset: Arc::new(dataset),
        input: InputKind::Distorted,
        seed: 1,
    })
    .unwrap();
    for (kernels, first) in [(Kernels::Winograd, 0), (Kernels::Direct, STEPS)] {
        let mut engine = Engine::new(Device::Cpu, kernels, &layout, BATCH_SIZE).unwrap();
        let mut before = 0;
        for step in first..first + STEPS {
            if step == first + WARM_UP {
                before = NUM_LARGE.load(Ordering::Relaxed);
                assert!(before > 0, "large pieces are counted");
            }
            let tower_step = TowerStep {
                global_step: GlobalStep(step),
                tower: Tower(0),
            };
            let batch = prefetcher.take(tower_step).unwrap();
            let mut gradients = GradientBuffer::to_keep(&parts);
            engine.gradients(&variables, batch, &mut gradients).unwrap();
        }
        // A machine that is busy makes the prefetcher late, which then takes another batch or two to work on.
        let num_large = NUM_LARGE.load(Ordering::Relaxed) - before;
        assert!(
            num_large < (STEPS - WARM_UP) / 2,
            "{num_large} with {kernels}"
        );
    }
}
