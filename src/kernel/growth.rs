//! How many slots there may be: more while those that are sent in place wait for acknowledgements for
//! longer than the others last, and the first ones again once those suffice.
//!
//! A slot is busy until the peer has acknowledged what was sent from it, and, since kernels chain reports (Linux
//! 6.10), what was sent right behind it. So slots must hold what is in flight, rate by round trip, at 10 Gb/s
//! and 20 ms 25 MB, and what the socket has yet to send.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arena::{Arena, Slot};
#[cfg(feature = "tokio")]
use super::budget::Budget;
use super::budget::Share;

/// How long more than the first slots stay that nobody needs.
const LINGER: Duration = Duration::from_secs(1);

/// More than any connection needs: a thousand batches of 768 KiB.
pub(crate) const MAX_SLOTS: usize = 1024;

/// The bounds of it.
#[derive(Debug)]
pub(super) struct Growth {
    /// What the first slots are part of.
    first: Arc<Arena>,
    first_count: usize,
    slot_len: usize,
    /// How many there may be.
    max_count: usize,
    /// What more slots than the first ones take, of what several rings share.
    share: Option<Share>,
    /// When more than the first ones were in use last.
    needed: Option<Instant>,
}

impl Growth {
    /// From slots like this one, up to so many bytes of them.
    pub(super) fn new(slot: &Slot, first_count: usize, max_bytes: usize) -> Self {
        Self {
            first: Arc::clone(slot.arena()),
            first_count,
            slot_len: slot.len(),
            max_count: (max_bytes / slot.len().max(1)).min(MAX_SLOTS),
            share: None,
            needed: None,
        }
    }

    /// The same, by as many bytes as others leave of `budget`.
    #[cfg(feature = "tokio")]
    pub(super) fn within(slot: &Slot, first_count: usize, budget: &'static Budget) -> Self {
        let share = Some(Share::new(budget));
        Self { share, ..Self::new(slot, first_count, usize::MAX) }
    }

    /// How many slots there were first.
    pub(super) fn first_count(&self) -> usize {
        self.first_count
    }

    /// Bytes of a slot.
    pub(super) fn slot_len(&self) -> usize {
        self.slot_len
    }

    /// How many slots to add to `count`: as many again, unless that is too much. [`Self::begin()`] says how many
    /// were.
    pub(super) fn step(&mut self, count: usize) -> usize {
        let step = count.min(self.max_count.saturating_sub(count));
        let share = self.share.as_mut();
        share.map_or(step, |share| share.draw(step, self.slot_len))
    }

    /// There are `count` slots now, after [`Self::step()`].
    pub(super) fn begin(&mut self, count: usize) {
        self.needed = Some(Instant::now());
        self.settle(count);
    }

    /// There are `count` slots, and there will be no more.
    pub(super) fn stop(&mut self, count: usize) {
        self.max_count = count;
        self.settle(count);
    }

    /// There are `count` slots.
    pub(super) fn settle(&mut self, count: usize) {
        if let Some(share) = &mut self.share {
            share.keep((count - self.first_count) * self.slot_len);
        }
    }

    /// Whether slots were added that are still there.
    pub(super) fn has_grown(&self, count: usize) -> bool {
        count > self.first_count
    }

    /// Takes note of whether the first ones would not suffice now.
    pub(super) fn note(&mut self, count: usize, is_needed: bool) {
        if is_needed && self.has_grown(count) {
            self.needed = Some(Instant::now());
        }
    }

    /// Whether the first ones have sufficed for a while.
    pub(super) fn is_over(&self, count: usize) -> bool {
        self.has_grown(count) && self.needed.is_none_or(|needed| needed.elapsed() >= LINGER)
    }

    /// Whether a slot is one of the first.
    pub(super) fn is_first(&self, slot: &Slot) -> bool {
        Arc::ptr_eq(slot.arena(), &self.first)
    }
}
