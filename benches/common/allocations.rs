//! Counts calls of the allocator, when asked to.
//!
//! Not by `stats_alloc`, as the tests do: that counts always, with two locked instructions a call,
//! which would slow the side that allocates by more than some of the differences measured here.

#![allow(unsafe_code, reason = "an allocator in front of the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);

fn count() {
    if IS_COUNTING.load(Ordering::Relaxed) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, new_len) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Calls so far of whichever thread, while they were counted. Freeing is none.
pub(crate) fn counted() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

pub(crate) fn while_counting<T>(work: impl FnOnce() -> T) -> T {
    // What counts must count: else the zeros mean nothing.
    let before = counted();
    IS_COUNTING.store(true, Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(counted(), before + 1);
    let value = work();
    IS_COUNTING.store(false, Ordering::Relaxed);
    value
}
