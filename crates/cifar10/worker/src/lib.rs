//! The tower step: variables and a batch in, loss and gradients out. The only crate that links
//! libtorch.
//!
//! [`device`] and [`numerics`] say what is computed with, [`engine`] computes with it: on a CPU with the
//! kernels of `cifar-kernels`, else with libtorch. There [`model`] is the network, [`gradients`] its
//! training, [`eval`] its scoring, which [`evaluator`] does for whole checkpoints, found in a
//! [`checkpoint_folder`], and [`score_text`] shows; [`predict`] shows it a [`picture`]. [`summarizer`] makes what people look at, and [`training_loop`] puts
//! them together in one glance. [`worker_program`] and [`eval_program`] are the command lines.

pub mod device;

pub mod numerics;

pub mod engine;

pub mod model;

pub mod gradients;

pub mod eval;

pub mod evaluator;

pub mod checkpoint_folder;

pub mod score_text;

pub mod picture;

pub mod predict;

pub mod summarizer;

pub mod training_loop;

pub mod worker_program;

pub mod eval_program;

pub use eval_program::main as eval_main;
pub use worker_program::main as worker_main;
