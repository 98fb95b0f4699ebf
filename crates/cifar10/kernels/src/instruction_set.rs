//! Which vector instructions the kernels are compiled for, and which of them this processor has.

use std::fmt;

use pulp::{Arch, WithSimd};

/// The vector instructions that a tower step is computed with. Part of what decides the bits of a
/// gradient: sums are split over as many lanes as a vector has.
#[derive(Clone, Copy)]
pub struct InstructionSet(Arch);

impl InstructionSet {
    /// The widest that this processor has.
    #[must_use]
    pub fn widest() -> Self {
        InstructionSet(Arch::new())
    }

    /// All that this processor has, the plain one first and the widest last.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![InstructionSet(Arch::Scalar)];
        #[cfg(target_arch = "x86_64")]
        if let (Some(avx2), true) = (pulp::x86::V3::try_new(), Self::widest().name() == "avx512") {
            all.push(InstructionSet(Arch::V3(avx2)));
        }
        if Self::widest().is_vectorized() {
            all.push(Self::widest());
        }
        all
    }

    /// Whether there are vectors at all. Without them libtorch's kernels are faster than these.
    #[must_use]
    pub fn is_vectorized(self) -> bool {
        !matches!(self.0, Arch::Scalar)
    }

    /// `avx512`, `avx2`, `neon`, or `portable` for none.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Arch::Scalar => "portable",
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Arch::Neon(_) | Arch::NeonFcma(_) => "neon",
            _ => "vectors",
        }
    }

    /// Runs the form of `kernel` that is compiled for these instructions.
    pub(crate) fn run<Kernel: WithSimd>(self, kernel: Kernel) -> Kernel::Output {
        self.0.dispatch(kernel)
    }
}

impl fmt::Debug for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
