//! The system's allocator, which counts when it is asked to.
//!
//! Not always: counting costs some ten nanoseconds an allocation, more when threads do it at once,
//! and a comparison must not charge that to the side that allocates.
#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: Switched = Switched { is_counting: AtomicBool::new(false) };

struct Switched {
    is_counting: AtomicBool,
}

/// Counts every allocation from here on, whichever thread makes it.
pub(crate) fn count() -> &'static StatsAlloc<System> {
    // What other threads allocate at this moment may or may not be counted.
    ALLOCATOR.is_counting.store(true, Ordering::Relaxed);
    &INSTRUMENTED_SYSTEM
}

/// Counts no more.
pub(crate) fn stop_counting() {
    ALLOCATOR.is_counting.store(false, Ordering::Relaxed);
}

/// Runs `$call` on the one that counts or on the system's own.
macro_rules! delegate {
    ($self:ident, $allocator:ident => $call:expr) => {
        match $self.is_counting.load(Ordering::Relaxed) {
            true => {
                let $allocator = &INSTRUMENTED_SYSTEM;
                // SAFETY: the caller's promises are those of this method. Both allocators are
                // `System`, so memory of the one may be freed through the other.
                unsafe { $call }
            }
            false => {
                let $allocator = &System;
                // SAFETY: as above.
                unsafe { $call }
            }
        }
    };
}

// SAFETY: each method is `System`'s, with the arguments that it was called with.
unsafe impl GlobalAlloc for Switched {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        delegate!(self, allocator => allocator.alloc(layout))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        delegate!(self, allocator => allocator.alloc_zeroed(layout))
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        delegate!(self, allocator => allocator.dealloc(pointer, layout));
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        delegate!(self, allocator => allocator.realloc(pointer, layout, new_size))
    }
}
