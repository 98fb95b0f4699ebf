//! What speaks against the proof of a run, in words that name step, tower and worker.

use std::fmt;

use pserver_run::{GlobalStep, Mode, TowerStep};

use crate::damage::Damage;
use crate::history::{Contradiction, Worker};
use crate::units::{count, counted, times, write_lines};

/// Why nothing was proven; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

/// Something that contradicts the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The run was not synchronous.
    Mode(Mode),
    /// Steps have no commit, from the first to the last of them.
    Gap {
        /// The first.
        first: GlobalStep,
        /// The last.
        last: GlobalStep,
    },
    /// Records contradict each other.
    Contradiction(Contradiction),
    /// A step was applied without one of its towers.
    TowerMissing {
        /// The tower step.
        tower_step: TowerStep,
    },
    /// A tower counted more than once in its step.
    TowerTwice {
        /// The tower step.
        tower_step: TowerStep,
        /// Who had computed the gradient that counted again.
        worker: Worker,
    },
    /// A gradient counted that is of no tower of the step.
    Foreign {
        /// The step that it counted in.
        step: GlobalStep,
        /// What it is the gradient of.
        of: TowerStep,
        /// Who had computed it.
        worker: Worker,
    },
    /// A worker used other examples than those of its tower step.
    OtherExamples {
        /// The tower step.
        tower_step: TowerStep,
        /// Who computed it.
        worker: Worker,
    },
    /// Examples of an epoch were not used, or more than once.
    Epoch {
        /// Counted from 0.
        epoch: u64,
        /// Examples that are not known to have been used.
        unused: u32,
        /// Uses of examples that had been used before.
        repeated: u64,
    },
    /// Lines of the ledger were skipped: what speaks against the proof may come from that.
    Damage(Damage),
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = counted(self.0.len() as u64, "finding");
        writeln!(f, "not proven: {number}")?;
        write_lines(f, &self.0)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Mode(mode) => write!(
                f,
                "a run of mode {mode} may drop gradients and with them examples; only one of mode \
                 sync uses each exactly once"
            ),
            Finding::Gap { first, last } if first == last => {
                write!(f, "step {first} is not on record")
            }
            Finding::Gap { first, last } => write!(f, "steps {first} to {last} are not on record"),
            Finding::Contradiction(contradiction) => contradiction.fmt(f),
            Finding::Damage(damage) => f.write_str(damage.to_string().trim_end()),
            Finding::TowerMissing { tower_step } => write!(
                f,
                "step {} was applied without its tower {}",
                tower_step.global_step, tower_step.tower
            ),
            Finding::TowerTwice { tower_step, worker } => {
                write!(f, "{tower_step} counted once more, by {worker}")
            }
            Finding::Foreign { step, of, worker } => write!(
                f,
                "step {step} counted what {worker} computed for step {} tower {}",
                of.global_step, of.tower
            ),
            Finding::OtherExamples { tower_step, worker } => {
                write!(f, "{worker} did not use the examples of {tower_step}")
            }
            Finding::Epoch {
                epoch,
                unused,
                repeated,
            } => {
                write!(f, "epoch {epoch}: ")?;
                if *unused > 0 {
                    let unused = count(u64::from(*unused));
                    write!(f, "{unused} of its examples are not on record as used")?;
                }
                if *unused > 0 && *repeated > 0 {
                    f.write_str(", ")?;
                }
                if *repeated > 0 {
                    write!(f, "examples were used again {}", times(*repeated))?;
                }
                Ok(())
            }
        }
    }
}
