//! The variables in their order, and the parts that a step has of them.
//!
//! ```text
//! trunk: conv1/weights [5,5,3,64]  conv1/biases [64]  conv2/weights [5,5,64,64]  conv2/biases [64]
//! head:  local3/weights [2304,384]  local3/biases [384]  local4/weights [384,192]  local4/biases [192]
//!        softmax_linear/weights [192,10]  softmax_linear/biases [10]
//! ```

use crate::shape::{CHANNELS, CONV1_WEIGHTS, CONV2_WEIGHTS, FEATURES};

/// Width of local3.
pub(crate) const LOCAL3: usize = 384;
/// Width of local4.
pub(crate) const LOCAL4: usize = 192;
/// Classes told apart.
pub(crate) const CLASSES: usize = 10;

/// Numbers of the trunk: the variables of both convolutions.
pub const TRUNK_VALUES: usize = CONV1_WEIGHTS + CHANNELS + CONV2_WEIGHTS + CHANNELS;

/// Numbers of the head: the variables of the fully connected layers, nine tenths of all.
pub const HEAD_VALUES: usize =
    (FEATURES + 1) * LOCAL3 + (LOCAL3 + 1) * LOCAL4 + (LOCAL4 + 1) * CLASSES;

/// The variables of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) weights: &'a [f32],
    pub(crate) biases: &'a [f32],
}

/// Their gradients.
#[derive(Debug)]
pub(crate) struct LayerMut<'a> {
    pub(crate) weights: &'a mut [f32],
    pub(crate) biases: &'a mut [f32],
}

/// The variables of the convolutions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trunk<'a> {
    pub(crate) conv1: Layer<'a>,
    pub(crate) conv2: Layer<'a>,
}

/// Their gradients.
#[derive(Debug)]
pub(crate) struct TrunkMut<'a> {
    pub(crate) conv1: LayerMut<'a>,
    pub(crate) conv2: LayerMut<'a>,
}

/// The variables of the fully connected layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) local3: Layer<'a>,
    pub(crate) local4: Layer<'a>,
    pub(crate) softmax_linear: Layer<'a>,
}

/// Their gradients.
#[derive(Debug)]
pub(crate) struct HeadMut<'a> {
    pub(crate) local3: LayerMut<'a>,
    pub(crate) local4: LayerMut<'a>,
    pub(crate) softmax_linear: LayerMut<'a>,
}

/// Splits all variables.
///
/// # Panics
///
/// If there are not exactly as many as the model has.
pub(crate) fn split(variables: &[f32]) -> (Trunk<'_>, Head<'_>) {
    let mut rest = variables;
    let mut layer = |weights: usize, biases: usize| Layer {
        weights: rest
            .split_off(..weights)
            .expect("all variables of the model"),
        biases: rest
            .split_off(..biases)
            .expect("all variables of the model"),
    };
    let trunk = Trunk {
        conv1: layer(CONV1_WEIGHTS, CHANNELS),
        conv2: layer(CONV2_WEIGHTS, CHANNELS),
    };
    let head = Head {
        local3: layer(FEATURES * LOCAL3, LOCAL3),
        local4: layer(LOCAL3 * LOCAL4, LOCAL4),
        softmax_linear: layer(LOCAL4 * CLASSES, CLASSES),
    };
    assert!(rest.is_empty(), "no more than the variables of the model");
    (trunk, head)
}

/// Splits the gradients of the trunk.
///
/// # Panics
///
/// If there are not exactly [`TRUNK_VALUES`].
pub(crate) fn split_trunk(gradients: &mut [f32]) -> TrunkMut<'_> {
    assert_eq!(gradients.len(), TRUNK_VALUES);
    let mut rest = gradients;
    TrunkMut {
        conv1: layer_mut(&mut rest, CONV1_WEIGHTS, CHANNELS),
        conv2: layer_mut(&mut rest, CONV2_WEIGHTS, CHANNELS),
    }
}

/// Splits the gradients of the head.
///
/// # Panics
///
/// If there are not exactly [`HEAD_VALUES`].
pub(crate) fn split_head(gradients: &mut [f32]) -> HeadMut<'_> {
    assert_eq!(gradients.len(), HEAD_VALUES);
    let mut rest = gradients;
    HeadMut {
        local3: layer_mut(&mut rest, FEATURES * LOCAL3, LOCAL3),
        local4: layer_mut(&mut rest, LOCAL3 * LOCAL4, LOCAL4),
        softmax_linear: layer_mut(&mut rest, LOCAL4 * CLASSES, CLASSES),
    }
}

fn layer_mut<'a>(rest: &mut &'a mut [f32], weights: usize, biases: usize) -> LayerMut<'a> {
    LayerMut {
        weights: rest
            .split_off_mut(..weights)
            .expect("the length is checked"),
        biases: rest.split_off_mut(..biases).expect("the length is checked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_whole_model() {
        assert_eq!(TRUNK_VALUES + HEAD_VALUES, 1_068_298);
        let variables = vec![0.0; TRUNK_VALUES + HEAD_VALUES];
        let (trunk, head) = split(&variables);
        assert_eq!(trunk.conv2.weights.len(), 5 * 5 * 64 * 64);
        assert_eq!(head.softmax_linear.biases.len(), 10);
    }
}
