//! Where tensors live and are computed: the CPU, or one GPU whose backend is loaded at run time.

use anyhow::{Context, ensure};
use tch::{Cuda, Device};

/// The library that registers libtorch's CUDA backend. The CPU build does not carry it.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// The GPU of that number, or the CPU where none is asked for.
///
/// # Errors
///
/// If the GPU cannot be used; the CPU never stands in for one silently.
pub fn select(gpu: Option<usize>) -> anyhow::Result<Device> {
    let Some(gpu) = gpu else {
        return Ok(Device::Cpu);
    };
    load_cuda().with_context(|| {
        format!(
            "cannot use GPU {gpu}: {CUDA_LIBRARY} is not found; install libtorch 2.11.0 with CUDA and \
             put its lib folder into LD_LIBRARY_PATH"
        )
    })?;
    let count = Cuda::device_count();
    ensure!(
        i64::try_from(gpu).is_ok_and(|gpu| gpu < count),
        "cannot use GPU {gpu}: libtorch sees {count} GPUs on this machine"
    );
    Ok(Device::Cuda(gpu))
}

/// Loads the CUDA backend, which registers itself, for as long as the process runs.
#[expect(unsafe_code, reason = "loading a library runs its initialisers")]
fn load_cuda() -> Result<(), libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library's initialisers register kernels with the dispatcher of the libtorch that
    // is already loaded; PyTorch loads it the same way. It is never unloaded, so nothing it
    // registered dangles.
    let library = unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | RTLD_GLOBAL)? };
    std::mem::forget(library);
    Ok(())
}

/// Has libtorch compute with these threads, or with one for each core.
pub(crate) fn set_threads(threads: Option<u32>) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // At most 1,024 by the flag; more cores than an i32 counts there are not.
    tch::set_num_threads(threads.map_or(cores as i32, |threads| threads as i32));
}
