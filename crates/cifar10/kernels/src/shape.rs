//! Sizes of the network. Activations are NHWC; a buffer of one image is `[height][width][channels]`.
//!
//! What a 5x5 convolution reads is kept with a border of two zeros on each side, so that no window
//! has to ask whether it is still in the image.

/// Width and height of an image.
pub(crate) const IMAGE: usize = 24;
/// Channels of an image.
pub(crate) const COLOURS: usize = 3;
/// Channels of both convolutions' results.
pub(crate) const CHANNELS: usize = 64;
/// Width and height of a filter.
pub(crate) const FILTER: usize = 5;
/// Zeros on each side of what a filter is laid over.
pub(crate) const BORDER: usize = FILTER / 2;
/// Width and height after the first max-pooling.
pub(crate) const POOLED: usize = IMAGE / 2;
/// Width and height after the second.
pub(crate) const POOLED_TWICE: usize = POOLED / 2;

/// Width and height of an image with its border.
pub(crate) const PADDED_IMAGE: usize = IMAGE + 2 * BORDER;
/// Width and height of the second convolution's input with its border.
pub(crate) const PADDED: usize = POOLED + 2 * BORDER;

/// Numbers of an image.
pub(crate) const IMAGE_VALUES: usize = IMAGE * IMAGE * COLOURS;
/// Numbers of the first convolution's result.
pub(crate) const CONV1_VALUES: usize = IMAGE * IMAGE * CHANNELS;
/// Numbers between the two pools.
pub(crate) const POOLED_VALUES: usize = POOLED * POOLED * CHANNELS;
/// The same with a border.
pub(crate) const PADDED_VALUES: usize = PADDED * PADDED * CHANNELS;
/// Numbers that the head begins with.
pub(crate) const FEATURES: usize = POOLED_TWICE * POOLED_TWICE * CHANNELS;
/// Numbers of the filter `conv2/weights`, `[5][5][in][out]`.
pub(crate) const CONV2_WEIGHTS: usize = FILTER * FILTER * CHANNELS * CHANNELS;
/// Numbers of the filter `conv1/weights`.
pub(crate) const CONV1_WEIGHTS: usize = FILTER * FILTER * COLOURS * CHANNELS;

/// Where pixel (0, 0) lies in a padded `[PADDED][PADDED][CHANNELS]`.
pub(crate) const PADDED_ORIGIN: usize = (BORDER * PADDED + BORDER) * CHANNELS;
