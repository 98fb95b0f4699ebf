//! Where tensors live and are computed: the CPU, or one GPU whose backend is loaded at run time.

use tch::{Cuda, Device};

/// The library that registers libtorch's CUDA backend. The CPU build does not carry it.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// A GPU that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The CUDA part of libtorch is not installed.
    #[error(
        "cannot use GPU {gpu}: {CUDA_LIBRARY} is not found; install libtorch 2.11.0 with CUDA and \
         put its lib folder into LD_LIBRARY_PATH"
    )]
    NoCuda {
        /// The GPU that was asked for.
        gpu: usize,
        /// What the dynamic linker said.
        #[source]
        source: libloading::Error,
    },
    /// There is no such GPU.
    #[error("cannot use GPU {gpu}: libtorch sees {count} GPUs on this machine")]
    NoSuchGpu {
        /// The GPU that was asked for.
        gpu: usize,
        /// How many there are.
        count: i64,
    },
}

/// The GPU of that number, or the CPU where none is asked for.
///
/// # Errors
///
/// [`DeviceError`] if the GPU cannot be used; the CPU never stands in for one silently.
pub fn select(gpu: Option<usize>) -> Result<Device, DeviceError> {
    let Some(gpu) = gpu else {
        return Ok(Device::Cpu);
    };
    load_cuda().map_err(|source| DeviceError::NoCuda { gpu, source })?;
    let count = Cuda::device_count();
    if i64::try_from(gpu).is_ok_and(|gpu| gpu < count) {
        return Ok(Device::Cuda(gpu));
    }
    Err(DeviceError::NoSuchGpu { gpu, count })
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
