//! Gradient descent.

/// One step of stochastic gradient descent without momentum: `variable - rate * gradient`, as
/// TensorFlow's `GradientDescentOptimizer`.
#[must_use]
#[inline(always)]
pub fn apply_gradient(variable: f32, gradient: f32, learning_rate: f32) -> f32 {
    variable - learning_rate * gradient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_move_against_the_gradient() {
        assert_eq!(apply_gradient(1.0, 2.0, 0.5), 0.0);
        assert_eq!(apply_gradient(-1.0, -4.0, 0.5), 1.0);
    }
}
