//! The gradient of a tower step as it came, in memory of the server's own.

use pserver_state::Values;
use pserver_wire::gradient_slot::{Generation, ServerSlot};

use crate::scrutiny::{self, Norm};

/// A gradient.
#[derive(Debug)]
pub struct Gradient {
    /// All variables end to end.
    pub values: Values,
    /// Their Euclidean norm.
    pub norm: f32,
}

impl Gradient {
    /// Takes the norm.
    #[must_use]
    pub fn new(values: Values) -> Self {
        Gradient {
            norm: scrutiny::norm(&values),
            values,
        }
    }

    /// Copies one out of its worker's slot into `memory`, which is of its size; `None` if it is not there.
    #[must_use]
    pub fn out_of(slot: &ServerSlot, generation: Generation, mut memory: Values) -> Option<Self> {
        let mut norm = Norm::default();
        let is_whole = slot.read(generation, &mut memory, |piece| norm.add(piece));
        is_whole.then(|| Gradient {
            values: memory,
            norm: norm.get(),
        })
    }
}
