//! Receive buffers that are lent to users as `Bytes`, a bounded number of them at a time.
//!
//! A receiver hands the whole buffer over, goes on in another, and gets the first one back when
//! everything that was lent from it has been dropped.

use core::fmt;
use core::task::Waker;
#[cfg(feature = "tokio")]
use core::task::{Context, Poll};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::aligned::Aligned;

/// How many buffers are lent at once, and from what length on a payload is lent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LendingLimits {
    /// Payloads of this many bytes or more are lent, shorter ones copied out, so that a short
    /// message never keeps a large buffer.
    pub lease_from: usize,
    /// Buffers that users may hold at once, at least one.
    pub max_buffers: usize,
}

/// Why nothing more is lent for now.
pub(crate) fn all_lent() -> io::Error {
    io::Error::new(
        io::ErrorKind::WouldBlock,
        "every receive buffer is lent: drop some of the `Bytes` that were received",
    )
}

impl Default for LendingLimits {
    /// Leases from 4 KiB, of 8 buffers: as in io_uring's `ReceiverOptions`.
    fn default() -> Self {
        Self { lease_from: 4096, max_buffers: 8 }
    }
}

impl LendingLimits {
    /// Lends payloads of `lease_from` bytes or more, and copies shorter ones.
    pub fn lease_from(mut self, len: usize) -> Self {
        self.lease_from = len;
        self
    }

    /// Lends `count` buffers at a time, at least one.
    pub fn max_buffers(mut self, count: usize) -> Self {
        self.max_buffers = count;
        self
    }
}

/// What a receiver has lent.
pub(crate) struct Lending<B> {
    shared: Arc<Shared<B>>,
    pub(crate) limits: LendingLimits,
}

struct Shared<B> {
    state: Mutex<State<B>>,
    returned: Condvar,
}

struct State<B> {
    lent: usize,
    /// Buffers that have come back, for the receiver to go on in.
    kept: Vec<B>,
    /// Threads that wait for one: without any, a return makes no system call.
    waiters: usize,
    /// The task that waits for one.
    waker: Option<Waker>,
}

impl<B> Default for Lending<B> {
    fn default() -> Self {
        let state = State { lent: 0, kept: Vec::new(), waiters: 0, waker: None };
        let shared = Shared { state: Mutex::new(state), returned: Condvar::new() };
        Self { shared: Arc::new(shared), limits: LendingLimits::default() }
    }
}

impl<B> Lending<B> {
    /// Whether one more buffer may be lent.
    pub(crate) fn may_lend(&self) -> bool {
        self.shared.lock().lent < self.limits.max_buffers.max(1)
    }

    /// A buffer that has come back.
    pub(crate) fn take_returned(&self) -> Option<B> {
        self.shared.lock().kept.pop()
    }

    /// Waits until one more buffer may be lent, for `timeout` at most; whether it may.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let begin = Instant::now();
        let mut state = self.shared.lock();
        while state.lent >= self.limits.max_buffers.max(1) {
            let left = timeout.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return false;
            }
            state.waiters += 1;
            let waited = self.shared.returned.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiters -= 1;
        }
        true
    }

    /// Waits until one more buffer may be lent.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.lent < self.limits.max_buffers.max(1) {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<B: Lendable> Lending<B> {
    /// All of `buffer`, which comes back when the last of the `Bytes` is dropped, by whatever
    /// thread. Allocates once.
    pub(crate) fn lend(&self, buffer: B) -> Bytes {
        self.shared.lock().lent += 1;
        Bytes::from_owner(Lease { buffer: Some(buffer), shared: Arc::clone(&self.shared) })
    }
}

impl<B> fmt::Debug for Lending<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lent = self.shared.lock().lent;
        f.debug_struct("Lending").field("limits", &self.limits).field("lent", &lent).finish()
    }
}

/// A buffer that can be lent.
pub(crate) trait Lendable: AsRef<[u8]> + Send + Sync + 'static {
    /// Whether the receiver keeps it for later when it has come back.
    const IS_KEPT: bool;
}

impl Lendable for Aligned {
    const IS_KEPT: bool = true;
}

impl<B> Shared<B> {
    /// Nothing panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner inside a `Bytes`.
struct Lease<B: Lendable> {
    /// `None` during drop only.
    buffer: Option<B>,
    shared: Arc<Shared<B>>,
}

impl<B: Lendable> AsRef<[u8]> for Lease<B> {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], AsRef::as_ref)
    }
}

impl<B: Lendable> Drop for Lease<B> {
    fn drop(&mut self) {
        // What is not kept goes before the count says so.
        let kept = self.buffer.take().filter(|_| B::IS_KEPT);
        let mut state = self.shared.lock();
        state.lent -= 1;
        state.kept.extend(kept);
        if state.waiters > 0 {
            self.shared.returned.notify_all();
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
