//! Random draws of a simulation, each stream named by the seed and what it is for.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// What is drawn. Two purposes never share a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The plan of a seed.
    Plan = 1,
    /// What one life of one worker does.
    Worker = 2,
    /// What one life of the server meets.
    Server = 3,
    /// The gradient of a tower step.
    Gradient = 4,
    /// What a follower does.
    Follower = 5,
    /// What the disk does to files.
    Disk = 6,
}

/// A stream of draws.
#[derive(Debug)]
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Dice(ChaCha8Rng::from_seed(key))
    }

    /// A whole number from `low` to `high`, both among them. Small ranges: the bias is of no account.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.next_u64() % (high - low + 1)
    }

    /// A time from `low` to `high` milliseconds.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// True `percent` times of a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of `choices`.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.between(0, choices.len() as u64 - 1) as usize]
    }

    /// A number in `[-1, 1)`.
    pub(crate) fn signed_unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (2.0 / (1 << 24) as f32) - 1.0
    }
}
