//! What decisions need to know of a gradient.

/// A gradient, or what stands for one in a test.
pub trait Evidence {
    /// Its Euclidean norm; not finite if one of its numbers is not.
    fn norm(&self) -> f32;

    /// Whether two gradients agree in every bit.
    fn same_bits(&self, other: &Self) -> bool;
}
