//! What a member asks of mimalloc, which has no safe way to be asked: the only unsafe code here.
//!
//! mimalloc 3 gives memory back 10 s after it was freed, and only when it happens to work then: a member
//! that had read its checkpoint kept twice of what it used.

use std::ffi::{c_int, c_long};

/// `mi_option_purge_delay` (mimalloc v3, `include/mimalloc.h`).
const PURGE_DELAY: c_int = 15;

/// Milliseconds; arenas, where most memory is, take ten times that.
const PURGE_DELAY_MS: c_long = 10;

/// Has freed memory given back soon. Of no effect when another allocator is in use.
pub fn spare() {
    // SAFETY: any thread may set an option at any time; the number is one of mimalloc's, which checks it.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) }
}

/// Gives back what this thread and the arenas hold and nobody uses. Takes up to milliseconds: for
/// after work that needed much memory.
pub fn give_back() {
    // SAFETY: it takes no pointer, and any thread may call it at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        super::spare();
        // SAFETY: as above.
        let delay = unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        assert_eq!(delay, super::PURGE_DELAY_MS);
        super::give_back();
    }
}
