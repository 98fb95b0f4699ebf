//! Copies out of memory that another process may write at the same time.
//!
//! What is copied then may be torn; that nothing worse can come of it is what this file is for. In Rust's
//! memory model only atomics may be shared so, which are eight bytes wide at most, and half as fast as the
//! processor's own copy. Where that one is known it is used, as assembly: what such a block does to memory
//! is the processor's affair, as if the kernel had done it.

use std::sync::atomic::AtomicU64;
#[cfg(any(test, not(target_arch = "x86_64")))]
use std::sync::atomic::Ordering;

/// Copies as many bytes as `to` has out of shared memory.
///
/// # Panics
///
/// If there are not as many in `from`.
pub(crate) fn copy_out(from: &[AtomicU64], to: &mut [u8]) {
    assert!(to.len() <= size_of_val(from), "there are as many bytes");
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the processor's own copy")]
    // SAFETY: both are as long as what is copied, and `to` is nobody else's; the direction flag is clear, as
    // always between two statements of Rust.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") to.len() => _,
            inout("rsi") from.as_ptr() => _,
            inout("rdi") to.as_mut_ptr() => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    copy_out_by_words(from, to);
}

#[cfg_attr(target_arch = "x86_64", cfg(test))]
fn copy_out_by_words(from: &[AtomicU64], to: &mut [u8]) {
    let (whole, rest) = to.as_chunks_mut();
    for (bytes, word) in whole.iter_mut().zip(from) {
        *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    if !rest.is_empty() {
        let last = from[whole.len()].load(Ordering::Relaxed).to_ne_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_form_copies_all_bytes_and_no_more(
            words in prop::collection::vec(any::<u64>(), 13),
            len in 0_usize..100,
        ) {
            let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
            let shared = words.into_iter().map(AtomicU64::new).collect::<Vec<_>>();
            for out_of in [copy_out, copy_out_by_words] {
                let mut to = vec![7; len + 1];
                out_of(&shared, &mut to[..len]);
                prop_assert_eq!(&to[..len], &bytes[..len]);
                prop_assert_eq!(to[len], 7);
            }
        }
    }
}
