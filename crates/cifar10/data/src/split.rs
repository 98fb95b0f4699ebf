//! The two parts of a data set.

/// A half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What the variables are trained on.
    Train,
    /// What the precision is measured on.
    Test,
}
