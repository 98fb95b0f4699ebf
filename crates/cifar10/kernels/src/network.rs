//! A tower step: from variables and a batch to loss and gradients.
//!
//! ```text
//! head_gradients    images -> first block -> second convolution -> second block -> features
//!                   features -> head: loss, gradients of the head's variables and of the features
//! trunk_gradients   the same way back, gradients of the convolutions' variables
//! ```
//!
//! Both ways go a few images at a time, so that what one stage writes the next finds in the cache.
//! After the first call nine tenths of all gradients are there, while more than half of the work is
//! still to come: they can be on their way meanwhile.

use pulp::{Simd, WithSimd};

use crate::buffer::{Buffer, zeros};
use crate::first_block::FirstBlock;
use crate::head::FullyConnected;
use crate::instruction_set::InstructionSet;
use crate::max_pool::Winner;
use crate::second_block::SecondBlock;
use crate::second_convolution::SecondConvolution;
use crate::shape::{FEATURES, IMAGE_VALUES, PADDED_VALUES, POOLED_VALUES};
use crate::variables::{self, HeadMut, TrunkMut};
use crate::{Convolutions, Losses};

/// Images that go through the convolutions together.
const BLOCK: usize = 4;

/// The network of the tutorial for batches of one size, with all the memory that a step needs.
#[derive(Debug)]
pub struct Network {
    instructions: InstructionSet,
    batch_size: usize,
    first_block: FirstBlock,
    second_convolution: SecondConvolution,
    second_block: SecondBlock,
    fully_connected: FullyConnected,
    /// Of the batch: what the way back needs of the way there.
    kept: Kept,
    /// Of a block of images: gradients of the second convolution's result, padded, and of its input.
    padded_gradient: Buffer,
    input_gradient: Buffer,
}

#[derive(Debug)]
struct Kept {
    /// `[B][12][12][64]`: the first pool's result.
    pooled: Buffer,
    pooled_winners: Vec<Winner>,
    /// `[B][16][16][64]`: the second convolution's input with its border.
    padded: Buffer,
    /// `[B][12][12][64]`: the second convolution's result after its ReLU.
    activations: Buffer,
    features_winners: Vec<Winner>,
    /// `[B][2304]`
    features: Buffer,
    /// The same; its rows are rounded up to whole vectors.
    features_gradient: Buffer,
}

impl Network {
    /// A network for batches of `batch_size`, computed with `instructions`.
    ///
    /// # Panics
    ///
    /// If the batch is empty.
    #[must_use]
    pub fn new(
        instructions: InstructionSet,
        convolutions: Convolutions,
        batch_size: usize,
    ) -> Self {
        assert!(batch_size > 0, "a batch has examples");
        let kept = Kept {
            pooled: zeros(batch_size * POOLED_VALUES),
            pooled_winners: vec![0; batch_size * POOLED_VALUES],
            padded: zeros(batch_size * PADDED_VALUES),
            activations: zeros(batch_size * POOLED_VALUES),
            features_winners: vec![0; batch_size * FEATURES],
            features: zeros(batch_size * FEATURES),
            features_gradient: zeros(batch_size.next_multiple_of(16) * FEATURES),
        };
        Network {
            instructions,
            batch_size,
            first_block: FirstBlock::new(),
            second_convolution: SecondConvolution::new(convolutions, BLOCK),
            second_block: SecondBlock::new(),
            fully_connected: FullyConnected::new(batch_size),
            kept,
            padded_gradient: zeros(BLOCK * PADDED_VALUES),
            input_gradient: zeros(BLOCK * POOLED_VALUES),
        }
    }

    /// The losses of a batch, and the gradients of the head's variables.
    ///
    /// `variables`: all of the model, end to end. `images`: `[B, 24, 24, 3]`, standardized. `labels`: of
    /// each image, 0 to 9. `gradients`: [`HEAD_VALUES`](crate::HEAD_VALUES) numbers, overwritten.
    ///
    /// # Panics
    ///
    /// If a slice is of another length, or a label of none of the classes.
    pub fn head_gradients(
        &mut self,
        variables: &[f32],
        images: &[f32],
        labels: &[u8],
        gradients: &mut [f32],
    ) -> Losses {
        assert_eq!(images.len(), self.batch_size * IMAGE_VALUES);
        assert_eq!(labels.len(), self.batch_size);
        let gradients = variables::split_head(gradients);
        let network = self;
        network.instructions.run(HeadGradients {
            network,
            variables,
            images,
            labels,
            gradients,
        })
    }

    /// The gradients of the convolutions' variables for the batch of the last
    /// [`head_gradients`](Self::head_gradients), whose arguments are to be given again.
    ///
    /// `gradients`: [`TRUNK_VALUES`](crate::TRUNK_VALUES) numbers, overwritten.
    ///
    /// # Panics
    ///
    /// If a slice is of another length.
    pub fn trunk_gradients(&mut self, variables: &[f32], images: &[f32], gradients: &mut [f32]) {
        assert_eq!(images.len(), self.batch_size * IMAGE_VALUES);
        let gradients = variables::split_trunk(gradients);
        let network = self;
        network.instructions.run(TrunkGradients {
            network,
            variables,
            images,
            gradients,
        });
    }
}

struct HeadGradients<'a> {
    network: &'a mut Network,
    variables: &'a [f32],
    images: &'a [f32],
    labels: &'a [u8],
    gradients: HeadMut<'a>,
}

impl WithSimd for HeadGradients<'_> {
    type Output = Losses;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Losses {
        let (trunk, head) = variables::split(self.variables);
        let network = self.network;
        let kept = &mut network.kept;
        network
            .second_convolution
            .begin_forward(simd, trunk.conv2.weights);
        for first in (0..network.batch_size).step_by(BLOCK) {
            let block = first..(first + BLOCK).min(network.batch_size);
            for image in block.clone() {
                network.first_block.forward(
                    simd,
                    &self.images[part(image, IMAGE_VALUES)],
                    (trunk.conv1.weights, trunk.conv1.biases),
                    &mut kept.pooled[part(image, POOLED_VALUES)],
                    &mut kept.pooled_winners[part(image, POOLED_VALUES)],
                    &mut kept.padded[part(image, PADDED_VALUES)],
                );
            }
            network.second_convolution.forward(
                simd,
                &kept.padded[parts(&block, PADDED_VALUES)],
                trunk.conv2.weights,
                &mut kept.activations[parts(&block, POOLED_VALUES)],
            );
            for image in block {
                network.second_block.forward(
                    simd,
                    &mut kept.activations[part(image, POOLED_VALUES)],
                    trunk.conv2.biases,
                    &mut kept.features[part(image, FEATURES)],
                    &mut kept.features_winners[part(image, FEATURES)],
                );
            }
        }
        let Kept {
            features,
            features_gradient,
            ..
        } = kept;
        network.fully_connected.gradients(
            simd,
            &head,
            features,
            self.labels,
            self.gradients,
            features_gradient,
        )
    }
}

struct TrunkGradients<'a> {
    network: &'a mut Network,
    variables: &'a [f32],
    images: &'a [f32],
    gradients: TrunkMut<'a>,
}

impl WithSimd for TrunkGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (trunk, _) = variables::split(self.variables);
        let TrunkMut { conv1, conv2 } = self.gradients;
        let network = self.network;
        let kept = &network.kept;
        conv1.weights.fill(0.0);
        conv1.biases.fill(0.0);
        conv2.biases.fill(0.0);
        network
            .second_convolution
            .begin_backward(simd, trunk.conv2.weights, conv2.weights);
        for first in (0..network.batch_size).step_by(BLOCK) {
            let block = first..(first + BLOCK).min(network.batch_size);
            for (place, image) in block.clone().enumerate() {
                network.second_block.backward(
                    simd,
                    &kept.features_gradient[part(image, FEATURES)],
                    &kept.activations[part(image, POOLED_VALUES)],
                    &kept.features_winners[part(image, FEATURES)],
                    &mut network.padded_gradient[part(place, PADDED_VALUES)],
                    conv2.biases,
                );
            }
            network.second_convolution.backward(
                simd,
                &kept.padded[parts(&block, PADDED_VALUES)],
                &network.padded_gradient[..block.len() * PADDED_VALUES],
                &mut network.input_gradient[..block.len() * POOLED_VALUES],
                conv2.weights,
            );
            for (place, image) in block.enumerate() {
                network.first_block.backward(
                    simd,
                    &self.images[part(image, IMAGE_VALUES)],
                    &network.input_gradient[part(place, POOLED_VALUES)],
                    &kept.pooled[part(image, POOLED_VALUES)],
                    &kept.pooled_winners[part(image, POOLED_VALUES)],
                    (&mut *conv1.weights, &mut *conv1.biases),
                );
            }
        }
        network.second_convolution.end_backward(simd, conv2.weights);
    }
}

/// Where an image's numbers lie, `len` of each image.
#[inline(always)]
fn part(image: usize, len: usize) -> std::ops::Range<usize> {
    image * len..(image + 1) * len
}

/// Where those of some images lie.
#[inline(always)]
fn parts(images: &std::ops::Range<usize>, len: usize) -> std::ops::Range<usize> {
    images.start * len..images.end * len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::tests::{pseudo_random, relative_difference};
    use crate::reference;
    use crate::variables::{HEAD_VALUES, TRUNK_VALUES};

    /// Variables about as large as the tutorial's at the start.
    fn variables() -> Buffer {
        let mut variables = pseudo_random(TRUNK_VALUES + HEAD_VALUES, 1);
        variables.iter_mut().for_each(|variable| *variable *= 0.06);
        variables
    }

    fn gradients(
        network: &mut Network,
        variables: &[f32],
        images: &[f32],
        labels: &[u8],
    ) -> (Losses, Vec<f32>) {
        let mut gradients = vec![f32::NAN; TRUNK_VALUES + HEAD_VALUES];
        let (trunk, head) = gradients.split_at_mut(TRUNK_VALUES);
        let losses = network.head_gradients(variables, images, labels, head);
        network.trunk_gradients(variables, images, trunk);
        (losses, gradients)
    }

    /// Five images: a whole block and one more. The seed is one at which no two numbers in a window
    /// are so near to each other that rounding decides which is larger.
    #[test]
    fn every_form_gives_the_gradients_of_the_definition() {
        let (variables, labels) = (variables(), [3, 1, 4, 1, 5]);
        let images = pseudo_random(labels.len() * IMAGE_VALUES, 2);
        let ([cross_entropy, total], expected) = reference::gradients(&variables, &images, &labels);
        for set in InstructionSet::all() {
            for convolutions in [Convolutions::Direct, Convolutions::Winograd] {
                let mut network = Network::new(set, convolutions, labels.len());
                let (losses, found) = gradients(&mut network, &variables, &images, &labels);
                assert!(
                    (f64::from(losses.cross_entropy) - cross_entropy).abs() < 1e-6 * cross_entropy
                );
                assert!((f64::from(losses.total) - total).abs() < 1e-6 * total);
                let mut first = 0;
                for len in [4800, 64, 102_400, 64, 884_736, 384, 73_728, 192, 1920, 10] {
                    let part = first..first + len;
                    let difference = relative_difference(&found[part.clone()], &expected[part]);
                    assert!(
                        difference < 2e-5,
                        "{set:?} {convolutions:?}, at {first}: {difference:e}"
                    );
                    first += len;
                }
                let again = gradients(&mut network, &variables, &images, &labels);
                assert_eq!((losses, found), again, "the same bits each time");
            }
        }
    }

    #[test]
    fn what_is_no_number_reaches_the_loss() {
        let (variables, labels) = (variables(), [0; 2]);
        for pixel in [0, 1727] {
            let mut images = pseudo_random(labels.len() * IMAGE_VALUES, 2);
            images[IMAGE_VALUES + pixel] = f32::NAN;
            for set in InstructionSet::all() {
                let mut network = Network::new(set, Convolutions::Direct, labels.len());
                let (losses, _) = gradients(&mut network, &variables, &images, &labels);
                assert!(losses.total.is_nan(), "{set:?}");
            }
        }
    }
}
