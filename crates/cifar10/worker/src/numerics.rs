//! What decides the bits of a gradient on this machine.

use anyhow::bail;
use cifar_kernels::InstructionSet;
use pserver_run::{Kernels, Numerics, RunConfig};
use tch::Device;

/// The only version that the bindings accept.
const LIBTORCH_VERSION: &str = "2.11.0";

/// The numerics of this process in a run.
///
/// # Errors
///
/// If the run asks for kernels that this worker does not have.
pub fn of_this_process(device: Device, run: &RunConfig, threads: u32) -> anyhow::Result<Numerics> {
    let pinned = run.numerics.as_ref().map(|numerics| numerics.kernels);
    let kernels = resolve(device, run.kernels, pinned, threads)?;
    Ok(Numerics {
        device: name(device).to_owned(),
        instruction_set: match kernels {
            Kernels::Auto | Kernels::Torch => libtorchs_instruction_set(),
            Kernels::Direct | Kernels::Winograd => InstructionSet::widest().name(),
        }
        .to_owned(),
        kernels,
        threads,
        libtorch: LIBTORCH_VERSION.to_owned(),
    })
}

/// The kernels that are used where `asked` are asked for; never [`Kernels::Auto`].
///
/// `pinned` are those of the run's first worker, if one has come: workers that come later use the
/// same.
fn resolve(
    device: Device,
    asked: Kernels,
    pinned: Option<Kernels>,
    threads: u32,
) -> anyhow::Result<Kernels> {
    let has_own = !device.is_cuda() && threads == 1;
    let fastest = if has_own && InstructionSet::widest().is_vectorized() {
        Kernels::Winograd
    } else {
        Kernels::Torch
    };
    match (asked, pinned) {
        (Kernels::Torch, _) => Ok(Kernels::Torch),
        (Kernels::Direct | Kernels::Winograd, _) if has_own => Ok(asked),
        (Kernels::Direct | Kernels::Winograd, _) => bail!(
            "the run asks for {asked} kernels, which compute on one thread of a CPU, and this worker has \
             {} and {threads} threads; start the server with --threads 1 and as many workers as there \
             are cores, or with --kernels torch",
            name(device)
        ),
        (Kernels::Auto, Some(pinned)) if has_own || pinned == Kernels::Torch => Ok(pinned),
        (Kernels::Auto, _) => Ok(fastest),
    }
}

fn name(device: Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

/// The widest vector instructions that libtorch finds here.
#[cfg(target_arch = "x86_64")]
fn libtorchs_instruction_set() -> &'static str {
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
fn libtorchs_instruction_set() -> &'static str {
    std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_those_of_the_run_where_this_worker_has_them() {
        use Kernels::{Auto, Direct, Torch, Winograd};
        let (cpu, gpu) = (Device::Cpu, Device::Cuda(0));
        let resolved =
            |device, asked, pinned, threads| resolve(device, asked, pinned, threads).ok();
        assert_eq!(resolved(cpu, Auto, Some(Direct), 1), Some(Direct));
        assert_eq!(resolved(cpu, Auto, Some(Torch), 1), Some(Torch));
        assert_eq!(resolved(cpu, Auto, None, 2), Some(Torch));
        assert_eq!(resolved(gpu, Auto, Some(Winograd), 1), Some(Torch));
        assert_eq!(resolved(cpu, Direct, Some(Winograd), 1), Some(Direct));
        assert_eq!(resolved(gpu, Direct, None, 1), None);
        assert_eq!(
            resolve(cpu, Winograd, None, 2).unwrap_err().to_string(),
            "the run asks for winograd kernels, which compute on one thread of a CPU, and this worker has cpu and 2 \
             threads; start the server with --threads 1 and as many workers as there are cores, or with --kernels torch"
        );
        let has_vectors = InstructionSet::widest().is_vectorized();
        let fastest = if has_vectors { Winograd } else { Torch };
        assert_eq!(resolved(cpu, Auto, None, 1), Some(fastest));
    }
}
