//! Gradient descent.

/// One step of stochastic gradient descent without momentum: `next = variable - rate * gradient`,
/// element by element, as TensorFlow's `GradientDescentOptimizer`.
///
/// # Panics
///
/// If the slices differ in length.
#[inline(always)]
pub fn apply_gradients(variables: &[f32], gradients: &[f32], learning_rate: f32, next: &mut [f32]) {
    assert_eq!((variables.len(), gradients.len()), (next.len(), next.len()));
    for ((next, variable), gradient) in next.iter_mut().zip(variables).zip(gradients) {
        *next = variable - learning_rate * gradient;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_move_against_the_gradient() {
        let mut next = [0.0; 2];
        apply_gradients(&[1.0, -1.0], &[2.0, -4.0], 0.5, &mut next);
        assert_eq!(next, [0.0, 1.0]);
    }
}
