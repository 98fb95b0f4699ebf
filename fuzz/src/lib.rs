//! What the programs of this folder have in common.

pub use cap::Cap;
pub use cifar_fuzz;
pub use libfuzzer_sys;

/// Memory that a decoder may have at a time, with all that libFuzzer does not count as its own.
pub const MAX_BYTES: usize = 128 << 20;

/// The program of a target: whatever bytes libFuzzer comes by go to the function of that name.
#[macro_export]
macro_rules! target {
    ($module:ident :: $function:ident) => {
        #[global_allocator]
        static ALLOCATOR: $crate::Cap<std::alloc::System> =
            $crate::Cap::new(std::alloc::System, $crate::MAX_BYTES);

        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            $crate::cifar_fuzz::$module::$function(bytes)
        });
    };
}
