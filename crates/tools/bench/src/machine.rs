//! The measure of the machine: how fast it multiplies matrices and copies memory, on one thread.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context;
use tch::{Device, Kind, Tensor};

use crate::figures::{Figures, MEMCPY_GB_PER_SEC, SGEMM_GFLOPS};
use crate::statistics::median;

/// Rows and columns of the matrices: large enough that the time goes into arithmetic.
const SIZE: i64 = 2048;

/// A product takes a multiplication and an addition for each row, column and term.
const OPERATIONS: f64 = 2.0 * (SIZE * SIZE * SIZE) as f64;

/// Measures the machine for about `time`.
///
/// # Errors
///
/// If libtorch has no memory.
pub fn measure(time: Duration) -> anyhow::Result<Figures> {
    tch::set_num_threads(1);
    let mut sgemm = Sgemm::new()?;
    let share = time / 2;
    let gflops = repeat(share, || sgemm.gflops())?;
    let copied = repeat(share, memcpy(cifar_model::layout().num_values()))?;
    Ok(Figures::default()
        .with(SGEMM_GFLOPS, gflops)
        .with(MEMCPY_GB_PER_SEC, copied))
}

/// A product of two matrices of f32, by libtorch.
#[derive(Debug)]
pub struct Sgemm {
    left: Tensor,
    right: Tensor,
    product: Tensor,
}

impl Sgemm {
    /// Makes the matrices, and multiplies once: the first time is slower.
    ///
    /// # Errors
    ///
    /// If libtorch has no memory.
    pub fn new() -> anyhow::Result<Self> {
        let matrix = || Tensor::f_rand([SIZE, SIZE], (Kind::Float, Device::Cpu));
        let mut sgemm = Sgemm {
            left: matrix()?,
            right: matrix()?,
            product: matrix()?,
        };
        sgemm.gflops()?;
        Ok(sgemm)
    }

    /// Multiplies once; the rate in thousand million operations a second.
    ///
    /// # Errors
    ///
    /// If libtorch fails.
    pub fn gflops(&mut self) -> anyhow::Result<f64> {
        let began = Instant::now();
        let Sgemm {
            left,
            right,
            product,
        } = self;
        // Handed back is the same tensor once more.
        let _ = product
            .f_mm_out(left, right)
            .context("cannot multiply matrices")?;
        Ok(OPERATIONS / began.elapsed().as_secs_f64() / 1e9)
    }
}

/// Copies `num_values` numbers; the rate in thousand million bytes read and written a second.
fn memcpy(num_values: usize) -> impl FnMut() -> anyhow::Result<f64> {
    let from = vec![1.0_f32; num_values];
    let mut to = vec![0.0_f32; num_values];
    move || {
        let began = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        Ok(2.0 * size_of_val(from.as_slice()) as f64 / began.elapsed().as_secs_f64() / 1e9)
    }
}

/// The median of what `once` gives for as long as `time`, and once at least.
fn repeat(time: Duration, mut once: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut results = Vec::new();
    while results.is_empty() || began.elapsed() < time {
        results.push(once()?);
    }
    Ok(median(&results).unwrap_or_default())
}
