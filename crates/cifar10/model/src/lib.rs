//! What is the same for every program of TensorFlow's cifar10 tutorial model: server, worker and evaluator.
//!
//! Source: tensorflow/models, `tutorials/image/cifar10/cifar10.py`.

use pserver_run::{Initializer, Layout, VariableSpec};

/// The variables that have a weight-decay term in the loss, in the order of those terms.
pub const DECAYED: [&str; 2] = ["local3/weights", "local4/weights"];

/// Factor of `l2_loss` (half the sum of squares) of each [decayed](DECAYED) variable in the total loss.
pub const WEIGHT_DECAY: f64 = 0.004;

/// The ten variables of the model: 1,068,298 numbers, 4,273,192 bytes.
///
/// Source: `inference`.
#[must_use]
pub fn layout() -> Layout {
    let weights = |scope: &str, shape: &[usize], stddev| VariableSpec {
        name: format!("{scope}/weights"),
        shape: shape.to_vec(),
        initializer: Initializer::TruncatedNormal { stddev },
    };
    let biases = |scope: &str, size, value| VariableSpec {
        name: format!("{scope}/biases"),
        shape: vec![size],
        initializer: Initializer::Constant(value),
    };
    Layout::new(vec![
        weights("conv1", &[5, 5, 3, 64], 5e-2),
        biases("conv1", 64, 0.0),
        weights("conv2", &[5, 5, 64, 64], 5e-2),
        biases("conv2", 64, 0.1),
        weights("local3", &[2304, 384], 0.04),
        biases("local3", 384, 0.1),
        weights("local4", &[384, 192], 0.04),
        biases("local4", 192, 0.1),
        weights("softmax_linear", &[192, 10], 1.0 / 192.0),
        biases("softmax_linear", 10, 0.0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_has_as_many_numbers_as_the_tutorials() {
        let layout = layout();
        assert_eq!(layout.specs().len(), 10);
        assert_eq!(layout.num_values(), 1_068_298);
        assert_eq!(layout.size_bytes(), 4_273_192);
    }

    /// Results of matrix products may depend on alignment, so every variable has it.
    #[test]
    fn every_variable_begins_on_a_cache_line() {
        for (spec, range) in layout().iter() {
            assert_eq!(range.start * size_of::<f32>() % 64, 0, "{}", spec.name);
        }
    }

    #[test]
    fn decayed_variables_are_of_the_layout() {
        for name in DECAYED {
            assert!(layout().specs().iter().any(|spec| spec.name == name));
        }
    }
}
