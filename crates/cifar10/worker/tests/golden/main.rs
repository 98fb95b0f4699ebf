//! Is it the same model as TensorFlow's?
//!
//! Inputs and expected outputs were made by TensorFlow; `tests/fixtures/make.py` says how, with its
//! versions and seeds. Those seeds were chosen so that no max-pool or ReLU decision is close enough
//! to turn on rounding: where one turns, a convolution's gradient changes by a thousandth, which
//! is no error of either side.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its fixture fails"
)]

mod fixture;

mod formula;

mod gradients;

mod layers;

mod six_steps;
mod tower_step;
