//! The fully connected layers, forward and backward for a whole batch: features to loss and gradients.
//!
//! ```text
//! h3 = relu(h W3 + b3)    h4 = relu(h3 W4 + b4)    logits = h4 W5 + b5
//! loss = mean of -log softmax(logits)[label] + 0.004 (|W3|^2 + |W4|^2) / 2
//!
//! g5 = (softmax(logits) - one hot label) / B                  dW5 = h4^T g5
//! g4 = g5 W5^T where h4 > 0                                   dW4 = h3^T g4 + 0.004 W4
//! g3 = g4 W4^T where h3 > 0                                   dW3 = h^T  g3 + 0.004 W3
//! dh = g3 W3^T                                                db  = sum of the rows of g
//! ```
//!
//! `W5` is widened from 10 to 16 columns of zeros, a whole vector. `g3 W3^T` is computed as the
//! transposed `W3 g3^T`, because that way the small factor is turned around and not `W3`.

use pulp::Simd;

use crate::Losses;
use crate::buffer::{Buffer, zeros};
use crate::pointwise::{add_rows, relu, relu_backward};
use crate::product::{Product, Start};
use crate::shape::FEATURES;
use crate::transpose::transpose;
use crate::variables::{CLASSES, Head, HeadMut, LOCAL3, LOCAL4, LayerMut};

/// The tutorial's weight decay of local3 and local4.
pub const WEIGHT_DECAY: f32 = 0.004;

/// Columns of the last layer, with those that are added to fill a vector.
const WIDE: usize = 16;

/// Terms of `h W3` that are added up before the next are begun: as many rows of `W3` as stay in the
/// second-level cache.
const TERMS: usize = 256;

/// Memory of the layers for one batch.
#[derive(Debug)]
pub(crate) struct FullyConnected {
    batch_size: usize,
    /// `[B][384]`
    h3: Buffer,
    /// `[B][192]`
    h4: Buffer,
    /// `[B][16]`; later their gradient, `g5` of the formula.
    logits: Buffer,
    /// `[B][384]`, `B` rounded up to whole vectors; the rows beyond the batch stay zero.
    g3: Buffer,
    /// `[B][192]`
    g4: Buffer,
    /// `[192][16]`, and its gradient.
    wide_weights: Buffer,
    wide_gradient: Buffer,
    /// Matrices turned around: `[16][192]`, `[192][384]`, `[384][B]`, `[2304][B]`; `B` rounded up.
    turned5: Buffer,
    turned4: Buffer,
    turned_g3: Buffer,
    turned_dh: Buffer,
}

impl FullyConnected {
    pub(crate) fn new(batch_size: usize) -> Self {
        let columns = batch_size.next_multiple_of(WIDE);
        FullyConnected {
            batch_size,
            h3: zeros(batch_size * LOCAL3),
            h4: zeros(batch_size * LOCAL4),
            logits: zeros(batch_size * WIDE),
            g3: zeros(columns * LOCAL3),
            g4: zeros(batch_size * LOCAL4),
            wide_weights: zeros(LOCAL4 * WIDE),
            wide_gradient: zeros(LOCAL4 * WIDE),
            turned5: zeros(WIDE * LOCAL4),
            turned4: zeros(LOCAL4 * LOCAL3),
            turned_g3: zeros(LOCAL3 * columns),
            turned_dh: zeros(FEATURES * columns),
        }
    }

    /// Writes the gradients of the variables, and of `features`, `[B][2304]`, to `features_gradient`.
    /// `features_gradient` has as many rows as the batch size rounded up to 16.
    #[inline(always)]
    pub(crate) fn gradients<S: Simd>(
        &mut self,
        simd: S,
        variables: &Head<'_>,
        features: &[f32],
        labels: &[u8],
        gradients: HeadMut<'_>,
        features_gradient: &mut [f32],
    ) -> Losses {
        self.forward(simd, variables, features);
        let cross_entropy = self.cross_entropy(labels);
        self.backward(simd, variables, features, gradients, features_gradient);
        let half = 0.5 * f64::from(WEIGHT_DECAY);
        let local3 = sum_of_squares(variables.local3.weights);
        let local4 = sum_of_squares(variables.local4.weights);
        Losses {
            cross_entropy: cross_entropy as f32,
            local3_weight_loss: (half * local3) as f32,
            local4_weight_loss: (half * local4) as f32,
            total: (cross_entropy + half * (local3 + local4)) as f32,
        }
    }

    #[inline(always)]
    fn forward<S: Simd>(&mut self, simd: S, variables: &Head<'_>, features: &[f32]) {
        let rows = self.batch_size;
        for first in (0..FEATURES).step_by(TERMS) {
            let mut product =
                Product::of_rows(rows, FEATURES, LOCAL3, features, variables.local3.weights);
            product.piece_len = TERMS;
            product.a.values = &features[first..];
            product.b.values = &variables.local3.weights[first * LOCAL3..];
            let start = if first == 0 {
                Start::Zero
            } else {
                Start::Present
            };
            product.write(simd, &mut self.h3, LOCAL3, start);
        }
        add_to_rows(&mut self.h3, variables.local3.biases);
        relu(simd, &mut self.h3);

        let product = Product::of_rows(rows, LOCAL3, LOCAL4, &self.h3, variables.local4.weights);
        product.write(simd, &mut self.h4, LOCAL4, Start::Zero);
        add_to_rows(&mut self.h4, variables.local4.biases);
        relu(simd, &mut self.h4);

        let last = &variables.softmax_linear;
        for (wide, weights) in self
            .wide_weights
            .chunks_exact_mut(WIDE)
            .zip(last.weights.chunks_exact(CLASSES))
        {
            wide[..CLASSES].copy_from_slice(weights);
        }
        let product = Product::of_rows(rows, LOCAL4, WIDE, &self.h4, &self.wide_weights);
        product.write(simd, &mut self.logits, WIDE, Start::Zero);
        for logits in self.logits.chunks_exact_mut(WIDE) {
            add_to_rows(&mut logits[..CLASSES], last.biases);
        }
    }

    /// The mean cross entropy; the logits become its gradient.
    fn cross_entropy(&mut self, labels: &[u8]) -> f64 {
        let mut sum = 0.0;
        for (logits, label) in self.logits.chunks_exact_mut(WIDE).zip(labels) {
            let logits = &mut logits[..CLASSES];
            let label = usize::from(*label);
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let of_label = logits[label] - largest;
            for logit in &mut *logits {
                *logit = libm::expf(*logit - largest);
            }
            let total: f32 = logits.iter().sum();
            sum += f64::from(libm::logf(total) - of_label);
            for (class, part) in logits.iter_mut().enumerate() {
                let expected = if class == label { 1.0 } else { 0.0 };
                *part = (*part / total - expected) / self.batch_size as f32;
            }
        }
        sum / self.batch_size as f64
    }

    #[inline(always)]
    fn backward<S: Simd>(
        &mut self,
        simd: S,
        variables: &Head<'_>,
        features: &[f32],
        gradients: HeadMut<'_>,
        features_gradient: &mut [f32],
    ) {
        let rows = self.batch_size;
        let HeadMut {
            local3,
            local4,
            softmax_linear,
        } = gradients;
        self.softmax_linear_backward(simd, softmax_linear);
        transpose(&self.wide_weights, LOCAL4, WIDE, &mut self.turned5);
        Product::of_rows(rows, WIDE, LOCAL4, &self.logits, &self.turned5).write(
            simd,
            &mut self.g4,
            LOCAL4,
            Start::Zero,
        );
        relu_backward(simd, &self.h4, &mut self.g4);
        decay(variables.local4.weights, local4.weights);
        Product::of_columns(LOCAL3, rows, LOCAL4, &self.h3, &self.g4).write(
            simd,
            local4.weights,
            LOCAL4,
            Start::Present,
        );
        local4.biases.fill(0.0);
        add_rows(simd, &self.g4, local4.biases);

        transpose(variables.local4.weights, LOCAL3, LOCAL4, &mut self.turned4);
        Product::of_rows(rows, LOCAL4, LOCAL3, &self.g4, &self.turned4).write(
            simd,
            &mut self.g3,
            LOCAL3,
            Start::Zero,
        );
        relu_backward(simd, &self.h3, &mut self.g3[..rows * LOCAL3]);
        self.local3_backward(
            simd,
            variables.local3.weights,
            features,
            local3,
            features_gradient,
        );
    }

    /// From the gradient of the logits to those of the last layer's variables.
    #[inline(always)]
    fn softmax_linear_backward<S: Simd>(&mut self, simd: S, gradients: LayerMut<'_>) {
        let (rows, g5) = (self.batch_size, &self.logits);
        Product::of_columns(LOCAL4, rows, WIDE, &self.h4, g5).write(
            simd,
            &mut self.wide_gradient,
            WIDE,
            Start::Zero,
        );
        let wide = self.wide_gradient.chunks_exact(WIDE);
        for (gradient, wide) in gradients.weights.chunks_exact_mut(CLASSES).zip(wide) {
            gradient.copy_from_slice(&wide[..CLASSES]);
        }
        let mut sums = [0.0; WIDE];
        add_rows(simd, g5, &mut sums);
        gradients.biases.copy_from_slice(&sums[..CLASSES]);
    }

    /// From the gradient of the first linear layer's outputs to those of its variables and of the features.
    #[inline(always)]
    fn local3_backward<S: Simd>(
        &mut self,
        simd: S,
        weights: &[f32],
        features: &[f32],
        gradients: LayerMut<'_>,
        features_gradient: &mut [f32],
    ) {
        let rows = self.batch_size;
        decay(weights, gradients.weights);
        Product::of_columns(FEATURES, rows, LOCAL3, features, &self.g3).write(
            simd,
            gradients.weights,
            LOCAL3,
            Start::Present,
        );
        gradients.biases.fill(0.0);
        add_rows(simd, &self.g3[..rows * LOCAL3], gradients.biases);

        let columns = rows.next_multiple_of(WIDE);
        transpose(&self.g3, columns, LOCAL3, &mut self.turned_g3);
        let product = Product::of_rows(FEATURES, LOCAL3, columns, weights, &self.turned_g3);
        product.write(simd, &mut self.turned_dh, columns, Start::Zero);
        transpose(&self.turned_dh, FEATURES, columns, features_gradient);
    }
}

/// Adds `biases` to each row of as many numbers.
#[inline(always)]
fn add_to_rows(x: &mut [f32], biases: &[f32]) {
    for row in x.chunks_exact_mut(biases.len()) {
        for (x, bias) in row.iter_mut().zip(biases) {
            *x += bias;
        }
    }
}

/// The gradient of the weight decay.
#[inline(always)]
fn decay(weights: &[f32], gradient: &mut [f32]) {
    for (gradient, weight) in gradient.iter_mut().zip(weights) {
        *gradient = WEIGHT_DECAY * weight;
    }
}

/// The sum of the squares; in f32 only over as many as lose nothing worth keeping.
#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f64 {
    const CHUNK: usize = 1024;
    const LANES: usize = 16;
    let mut total = 0.0;
    for chunk in values.chunks(CHUNK) {
        let mut sums = [0.0_f32; LANES];
        let (vectors, rest) = chunk.as_chunks::<LANES>();
        for vector in vectors {
            for (sum, value) in sums.iter_mut().zip(vector) {
                *sum += value * value;
            }
        }
        total += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
        total += rest
            .iter()
            .map(|value| f64::from(value * value))
            .sum::<f64>();
    }
    total
}
