//! What decides the bits of a gradient on this machine.

use cifar_params::{Kernels, Numerics};
use tch::Device;

/// The only version that the bindings accept.
const LIBTORCH_VERSION: &str = "2.11.0";

/// The numerics of this process, for kernels and threads as the run asks for them.
#[must_use]
pub fn of_this_process(device: Device, kernels: Kernels, threads: u32) -> Numerics {
    Numerics {
        device: match device {
            Device::Cuda(_) => "cuda".to_owned(),
            _ => "cpu".to_owned(),
        },
        instruction_set: instruction_set().to_owned(),
        kernels: resolve(kernels),
        threads,
        libtorch: LIBTORCH_VERSION.to_owned(),
    }
}

/// The kernels that are used where `kernels` are asked for.
fn resolve(kernels: Kernels) -> Kernels {
    match kernels {
        Kernels::Auto | Kernels::Torch => Kernels::Torch,
    }
}

/// The widest vector instructions that libtorch finds here.
#[cfg(target_arch = "x86_64")]
fn instruction_set() -> &'static str {
    if is_x86_feature_detected!("avx512f") {
        "avx512"
    } else if is_x86_feature_detected!("avx2") {
        "avx2"
    } else {
        "sse2"
    }
}

/// The widest vector instructions that libtorch finds here.
#[cfg(not(target_arch = "x86_64"))]
fn instruction_set() -> &'static str {
    std::env::consts::ARCH
}
