//! The network of TensorFlow's cifar10 tutorial.
//!
//! Source: tensorflow/models, `tutorials/image/cifar10/cifar10.py`, `inference`.
//!
//! ```text
//! images [B,24,24,3] -> conv1 5x5x64 -> pool1 -> norm1 -> conv2 5x5x64 -> norm2 -> pool2
//!                    -> local3 384 -> local4 192 -> softmax_linear 10 -> logits [B,10]
//! ```
//!
//! Tensors are NHWC, as TensorFlow's: libtorch sees them as NCHW with strides that leave the memory
//! as it is (its `channels_last`), which is also the faster order.
//!
//! Max-pool stands before ReLU in the first layer: they commute, and a quarter of the work is left. The LRN is a 1x1
//! convolution with a band matrix, in NHWC: 2.5 times faster on a CPU than libtorch's own.

use pserver_run::Layout;
use tch::{Device, Kind, TchError, Tensor};

/// Height and width of an image.
pub const IMAGE_SIZE: i64 = 24;

/// Channels of both convolutions.
const CHANNELS: i64 = 64;

/// `tf.nn.lrn(x, 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75)`. TensorFlow gives a radius and does not
/// divide alpha by the window.
const LRN_RADIUS: i64 = 4;
const LRN_BIAS: f64 = 1.0;
const LRN_ALPHA: f64 = 0.001 / 9.0;
const LRN_BETA: f64 = 0.75;

/// The variables as tensors on a device, in the layout's order.
#[derive(Debug)]
pub struct Variables {
    tensors: Vec<Tensor>,
}

impl Variables {
    /// Copies `values` to `device`, one tensor for each variable of `layout`.
    ///
    /// The copies are aligned alike on every path: libtorch allocates at 64 bytes.
    ///
    /// # Errors
    ///
    /// [`TchError`] if the device has no room.
    pub fn new(layout: &Layout, values: &[f32], device: Device) -> Result<Self, TchError> {
        let tensor = |(spec, range): (&pserver_run::VariableSpec, std::ops::Range<usize>)| {
            let shape: Vec<i64> = spec.shape.iter().map(|size| *size as i64).collect();
            Tensor::f_from_slice(&values[range])?
                .f_reshape(shape)?
                .f_to_device(device)
        };
        Ok(Variables {
            tensors: layout.iter().map(tensor).collect::<Result<_, _>>()?,
        })
    }

    /// Has gradients taken with respect to these variables.
    #[must_use]
    pub fn trainable(self) -> Self {
        let tensors = self
            .tensors
            .into_iter()
            .map(|tensor| tensor.set_requires_grad(true))
            .collect();
        Variables { tensors }
    }

    /// The tensors in the layout's order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    fn weights_and_biases(&self, layer: usize) -> (&Tensor, &Tensor) {
        (&self.tensors[2 * layer], &self.tensors[2 * layer + 1])
    }
}

/// The network: what does not change from step to step.
#[derive(Debug)]
pub struct Model {
    device: Device,
    /// `[64, 64, 1, 1]`: one where two channels are at most [`LRN_RADIUS`] apart. As a 1x1
    /// convolution it sums over a window of channels.
    channel_window: Tensor,
}

impl Model {
    /// The network on `device`.
    ///
    /// # Errors
    ///
    /// [`TchError`] if the device has no room.
    pub fn new(device: Device) -> Result<Self, TchError> {
        let ones = Tensor::f_ones([CHANNELS, CHANNELS], (Kind::Float, device))?;
        let channel_window = ones
            .f_tril(LRN_RADIUS)?
            .f_triu(-LRN_RADIUS)?
            .f_reshape([CHANNELS, CHANNELS, 1, 1])?;
        Ok(Model {
            device,
            channel_window,
        })
    }

    /// Where the network is computed.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// From `images`, `[B, 24, 24, 3]`, standardized f32, to logits, `[B, 10]`.
    ///
    /// # Errors
    ///
    /// [`TchError`] if libtorch fails, of memory for example.
    pub fn inference(&self, variables: &Variables, images: &Tensor) -> Result<Tensor, TchError> {
        let x = images.f_permute([0, 3, 1, 2])?;
        let x = convolution(&x, variables.weights_and_biases(0))?;
        // ReLU and max-pooling commute, and after pooling there is a quarter as much to do.
        let pool1 = max_pool(&x)?.f_relu()?;
        let [.., softmax_linear] = self.after_pool1(variables, &pool1)?;
        Ok(softmax_linear)
    }

    /// What the layers with variables give for `images`, as [`inference`](Self::inference) has them:
    /// conv1, `[B, 24, 24, 64]`, and conv2, `[B, 12, 12, 64]`, both before pooling, local3, `[B, 384]`,
    /// local4, `[B, 192]`, and softmax_linear, `[B, 10]`.
    ///
    /// These are the tensors whose activations the tutorial shows.
    ///
    /// # Errors
    ///
    /// [`TchError`] if libtorch fails, of memory for example.
    pub fn activations(
        &self,
        variables: &Variables,
        images: &Tensor,
    ) -> Result<[Tensor; 5], TchError> {
        let x = images.f_permute([0, 3, 1, 2])?;
        let conv1 = convolution(&x, variables.weights_and_biases(0))?.f_relu()?;
        let [conv2, local3, local4, softmax_linear] =
            self.after_pool1(variables, &max_pool(&conv1)?)?;
        let [conv1, conv2] = [conv1, conv2].map(|it| it.f_permute([0, 2, 3, 1]));
        Ok([conv1?, conv2?, local3, local4, softmax_linear])
    }

    /// What conv2, local3, local4 and softmax_linear give for what pool1 gives.
    fn after_pool1(&self, variables: &Variables, pool1: &Tensor) -> Result<[Tensor; 4], TchError> {
        let of_layer = |layer| variables.weights_and_biases(layer);
        let norm1 = self.local_response_normalization(pool1)?;
        let conv2 = convolution(&norm1, of_layer(1))?.f_relu()?;
        let norm2 = self.local_response_normalization(&conv2)?;
        let pool2 = max_pool(&norm2)?;
        // Flattened in NHWC order.
        let x = pool2.f_permute([0, 2, 3, 1])?.f_flatten(1, 3)?;
        let local3 = linear(&x, of_layer(2))?.f_relu()?;
        let local4 = linear(&local3, of_layer(3))?.f_relu()?;
        let softmax_linear = linear(&local4, of_layer(4))?;
        Ok([conv2, local3, local4, softmax_linear])
    }

    /// Local response normalisation across channels: `x / (1 + alpha * sum x^2)^0.75`, the sum over
    /// the channels at most four away.
    ///
    /// `x`: `[B, 64, H, W]`, f32; the same shape is returned. Matches
    /// `tf.nn.lrn(x, 4, bias=1.0, alpha=0.001 / 9.0, beta=0.75)`; checked against
    /// `tests/fixtures/lrn`.
    ///
    /// # Errors
    ///
    /// [`TchError`] if libtorch fails, of memory for example.
    pub fn local_response_normalization(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let sums = deterministic_convolution(&x.f_square()?, &self.channel_window, 0)?;
        let scale = (sums.f_mul_scalar(LRN_ALPHA)?).f_add_scalar(LRN_BIAS)?;
        x.f_mul(&scale.f_pow_tensor_scalar(-LRN_BETA)?)
    }
}

/// A 5x5 convolution, SAME, of stride 1.
///
/// `x`: `[B, C, H, W]`; weights `[5, 5, C, 64]` as TensorFlow has them, biases `[64]`. The biases are
/// added to the finished sums, as there: a kernel that begins its sums with them rounds otherwise,
/// and now and then another pixel wins the max-pooling.
fn convolution(x: &Tensor, (weights, biases): (&Tensor, &Tensor)) -> Result<Tensor, TchError> {
    let weights = weights.f_permute([3, 2, 0, 1])?;
    deterministic_convolution(x, &weights, 2)?.f_add(&biases.f_reshape([1, CHANNELS, 1, 1])?)
}

/// A convolution of stride 1 whose result has the same bits each time: no search for the fastest
/// algorithm, and none that sums in the order in which threads happen to finish.
fn deterministic_convolution(
    x: &Tensor,
    weights: &Tensor,
    padding: i64,
) -> Result<Tensor, TchError> {
    let (transposed, groups) = (false, 1);
    let (benchmark, deterministic, cudnn_enabled, allow_tf32) = (false, true, true, false);
    x.f_internal_convolution(
        weights,
        None::<&Tensor>,
        [1, 1],
        [padding, padding],
        [1, 1],
        transposed,
        [0, 0],
        groups,
        benchmark,
        deterministic,
        cudnn_enabled,
        allow_tf32,
    )
}

/// Max-pooling 3x3 of stride 2, SAME: 24 becomes 12 and 12 becomes 6.
///
/// On even sizes TensorFlow's SAME pads below and to the right only, which is libtorch's ceiling
/// mode without padding.
///
/// # Errors
///
/// [`TchError`] if libtorch fails, of memory for example.
pub fn max_pool(x: &Tensor) -> Result<Tensor, TchError> {
    let ceil_mode = true;
    x.f_max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], ceil_mode)
}

/// `x * weights + biases`; weights `[in, out]` as TensorFlow has them.
fn linear(x: &Tensor, (weights, biases): (&Tensor, &Tensor)) -> Result<Tensor, TchError> {
    biases.f_addmm(x, weights)
}
