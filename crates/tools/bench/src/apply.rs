//! The update of two towers, alone on one thread, in turns with a copy that touches as many bytes: both are
//! bound by memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context;
use pserver_core::averages::MOVING_AVERAGE_DECAY;
use pserver_server::snapshot::apply;
use pserver_state::initial::initial_variables;
use pserver_state::{TrainingState, Values};

use crate::figures::{
    APPLY_COLD_GB_PER_SEC, APPLY_WARM_GB_PER_SEC, Figures, MEMCPY_COLD_GB_PER_SEC,
    MEMCPY_WARM_GB_PER_SEC,
};
use crate::statistics::median;

/// What the server reads and writes to apply the gradients of two towers, in buffers of one model:
/// reads both gradients, the variables and the averages, and writes the last two anew.
pub const BUFFERS_OF_APPLY: usize = 6;

/// Times that each has its turn; of warm ones the first do not count.
const TURN: usize = 8;
const NOT_WARM_YET: usize = 2;

/// More than caches hold: the memory of what else the machine does between two updates.
const OTHER_BYTES: usize = 96 << 20;

/// Measures both for about `time`: with all of it in the caches that has room there, and with none.
///
/// # Errors
///
/// If a number of the model is not finite any more, which would be a bug.
pub fn measure(time: Duration) -> anyhow::Result<Figures> {
    let warm = in_turns(time / 2, NOT_WARM_YET, || {})?;
    let mut other = vec![0_u64; OTHER_BYTES / size_of::<u64>()];
    let cold = in_turns(time / 2, 0, || {
        for word in black_box(&mut other) {
            *word = word.wrapping_add(1);
        }
    })?;
    Ok(Figures::default()
        .with(APPLY_WARM_GB_PER_SEC, warm.apply)
        .with(MEMCPY_WARM_GB_PER_SEC, warm.memcpy)
        .with(APPLY_COLD_GB_PER_SEC, cold.apply)
        .with(MEMCPY_COLD_GB_PER_SEC, cold.memcpy))
}

/// Thousand million bytes a second, read and written.
struct Rates {
    apply: f64,
    memcpy: f64,
}

/// The medians of both; `between` happens before each time.
fn in_turns(time: Duration, uncounted: usize, mut between: impl FnMut()) -> anyhow::Result<Rates> {
    let layout = cifar_model::layout();
    let mut state = TrainingState::initial(initial_variables(&layout, 1));
    let mut next = state.clone();
    let gradients = [2, 3].map(|seed| initial_variables(&layout, seed));
    let mut from = Values::zeros(layout.num_values() * BUFFERS_OF_APPLY / 2);
    // Pages that were never written to are all the same one, of zeros.
    from.fill(1.0);
    let mut to = from.clone();

    let (mut applied, mut copied) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while copied.is_empty() || began.elapsed() < time {
        for turn in 0..TURN {
            between();
            let began = Instant::now();
            let gradients = gradients.each_ref().map(|gradient| &gradient[..]);
            apply(&state, &gradients, 1e-6, MOVING_AVERAGE_DECAY, &mut next)
                .ok()
                .context("small steps stay finite")?;
            let elapsed = began.elapsed();
            std::mem::swap(&mut state, &mut next);
            applied.extend((turn >= uncounted).then_some(elapsed));
        }
        for turn in 0..TURN {
            between();
            let began = Instant::now();
            black_box(&mut to).copy_from_slice(black_box(&from));
            copied.extend((turn >= uncounted).then(|| began.elapsed()));
        }
    }
    let gigabytes = 2.0 * size_of_val(&from[..]) as f64 / 1e9;
    let rate = |times: &[Duration]| {
        let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        gigabytes / median(&seconds).unwrap_or(f64::INFINITY)
    };
    Ok(Rates {
        apply: rate(&applied),
        memcpy: rate(&copied),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_shortest_time_each_has_one_turn() {
        let mut times = 0;
        let rates = in_turns(Duration::ZERO, TURN - 1, || times += 1).unwrap();
        assert_eq!(times, 2 * TURN);
        assert!(rates.apply > 0.0 && rates.memcpy > 0.0);
    }
}
