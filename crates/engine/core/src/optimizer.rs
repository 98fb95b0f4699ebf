//! Gradient descent.

/// One step of stochastic gradient descent without momentum: `variable - rate * gradient`, as
/// TensorFlow's `GradientDescentOptimizer`.
#[inline(always)]
pub(crate) fn apply_gradient(variable: f32, gradient: f32, learning_rate: f32) -> f32 {
    variable - learning_rate * gradient
}
