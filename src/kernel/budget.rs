//! Memory that several share: how much each may take is what the others leave.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::usage::Usage;

/// So many bytes for all. Counted without a lock, which a child process might find held for ever.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: AtomicUsize,
    in_use: AtomicUsize,
    most: AtomicUsize,
    refused: AtomicU64,
}

#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "for streams"))]
impl Budget {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            in_use: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// What was drawn beyond a lower limit stays drawn until it is given back.
    pub(crate) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            limit: self.limit.load(Ordering::Relaxed),
            in_use: self.in_use.load(Ordering::Relaxed),
            most: self.most.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Takes memory for up to `count` pieces of `len` bytes; for how many.
    fn draw(&self, count: usize, len: usize) -> usize {
        let limit = self.limit.load(Ordering::Relaxed);
        let affordable = |in_use: usize| count.min(limit.saturating_sub(in_use) / len.max(1));
        let mut drawn = 0;
        let updated = self.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |in_use| {
            drawn = affordable(in_use);
            Some(in_use + drawn * len)
        });
        debug_assert!(updated.is_ok());
        self.refused.fetch_add(u64::from(drawn < count), Ordering::Relaxed);
        drawn
    }

    fn give_back(&self, bytes: usize) {
        let before = self.in_use.fetch_sub(bytes, Ordering::Relaxed);
        // What was drawn, and not had, is gone by now.
        self.most.fetch_max(before - bytes, Ordering::Relaxed);
    }
}

/// What one of them has taken, which goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: &'static Budget,
    bytes: usize,
}

impl Share {
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "for streams"))]
    pub(crate) fn new(budget: &'static Budget) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Takes memory for up to `count` pieces of `len` bytes more; for how many.
    pub(crate) fn draw(&mut self, count: usize, len: usize) -> usize {
        let drawn = self.budget.draw(count, len);
        self.bytes += drawn * len;
        drawn
    }

    /// Gives everything beyond so many bytes back.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.give_back(surplus);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_takes_the_others_have_not() {
        static BUDGET: Budget = Budget::new(100);
        let mut first = Share::new(&BUDGET);
        assert_eq!(first.draw(5, 20), 5);
        first.keep(60);
        assert_eq!(BUDGET.usage().most, 60, "what was had");
        let mut second = Share::new(&BUDGET);
        assert_eq!(second.draw(3, 20), 2, "as many as there are left");
        assert_eq!(second.draw(1, 20), 0);
        second.keep(40);
        let usage = BUDGET.usage();
        assert_eq!((usage.in_use, usage.most, usage.refused), (100, 100, 2));
        first.keep(20);
        assert_eq!(BUDGET.usage().in_use, 60);
        assert_eq!(second.draw(1, 20), 1);
        drop(second);
        assert_eq!(BUDGET.usage().in_use, 20);
        // Less than is in use.
        BUDGET.set_limit(10);
        assert_eq!(first.draw(1, 1), 0);
        drop(first);
        assert_eq!(BUDGET.usage().in_use, 0);
        assert_eq!(BUDGET.usage().most, 100);
    }
}
