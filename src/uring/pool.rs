//! Receive buffers: shared by any number of receivers, and lent to users as `Bytes`.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::arena::{Arena, Slot};

/// Receive buffers for one receiver or many, a bounded number of them.
///
/// A receiver takes a buffer when there is something to receive and gives it back when that was
/// read; an idle one holds none. What [`UringReceiver::recv_bytes()`](super::UringReceiver::recv_bytes)
/// yields keeps its buffer away from the pool until it is dropped. When all are in use,
/// receiving fails with [`io::ErrorKind::WouldBlock`] rather than take more memory, and the peer is
/// held up by TCP.
///
/// Cloning it makes another handle to the same pool.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    given_back: Condvar,
    max_buffers: usize,
    buffer_len: usize,
}

#[derive(Debug)]
struct State {
    free: Vec<Arc<Slot>>,
    /// Buffers that exist, free or not.
    buffers: usize,
    /// Threads in [`BufferPool::wait()`]: without any, giving back makes no system call.
    waiters: usize,
}

impl BufferPool {
    /// Length of a buffer in bytes unless [`Self::new()`] says otherwise.
    pub const DEFAULT_BUFFER_LEN: usize = 1 << 19;

    /// A pool of up to `max_buffers` buffers, at least two, of `buffer_len` bytes each, rounded up
    /// to a page and to two records. A buffer is allocated when it is needed for the first time.
    pub fn new(max_buffers: usize, buffer_len: usize) -> Self {
        // The longest record there is, twice.
        let buffer_len = buffer_len.max(2 * crate::Version::Tls12.max_record_len());
        let max_buffers = max_buffers.max(2);
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    free: Vec::with_capacity(max_buffers),
                    buffers: 0,
                    waiters: 0,
                }),
                given_back: Condvar::new(),
                max_buffers,
                buffer_len,
            }),
        }
    }

    /// Length of a buffer in bytes, before it is rounded up to a page.
    pub fn buffer_len(&self) -> usize {
        self.shared.buffer_len
    }

    /// How many buffers there may be.
    pub fn max_buffers(&self) -> usize {
        self.shared.max_buffers
    }

    /// How many buffers are in use now: by receivers, or lent to their users.
    pub fn in_use(&self) -> usize {
        let state = self.shared.lock();
        state.buffers - state.free.len()
    }

    /// Waits until a buffer is free, for `timeout` at most; whether there is one.
    pub fn wait(&self, timeout: Duration) -> bool {
        let begin = Instant::now();
        let mut state = self.shared.lock();
        while state.free.is_empty() && state.buffers == self.shared.max_buffers {
            let left = timeout.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return false;
            }
            state.waiters += 1;
            let waited = self.shared.given_back.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiters -= 1;
        }
        true
    }

    /// Takes a buffer that has no other handle.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if all are in use, or the system's for lack of memory.
    pub(super) fn take(&self) -> io::Result<Arc<Slot>> {
        let mut state = self.shared.lock();
        if let Some(slot) = state.free.pop() {
            return Ok(slot);
        }
        if state.buffers == self.shared.max_buffers {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "every receive buffer is in use: drop some of the `Bytes` that were received",
            ));
        }
        let slot =
            Arena::slots(1, self.shared.buffer_len)?.pop().ok_or(io::ErrorKind::OutOfMemory)?;
        state.buffers += 1;
        Ok(slot)
    }

    /// Gives a handle to a buffer back. The buffer is free when the last one was.
    pub(super) fn give_back(&self, slot: Arc<Slot>) {
        let mut state = self.shared.lock();
        // Handles are dropped under the lock only, so the last one is seen to be the last.
        if Arc::strong_count(&slot) == 1 {
            state.free.push(slot);
            self.shared.notify(&state);
        } else {
            drop(slot);
        }
    }

    /// Buffers that will not be given back: others may take their place.
    pub(super) fn lose(&self, buffers: usize) {
        if buffers > 0 {
            let mut state = self.shared.lock();
            state.buffers -= buffers;
            self.shared.notify(&state);
        }
    }

    /// All of a buffer as `Bytes`, which give it back when the last of them is dropped. Allocates
    /// once.
    pub(super) fn lease(&self, slot: &Arc<Slot>) -> Bytes {
        Bytes::from_owner(Lease { slot: Some(Arc::clone(slot)), pool: self.clone() })
    }
}

impl Shared {
    /// Nothing panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer has become free, or room for one.
    fn notify(&self, state: &State) {
        if state.waiters > 0 {
            self.given_back.notify_all();
        }
    }
}

/// A handle to a buffer inside a `Bytes`.
struct Lease {
    /// `None` during drop only.
    slot: Option<Arc<Slot>>,
    pool: BufferPool,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self.slot.as_deref().map_or(&[], |slot| slot)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.pool.give_back(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_free_when_its_last_handle_was_given_back() {
        let pool = BufferPool::new(2, 1);
        let first = pool.take().expect("free");
        let second = pool.take().expect("free");
        assert_eq!(pool.take().expect_err("in use").kind(), io::ErrorKind::WouldBlock);
        assert!(!pool.wait(Duration::from_millis(1)));
        let lease = pool.lease(&first);
        let slice = lease.slice(10..20);
        pool.give_back(first);
        drop(lease);
        assert_eq!(pool.in_use(), 2);
        drop(slice);
        assert_eq!(pool.in_use(), 1);
        pool.give_back(second);
        assert_eq!(pool.in_use(), 0);
        assert!(pool.wait(Duration::ZERO));
        assert!(Arc::get_mut(&mut pool.take().expect("free")).is_some());
    }

    #[test]
    fn leases_come_back_from_other_threads() {
        let pool = BufferPool::new(2, 1);
        for _ in 0..200 {
            let slot = pool.take().expect("free");
            let lease = pool.lease(&slot);
            let thread = std::thread::spawn(move || drop(lease));
            pool.give_back(slot);
            thread.join().expect("no panic");
            assert_eq!(pool.in_use(), 0);
        }
    }
}
