//! The table of variables: names, shapes, initial values and weight decay.

use std::ops::Range;

use twox_hash::XxHash3_64;

/// How a variable starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initializer {
    /// Normal with mean 0, redrawn beyond two standard deviations, as TensorFlow's
    /// `truncated_normal_initializer`.
    TruncatedNormal {
        /// Standard deviation before the tails are cut.
        stddev: f64,
    },
    /// Every element the same.
    Constant(f32),
}

/// One trainable tensor of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct VariableSpec {
    /// The tutorial's name, such as `conv1/weights`.
    pub name: String,
    /// Sizes, outermost first. Convolutions are `[height, width, in, out]`, matrices `[in, out]`.
    pub shape: Vec<usize>,
    /// How it starts.
    pub initializer: Initializer,
    /// Factor of `l2_loss` (half the sum of squares) of this variable in the total loss, if any.
    pub weight_decay: Option<f64>,
}

impl VariableSpec {
    /// Number of elements.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The variables in order, and where each lies when all are laid end to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    specs: Vec<VariableSpec>,
    /// Where each variable begins, and after the last where it ends.
    offsets: Vec<usize>,
}

impl Layout {
    /// A layout of the given variables, in this order.
    #[must_use]
    pub fn new(specs: Vec<VariableSpec>) -> Self {
        let mut offsets = vec![0];
        for spec in &specs {
            offsets.push(offsets[offsets.len() - 1] + spec.num_values());
        }
        Layout { specs, offsets }
    }

    /// The ten variables of TensorFlow's cifar10 tutorial model: 1,068,298 numbers, 4,273,192 bytes.
    ///
    /// Source: tensorflow/models, `tutorials/image/cifar10/cifar10.py`, `inference`.
    #[must_use]
    pub fn cifar10() -> Self {
        let normal = |stddev| Initializer::TruncatedNormal { stddev };
        let weights = |scope: &str, shape: &[usize], stddev, weight_decay| VariableSpec {
            name: format!("{scope}/weights"),
            shape: shape.to_vec(),
            initializer: normal(stddev),
            weight_decay,
        };
        let biases = |scope: &str, size, value| VariableSpec {
            name: format!("{scope}/biases"),
            shape: vec![size],
            initializer: Initializer::Constant(value),
            weight_decay: None,
        };
        Layout::new(vec![
            weights("conv1", &[5, 5, 3, 64], 5e-2, None),
            biases("conv1", 64, 0.0),
            weights("conv2", &[5, 5, 64, 64], 5e-2, None),
            biases("conv2", 64, 0.1),
            weights("local3", &[2304, 384], 0.04, Some(0.004)),
            biases("local3", 384, 0.1),
            weights("local4", &[384, 192], 0.04, Some(0.004)),
            biases("local4", 192, 0.1),
            weights("softmax_linear", &[192, 10], 1.0 / 192.0, None),
            biases("softmax_linear", 10, 0.0),
        ])
    }

    /// The variables in order.
    #[must_use]
    pub fn specs(&self) -> &[VariableSpec] {
        &self.specs
    }

    /// Each variable with the range of its elements among all.
    pub fn iter(&self) -> impl Iterator<Item = (&VariableSpec, Range<usize>)> {
        self.specs
            .iter()
            .zip(self.offsets.windows(2).map(|ends| ends[0]..ends[1]))
    }

    /// Number of elements of all variables.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.offsets[self.specs.len()]
    }

    /// Bytes of all variables as f32.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.num_values() * size_of::<f32>()
    }

    /// A number that differs between layouts of different names, order or shapes: two programs
    /// that disagree on it must not exchange variables.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let table: String = self
            .specs
            .iter()
            .map(|spec| format!("{} {:?}\n", spec.name, spec.shape))
            .collect();
        XxHash3_64::oneshot(table.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_has_as_many_numbers_as_the_tutorials() {
        let layout = Layout::cifar10();
        assert_eq!(layout.specs().len(), 10);
        assert_eq!(layout.num_values(), 1_068_298);
        assert_eq!(layout.size_bytes(), 4_273_192);
    }

    /// Results of matrix products may depend on alignment, so every variable must have it.
    #[test]
    fn every_variable_begins_on_a_cache_line() {
        for (spec, range) in Layout::cifar10().iter() {
            assert_eq!(range.start * size_of::<f32>() % 64, 0, "{}", spec.name);
        }
    }

    #[test]
    fn layouts_of_other_names_order_or_shapes_have_other_fingerprints() {
        let spec = |name: &str, shape: &[usize]| VariableSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initializer: Initializer::Constant(0.0),
            weight_decay: None,
        };
        let layouts = [
            Layout::new(vec![spec("a", &[2, 3]), spec("b", &[4])]),
            Layout::new(vec![spec("b", &[4]), spec("a", &[2, 3])]),
            Layout::new(vec![spec("a", &[3, 2]), spec("b", &[4])]),
            Layout::new(vec![spec("a", &[2, 3]), spec("c", &[4])]),
        ];
        let mut fingerprints: Vec<u64> = layouts.iter().map(Layout::fingerprint).collect();
        fingerprints.sort_unstable();
        fingerprints.dedup();
        assert_eq!(fingerprints.len(), layouts.len());
    }
}
