//! The memory allocator, mimalloc, and what a member asks of it: the only unsafe code here.
//!
//! The crate `mimalloc` asks for aligned memory whatever is wanted, and mimalloc 3 then takes the next larger size
//! for most that fit exactly: 64 bytes for 48, 384 for 320. And mimalloc gives memory back 10 s after it was
//! freed, and only when it happens to work then: a member that had read its checkpoint kept twice of what it used.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::time::{Duration, Instant};

use libmimalloc_sys as mi;

/// What all memory is aligned to that is at least as large (mimalloc v3, `include/mimalloc/types.h`,
/// `MI_MAX_ALIGN_SIZE`).
const ALIGNED_ANYWAY: usize = 16;

/// mimalloc, as the allocator of a program.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

/// Whether memory of this size needs no word about how it is aligned.
fn is_plain(layout: Layout) -> bool {
    layout.align() <= ALIGNED_ANYWAY && layout.align() <= layout.size()
}

// SAFETY: mimalloc's functions keep the contract of those of C, which is this one; sizes and alignments
// are those of a valid layout, and all that is freed comes from the same allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let memory = unsafe {
            if is_plain(layout) {
                mi::mi_malloc(layout.size())
            } else {
                mi::mi_malloc_aligned(layout.size(), layout.align())
            }
        };
        memory.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let memory = unsafe {
            if is_plain(layout) {
                mi::mi_zalloc(layout.size())
            } else {
                mi::mi_zalloc_aligned(layout.size(), layout.align())
            }
        };
        memory.cast()
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: as above.
        unsafe { mi::mi_free(memory.cast()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_plain = is_plain(layout) && layout.align() <= size;
        // SAFETY: as above.
        let memory = unsafe {
            if is_plain {
                mi::mi_realloc(memory.cast(), size)
            } else {
                mi::mi_realloc_aligned(memory.cast(), size, layout.align())
            }
        };
        memory.cast()
    }
}

/// `mi_option_purge_delay` (mimalloc v3, `include/mimalloc.h`).
const PURGE_DELAY: c_int = 15;

/// Milliseconds; arenas, where most memory is, take ten times that.
const PURGE_DELAY_MS: c_long = 10;

/// Has freed memory given back soon. Of no effect when another allocator is in use.
pub fn spare() {
    // SAFETY: any thread may set an option at any time; the number is one of mimalloc's, which checks it.
    unsafe { mi::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) }
}

/// Gives back what this thread and the arenas hold and nobody uses. Takes up to milliseconds: for
/// after work that needed much memory.
pub fn give_back() {
    // SAFETY: it takes no pointer, and any thread may call it at any time.
    unsafe { mi::mi_collect(true) }
}

/// How often a thread that is about to wait gives back what it holds.
const REST_INTERVAL: Duration = Duration::from_secs(1);

/// As [`give_back`], at most once a second for each thread: for a thread that is about to wait. What others
/// have freed of its memory, and pages it may use again, stay with it otherwise: 5 MiB after a load of small
/// requests.
pub fn rest() {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    LAST.with(|last| {
        if last.get().is_none_or(|last| now.duration_since(last) >= REST_INTERVAL) {
            last.set(Some(now));
            give_back();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_kept_when_it_grows() {
        for align in [1_usize, 2, 4, 8, 16, 32, 64, 4096, 65_536] {
            for size in [1, 7, 8, 15, 16, 24, 48, 80, 320, 1000, 5000, 100_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let larger = Layout::from_size_align(3 * size, align).unwrap();
                // SAFETY: the layouts are not empty, and each is freed as it was asked for.
                unsafe {
                    let plain = Allocator.alloc(layout);
                    assert!(plain.addr().is_multiple_of(align));
                    Allocator.dealloc(plain, layout);
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    zeroed.write_bytes(7, size);
                    let grown = Allocator.realloc(zeroed, layout, larger.size());
                    assert!(grown.addr().is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(grown, size).iter().all(|byte| *byte == 7));
                    Allocator.dealloc(grown, larger);
                }
            }
        }
    }

    #[test]
    fn what_fits_exactly_takes_no_more() {
        for size in [32, 48, 80, 112, 320, 1280] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: as above; it is not freed before it was looked at.
            unsafe {
                let memory = Allocator.alloc(layout);
                assert_eq!(mi::mi_usable_size(memory.cast()), size);
                Allocator.dealloc(memory, layout);
            }
        }
    }

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        super::spare();
        // SAFETY: as above.
        let delay = unsafe { mi::mi_option_get(super::PURGE_DELAY) };
        assert_eq!(delay, super::PURGE_DELAY_MS);
        super::give_back();
    }
}
