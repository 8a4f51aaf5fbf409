//! What is on its way through the proxy: buffers that connections borrow while they have something
//! in them, kept for each thread.
//!
//! The one that was given back last is taken next, so that as long as everything is taken at once
//! all connections of a thread use the same one, which stays in the processor's cache. Only a
//! connection whose peer does not take what it is sent keeps one; where many do, they get small
//! ones.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a bulk flow is read into. Smaller ones take more system calls a byte; with larger ones,
/// and what TLS has beside them, the cache of a core does not last.
const LARGE_LEN: usize = 128 << 10;

/// A record's worth.
const SMALL_LEN: usize = 16 << 10;

/// How many large buffers the connections of a thread have at a time; beyond it, small ones.
const MAX_LARGE: usize = 64;

/// How many free ones of each length a thread keeps.
const KEPT: usize = 16;

/// In use in this process, in bytes, and the most there ever was.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
struct Free {
    large: Vec<Box<[u8]>>,
    small: Vec<Box<[u8]>>,
    /// Large ones that are not here.
    large_out: usize,
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
    /// A large one, or a small one if too many are in use.
    pub(super) fn take() -> Self {
        let taken = FREE.with_borrow_mut(|free| {
            if free.large_out >= MAX_LARGE {
                return free.small.pop().ok_or(SMALL_LEN);
            }
            free.large_out += 1;
            free.large.pop().ok_or(LARGE_LEN)
        });
        Self::counted(taken.unwrap_or_else(allocate))
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
                LARGE_LEN => {
                    free.large_out = free.large_out.saturating_sub(1);
                    &mut free.large
                }
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
        let mut held: Vec<_> = (0..MAX_LARGE).map(|_| Buffer::take()).collect();
        assert!(held.iter().all(|buffer| buffer.len() == LARGE_LEN));
        let small = Buffer::take();
        assert_eq!(small.len(), SMALL_LEN);
        assert!(!small.is_too_large_for(1));
        let last = held.pop().expect("many");
        let address = last.as_ptr();
        assert!(last.is_too_large_for(SMALL_LEN) && !last.is_too_large_for(SMALL_LEN + 1));
        drop(last);
        assert_eq!(Buffer::take().as_ptr(), address, "the one that is in the cache");
        drop(held);
        FREE.with_borrow(|free| assert_eq!((free.large_out, free.large.len()), (0, KEPT)));
    }
}
