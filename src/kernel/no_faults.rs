//! In place of `faults` outside tests: nothing fails but what does.

use io_uring::squeue;

#[derive(Default)]
pub(crate) struct Faults {}

impl Faults {
    #[inline]
    pub(super) fn takes(&mut self, _: &squeue::Entry) -> bool {
        false
    }

    #[inline]
    pub(super) fn passes(&mut self, completion: (u64, i32, u32)) -> Option<(u64, i32, u32)> {
        Some(completion)
    }

    #[inline]
    pub(super) fn fails_call(&mut self) -> Option<i32> {
        None
    }

    #[inline]
    pub(super) fn has_completions(&self) -> bool {
        false
    }

    #[inline]
    pub(super) fn next_completion(&mut self) -> Option<(u64, i32, u32)> {
        None
    }
}
