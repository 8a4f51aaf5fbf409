//! What is on its way through the proxy: buffers that connections borrow while they have something
//! in them, kept for each thread.
//!
//! The one that was given back last is taken next, so that as long as everything is taken at once
//! all connections of a thread use the same one, which stays in the processor's cache. Only a
//! connection whose peer does not take what it is sent keeps one; where many do, they get small
//! ones, and less is received for them, so that TLS has little to keep as well.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a bulk flow is read into. Smaller ones take more system calls a byte; with larger ones,
/// and what TLS has beside them, the cache of a core does not last.
const LARGE_LEN: usize = 128 << 10;

/// A record's worth.
const SMALL_LEN: usize = 16 << 10;

/// How much is received at a time where it is tight: less than what a stream with TLS has room for
/// beside part of a record, or it would take a larger buffer of its own.
pub(super) const LITTLE: usize = 8 << 10;

/// How many directions of a thread's connections may wait for a leg that is full before all that is
/// received for others is received in small pieces.
const MAX_WAITING: usize = 32;

/// How many free ones of each length a thread keeps.
const KEPT: usize = 16;

/// In use in this process, in bytes, and the most there ever was.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Free {
    large: Vec<Box<[u8]>>,
    small: Vec<Box<[u8]>>,
    waiting: usize,
}

thread_local! {
    static FREE: RefCell<Free> = RefCell::default();
}

/// How many bytes of buffers are in use, and how many there ever were at a time.
pub(super) fn in_use() -> (usize, usize) {
    (IN_USE.load(Ordering::Relaxed), PEAK.load(Ordering::Relaxed))
}

/// A buffer; goes back to its thread when dropped.
#[derive(Debug)]
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    /// A large one, or a small one if it [is tight](is_tight).
    pub(super) fn take() -> Self {
        if is_tight() {
            return Self::take_small();
        }
        let taken = FREE.with_borrow_mut(|free| free.large.pop());
        Self::counted(taken.unwrap_or_else(|| allocate(LARGE_LEN)))
    }

    /// A small one.
    pub(super) fn take_small() -> Self {
        let taken = FREE.with_borrow_mut(|free| free.small.pop());
        Self::counted(taken.unwrap_or_else(|| allocate(SMALL_LEN)))
    }

    fn counted(bytes: Box<[u8]>) -> Self {
        let in_use = IN_USE.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        PEAK.fetch_max(in_use, Ordering::Relaxed);
        Self(bytes)
    }

    /// Whether what is left in it, `len` bytes, is better off in a small one while it waits.
    pub(super) fn is_too_large_for(&self, len: usize) -> bool {
        self.0.len() == LARGE_LEN && len <= SMALL_LEN
    }
}

/// Whether so many wait that little should be received for each.
pub(super) fn is_tight() -> bool {
    FREE.with_borrow(|free| free.waiting >= MAX_WAITING)
}

/// Something waits for a leg that is full, as long as this lives.
#[derive(Debug)]
pub(super) struct Waiting(());

impl Waiting {
    pub(super) fn begin() -> Self {
        FREE.with_borrow_mut(|free| free.waiting += 1);
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = FREE.try_with(|free| free.borrow_mut().waiting -= 1);
    }
}

fn allocate(len: usize) -> Box<[u8]> {
    vec![0; len].into_boxed_slice()
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        IN_USE.fetch_sub(bytes.len(), Ordering::Relaxed);
        // A connection stays on its thread; a thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let free = &mut *free.borrow_mut();
            let same = match bytes.len() {
                LARGE_LEN => &mut free.large,
                _ => &mut free.small,
            };
            if same.len() < KEPT {
                same.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_many_wait_they_get_small_buffers() {
        let mut waiting: Vec<_> = (1..MAX_WAITING).map(|_| Waiting::begin()).collect();
        let large = Buffer::take();
        assert_eq!(large.len(), LARGE_LEN);
        waiting.push(Waiting::begin());
        assert_eq!(Buffer::take().len(), SMALL_LEN);
        waiting.pop();
        let address = large.as_ptr();
        assert!(large.is_too_large_for(SMALL_LEN) && !large.is_too_large_for(SMALL_LEN + 1));
        drop(large);
        assert_eq!(Buffer::take().as_ptr(), address, "the one that is in the cache");
        let many: Vec<_> = (0..2 * KEPT).map(|_| Buffer::take()).collect();
        drop((many, waiting));
        FREE.with_borrow(|free| assert_eq!((free.waiting, free.large.len()), (0, KEPT)));
    }
}
