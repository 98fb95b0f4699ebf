//! The variables.
