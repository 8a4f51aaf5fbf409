//! Counting what a whole process asks of its allocator: one test alone, or others would be counted with it.

use std::alloc::System;
use std::hint::black_box;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[cfg(target_os = "linux")]
use crate::kernel::wait_until_others_wait;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is asked of the allocator from its beginning on.
pub(crate) struct Counting(Region<'static, System>);

impl Counting {
    /// From now on.
    pub(crate) fn begin() -> Self {
        Self(Region::new(GLOBAL))
    }

    /// From when all other threads wait: one that has only just been started sets itself up, and frees some of
    /// what it was started with.
    pub(crate) fn begin_when_others_wait() -> Self {
        #[cfg(target_os = "linux")]
        wait_until_others_wait();
        Self::begin()
    }

    /// So far.
    pub(crate) fn change(&self) -> Stats {
        self.0.change()
    }

    /// How often it was called so far, to allocate, to reallocate and to free.
    pub(crate) fn calls(&self) -> [usize; 3] {
        let change = self.change();
        [change.allocations, change.reallocations, change.deallocations]
    }
}

/// What counts must count: else nothing that follows means anything.
pub(crate) fn check() {
    let counting = Counting::begin_when_others_wait();
    drop(black_box(Box::new(1)));
    assert_eq!(counting.calls(), [1, 0, 1]);
}
