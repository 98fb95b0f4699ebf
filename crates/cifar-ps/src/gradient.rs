//! The gradient of a tower step, in memory of the server's own or where the worker has put it.

use std::ops::Range;

use cifar_params::Values;
use cifar_wire::gradient_slot::GradientsInSlot;

use crate::scrutiny::{self, Norm};

/// Elements that an update reads of each gradient at once: 64 KiB, which a processor's second cache holds.
/// To begin a copy costs time, and the longer a processor reads on in one gradient, the better it foresees
/// what it will read next.
pub const PIECE: usize = 16 * 1024;

/// A gradient as it came.
#[derive(Debug)]
pub struct Gradient {
    /// All variables end to end.
    pub numbers: Numbers,
    /// Their Euclidean norm; 0 until they are read.
    pub norm: f32,
}

/// The numbers of a gradient.
#[derive(Debug)]
pub enum Numbers {
    /// Nobody else can change them.
    Here(Values),
    /// Their worker has no business with them before it is answered, but could change them: what is read
    /// counts only if they are there afterwards.
    InSlot(GradientsInSlot),
}

impl Gradient {
    /// One that is here; takes its norm.
    #[must_use]
    pub fn new(values: Values) -> Self {
        Gradient {
            norm: scrutiny::norm(&values),
            numbers: Numbers::Here(values),
        }
    }

    /// One that is not read yet.
    #[must_use]
    pub fn in_slot(gradients: GradientsInSlot) -> Self {
        Gradient {
            numbers: Numbers::InSlot(gradients),
            norm: 0.0,
        }
    }

    /// Copies one out of its slot into `memory`, which is of its size; `None` if it is not there any more.
    #[must_use]
    pub fn copied_out(from: &GradientsInSlot, mut memory: Values) -> Option<Self> {
        let mut norm = Norm::default();
        for (start, piece) in (0..).step_by(PIECE).zip(memory.chunks_mut(PIECE)) {
            from.copy_out(start..start + piece.len(), piece);
            norm.add(piece);
        }
        from.are_there().then(|| Gradient {
            numbers: Numbers::Here(memory),
            norm: norm.get(),
        })
    }
}

impl Numbers {
    /// Those that are here.
    #[must_use]
    pub fn here(&self) -> Option<&Values> {
        match self {
            Numbers::Here(values) => Some(values),
            Numbers::InSlot(_) => None,
        }
    }

    /// The memory of those that are here.
    #[must_use]
    pub fn into_here(self) -> Option<Values> {
        match self {
            Numbers::Here(values) => Some(values),
            Numbers::InSlot(_) => None,
        }
    }

    /// Those that are in a slot.
    #[must_use]
    pub fn slot(&self) -> Option<&GradientsInSlot> {
        match self {
            Numbers::Here(_) => None,
            Numbers::InSlot(gradients) => Some(gradients),
        }
    }

    /// Begins to read them.
    #[must_use]
    pub fn read(&self) -> Reading<'_> {
        match self {
            Numbers::Here(values) => Reading::Here(values),
            Numbers::InSlot(gradients) => Reading::InSlot {
                gradients,
                piece: vec![0.0; PIECE],
                norm: Norm::default(),
            },
        }
    }
}

/// A gradient that is being read, once from its beginning to its end.
#[derive(Debug)]
pub enum Reading<'a> {
    /// Where it is.
    Here(&'a [f32]),
    /// Out of a slot.
    InSlot {
        /// What is read.
        gradients: &'a GradientsInSlot,
        /// A copy of what was read last.
        piece: Vec<f32>,
        /// Of what was read so far.
        norm: Norm,
    },
}

impl<'a> From<&'a Values> for Reading<'a> {
    fn from(values: &'a Values) -> Self {
        Reading::Here(values)
    }
}

impl Reading<'_> {
    /// The next numbers: a multiple of 32 of them, unless they are the last, and at most [`PIECE`] of those
    /// in a slot.
    pub fn next(&mut self, range: &Range<usize>) -> &[f32] {
        match self {
            Reading::Here(numbers) => &numbers[range.clone()],
            Reading::InSlot {
                gradients,
                piece,
                norm,
            } => {
                let piece = &mut piece[..range.len()];
                gradients.copy_out(range.clone(), piece);
                norm.add(piece);
                piece
            }
        }
    }

    /// The norm of what was read out of a slot.
    #[must_use]
    pub fn norm(&self) -> Option<f32> {
        match self {
            Reading::Here(_) => None,
            Reading::InSlot { norm, .. } => Some(norm.get()),
        }
    }
}
