//! The table of variables: names, shapes and initial values.

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
    /// Its name, such as `conv1/weights`.
    pub name: String,
    /// Sizes, outermost first. Convolutions are `[height, width, in, out]`, matrices `[in, out]`.
    pub shape: Vec<usize>,
    /// How it starts.
    pub initializer: Initializer,
}

impl VariableSpec {
    /// Number of elements.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The variables in order, and where each lies when all are laid end to end. By default there are none.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    specs: Vec<VariableSpec>,
    /// Where each variable begins, and after the last where it ends.
    offsets: Vec<usize>,
}

impl Default for Layout {
    fn default() -> Self {
        Layout::new(Vec::new())
    }
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

    /// A small layout, for examples and tests: a convolution of three colours and a matrix, 448 numbers.
    #[must_use]
    pub fn example() -> Self {
        let variable = |name: &str, shape: &[usize], initializer| VariableSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initializer,
        };
        let normal = Initializer::TruncatedNormal { stddev: 0.05 };
        Layout::new(vec![
            variable("conv1/weights", &[3, 3, 3, 8], normal),
            variable("conv1/biases", &[8], Initializer::Constant(0.0)),
            variable("softmax_linear/weights", &[8, 27], normal),
            variable("softmax_linear/biases", &[8], Initializer::Constant(0.1)),
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
    fn layouts_of_other_names_order_or_shapes_have_other_fingerprints() {
        let spec = |name: &str, shape: &[usize]| VariableSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initializer: Initializer::Constant(0.0),
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
