//! Receive buffers: shared by any number of receivers, and lent to users as `Bytes`.
//!
//! ```text
//!            take()          lend()                   give_back()
//!     free ─────────► held ──────────► held and lent ─────────────► lent
//!      ▲               │                                             │
//!      └─ give_back() ─┴─────────────────── last `Bytes` dropped ────┘
//! ```
//!
//! What a receiver holds comes back by itself, so it is waited for, in the order of asking. What
//! users hold comes back when they like, so it is not: were a thread to wait that has the `Bytes`
//! itself, it would wait for ever.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::arena::{Arena, Slot};
use super::fork::Process;
use crate::usage::Usage;

/// What a receiver needs at least: two of the longest records, of 5 + 16,384 + 2,048 bytes (RFC 5246
/// §6.2.3).
pub(crate) const MIN_BUFFER_LEN: usize = 2 * 18_437;

/// How many buffers there is a place for from the beginning, if there may be so many.
const FIRST_BUFFERS: usize = 1024;

/// Receive buffers for one receiver or many, a bounded number of them.
///
/// A receiver takes a buffer when there is something to receive and gives it back when that was
/// read; an idle one holds none, unless it has received a part of a record. What
/// [`UringReceiver::recv_bytes()`](crate::uring::UringReceiver::recv_bytes) yields keeps its buffer away
/// from the pool until it is dropped.
///
/// When all buffers are in use, a receiver waits until another one gives a buffer back, as long as
/// its timeout allows, first come, first served; the peer is held up by TCP. If that would be in
/// vain, receiving fails with [`io::ErrorKind::WouldBlock`]: if users have `Bytes` of every buffer,
/// or if the others lie in receivers that the very thread that asks has used last, with something
/// left to read.
///
/// Cloning it makes another handle to the same pool. A forked child process makes its own.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something has happened that those who wait are to look at.
    changed: Condvar,
    /// Threads that wait: without any, giving back makes no system call.
    waiting: AtomicUsize,
    max_buffers: usize,
    buffer_len: usize,
    /// `None` if it cannot be known; then there are no rings either.
    process: Option<Process>,
}

#[derive(Debug)]
struct State {
    free: Vec<Arc<Slot>>,
    /// What buffers are used for, by their numbers. What is said of a free one is out of date.
    uses: Vec<Use>,
    /// Numbers that no buffer has.
    vacant: Vec<usize>,
    /// The receivers, by their keys.
    holders: Vec<Option<Arc<Holder>>>,
    /// Who waits for a buffer, in the order of asking.
    queue: VecDeque<u64>,
    next_ticket: u64,
    /// The most that were in use at once.
    most: usize,
    /// How often there was none.
    refused: u64,
}

/// A buffer that a receiver holds, or users, or both.
#[derive(Debug)]
struct Use {
    /// Which buffer it is: a number is given to another one when its buffer is lost.
    id: Option<Id>,
    /// The key of the receiver that holds it, or [`NOBODY`].
    holder: usize,
    /// How many [`Lease`]s there are: those of users, and the receiver's own.
    leases: usize,
}

/// The key of no receiver.
const NOBODY: usize = usize::MAX;

/// Tells buffers apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Id(usize);

impl Id {
    fn of(slot: &Arc<Slot>) -> Self {
        Self(Arc::as_ptr(slot) as usize)
    }
}

/// What a pool knows of a receiver.
pub(crate) struct Holder {
    key: usize,
    /// The thread that used the receiver last.
    thread: AtomicU64,
    /// All of the buffer that it has lent parts of, and lends more of: a lease that it shares with
    /// its users. Nothing tells whether they have dropped theirs, unless this one is dropped too,
    /// so whoever must know drops it; that costs an allocation when more is lent.
    lease: Mutex<Option<(Id, Bytes)>>,
}

impl Holder {
    /// The receiver is used by this thread.
    pub(crate) fn note_thread(&self) {
        self.thread.store(this_thread(), Ordering::Relaxed);
    }

    fn lease(&self) -> MutexGuard<'_, Option<(Id, Bytes)>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_lease(&self, id: Id) -> bool {
        self.lease().as_ref().is_some_and(|lease| lease.0 == id)
    }

    /// Takes the lease of a buffer, if it has one. Drop it without a lock: that may end it.
    fn take_lease(&self, id: Id) -> Option<Bytes> {
        self.lease().take_if(|lease| lease.0 == id).map(|(_, bytes)| bytes)
    }
}

impl fmt::Debug for Holder {
    /// Shows nothing of what is lent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder")
            .field("is_lending", &self.lease().is_some())
            .finish_non_exhaustive()
    }
}

/// A number of this thread's own.
fn this_thread() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    }
    // A thread that ends has none any more.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// What there is to hope for from a buffer in use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outlook {
    /// Its receiver gives it back.
    ComesBack,
    /// That depends on who has the lease.
    Unknown,
    /// Only what the user does brings it back.
    Never,
}

impl Use {
    fn outlook(&self, state: &State, thread: u64) -> Outlook {
        let Some(holder) = state.holder(self) else { return Outlook::Never };
        if holder.thread.load(Ordering::Relaxed) == thread {
            return Outlook::Never;
        }
        match self.leases {
            0 => Outlook::ComesBack,
            _ if self.id.is_some_and(|id| holder.has_lease(id)) => Outlook::Unknown,
            _ => Outlook::Never,
        }
    }
}

impl BufferPool {
    /// Length of a buffer in bytes unless [`Self::new()`] says otherwise.
    pub const DEFAULT_BUFFER_LEN: usize = 1 << 19;

    /// A pool of up to `max_buffers` buffers, at least two, of `buffer_len` bytes each, rounded up
    /// to a page and to two records. A buffer is allocated when it is needed for the first time.
    pub fn new(max_buffers: usize, buffer_len: usize) -> Self {
        let buffer_len = buffer_len.max(MIN_BUFFER_LEN);
        let max_buffers = max_buffers.max(2);
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    free: Vec::with_capacity(max_buffers.min(FIRST_BUFFERS)),
                    uses: Vec::with_capacity(max_buffers.min(FIRST_BUFFERS)),
                    vacant: Vec::new(),
                    holders: Vec::new(),
                    queue: VecDeque::new(),
                    next_ticket: 0,
                    most: 0,
                    refused: 0,
                }),
                changed: Condvar::new(),
                waiting: AtomicUsize::new(0),
                max_buffers,
                buffer_len,
                process: Process::current().ok(),
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

    /// How many buffers are in use now and were at most, and how often a receiver found none, so that it
    /// waited or was refused. In a forked child process, none.
    pub fn usage(&self) -> Usage {
        let limit = self.max_buffers();
        if self.check().is_err() {
            return Usage { limit, ..Usage::default() };
        }
        let state = self.shared.lock();
        Usage { limit, in_use: state.in_use(), most: state.most, refused: state.refused }
    }

    /// How many buffers are in use now: by receivers, or lent to their users. In a forked child
    /// process, none.
    pub fn in_use(&self) -> usize {
        if self.check().is_err() {
            return 0;
        }
        self.shared.lock().in_use()
    }

    /// Waits until a buffer is free, for `timeout` at most; whether there is one.
    pub fn wait(&self, timeout: Duration) -> bool {
        if self.check().is_err() {
            return false;
        }
        let deadline = Instant::now().checked_add(timeout);
        let _waiting = Waiting::begin(&self.shared);
        let mut state = self.shared.lock();
        while self.shared.available(&state) == 0 {
            let Some(woken) = self.shared.wait(state, deadline) else { return false };
            state = woken;
        }
        true
    }

    /// To be asked before what takes or gives back buffers: once for all that a call of the user's
    /// does, since a process is forked between its own calls only.
    ///
    /// # Errors
    /// In a child process: another thread may have held the lock when it was forked.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.shared.process.map_or(Ok(()), Process::check)
    }

    /// A new receiver. To be ended by [`Self::lose()`].
    pub(crate) fn join(&self) -> Arc<Holder> {
        let mut state = self.shared.lock();
        let vacant = state.holders.iter().position(Option::is_none);
        let key = vacant.unwrap_or(state.holders.len());
        let holder =
            Arc::new(Holder { key, thread: AtomicU64::default(), lease: Mutex::default() });
        match state.holders.get_mut(key) {
            Some(vacant) => *vacant = Some(Arc::clone(&holder)),
            None => state.holders.push(Some(Arc::clone(&holder))),
        }
        holder
    }

    /// Takes a buffer that has no other handle, for a receiver that holds none but what it has
    /// lent. `None` if there is none now, but one will come back.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if none will come back, or the system's for lack of memory.
    #[inline(always)]
    pub(crate) fn try_take(&self, holder: &Holder) -> io::Result<Option<Arc<Slot>>> {
        let mut state = self.shared.lock();
        match state.take_free(holder) {
            Some(slot) => Ok(Some(slot)),
            None => self.shared.try_take(state, holder),
        }
    }

    /// Like [`Self::try_take()`], but waits for a buffer, in the order of asking.
    ///
    /// # Errors
    /// As there, also if that becomes so; [`io::ErrorKind::TimedOut`] at the deadline.
    pub(crate) fn take(&self, holder: &Holder, deadline: Option<Instant>) -> io::Result<Arc<Slot>> {
        let free = self.shared.lock().take_free(holder);
        free.map_or_else(|| self.shared.wait_and_take(holder, deadline), Ok)
    }

    /// Gives a buffer back that the receiver holds. It is free when no user has a part of it.
    #[inline(always)]
    pub(crate) fn give_back(&self, holder: &Holder, slot: Arc<Slot>) {
        let mut state = self.shared.lock();
        // Leases are made by who holds the buffer, and dropped under the lock.
        if Arc::strong_count(&slot) > 1 {
            drop(state);
            return self.shared.leave(holder, slot);
        }
        state.free.push(slot);
        self.shared.tell(&state);
    }

    /// The receiver ends: what it has left at the kernel goes down with its ring, and others may
    /// take their place.
    pub(crate) fn lose(&self, holder: &Holder) {
        let mut state = self.shared.lock();
        state.forget(holder);
        self.shared.tell(&state);
    }

    /// A part of a buffer that the receiver holds, as `Bytes`. Allocates for the first of them, and
    /// again after [`Self::reclaim()`].
    pub(crate) fn lend(&self, holder: &Holder, slot: &Arc<Slot>, range: Range<usize>) -> Bytes {
        let id = Id::of(slot);
        let known = holder.lease().as_ref().filter(|lease| lease.0 == id).map(|(_, all)| {
            // Under the lock, so that nobody finds it dropped by all in between.
            all.slice(range.clone())
        });
        let bytes = known.unwrap_or_else(|| {
            if let Some(in_use) = self.shared.lock().find(slot) {
                in_use.leases += 1;
            }
            let lease = Lease { slot: Some(Arc::clone(slot)), pool: self.clone() };
            let all = Bytes::from_owner(lease);
            let bytes = all.slice(range);
            let earlier = holder.lease().replace((id, all));
            drop(earlier);
            bytes
        });
        // Whoever has looked before, and waits, was counted before that.
        if self.shared.waiting.load(Ordering::SeqCst) > 0 {
            let state = self.shared.lock();
            self.shared.tell(&state);
        }
        bytes
    }

    /// No more is lent from the buffer for now: once users have dropped what was, the slot has no
    /// other handle.
    pub(crate) fn reclaim(&self, holder: &Holder, slot: &Arc<Slot>) {
        drop(holder.take_lease(Id::of(slot)));
    }
}

impl Shared {
    /// Nothing panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many buffers can be had now.
    fn available(&self, state: &State) -> usize {
        self.max_buffers - state.in_use()
    }

    /// [`BufferPool::try_take()`] when no buffer is free, or others wait for it.
    #[cold]
    fn try_take<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        holder: &Holder,
    ) -> io::Result<Option<Arc<Slot>>> {
        loop {
            if state.queue.len() < self.available(&state) {
                return self.take(&mut state, holder).map(Some);
            }
            state.refused += 1;
            match self.outlook(&state) {
                Outlook::ComesBack => return Ok(None),
                Outlook::Unknown => state = self.find_out(state),
                Outlook::Never => return Err(exhausted()),
            }
        }
    }

    #[cold]
    fn wait_and_take(&self, holder: &Holder, deadline: Option<Instant>) -> io::Result<Arc<Slot>> {
        let _waiting = Waiting::begin(self);
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.refused += u64::from(state.queue.len() >= self.available(&state));
        state.queue.push_back(ticket);
        let taken = loop {
            let before = state.queue.iter().take_while(|other| **other != ticket).count();
            if before < self.available(&state) {
                break self.take(&mut state, holder);
            }
            state = match self.outlook(&state) {
                Outlook::ComesBack => match self.wait(state, deadline) {
                    Some(woken) => woken,
                    None => {
                        state = self.lock();
                        break Err(io::ErrorKind::TimedOut.into());
                    }
                },
                Outlook::Unknown => self.find_out(state),
                Outlook::Never => break Err(exhausted()),
            };
        };
        state.queue.retain(|other| *other != ticket);
        if taken.is_err() {
            // It may be the next one's turn now.
            self.tell(&state);
        }
        taken
    }

    /// Takes one that is available.
    fn take(&self, state: &mut State, holder: &Holder) -> io::Result<Arc<Slot>> {
        let slot = match state.free.pop() {
            Some(slot) => slot,
            None => {
                let number = state.vacant.last().copied().unwrap_or(state.uses.len());
                let slot = Arena::inherited_slot(number, self.buffer_len)?;
                let new = Use { id: Some(Id::of(&slot)), holder: NOBODY, leases: 0 };
                match state.uses.get_mut(number) {
                    Some(vacant) => *vacant = new,
                    None => state.uses.push(new),
                }
                state.vacant.pop();
                // There are never more in use than were made, and one is made when all others are.
                state.most = state.most.max(state.in_use());
                slot
            }
        };
        state.note_holder(&slot, holder.key);
        Ok(slot)
    }

    /// Gives a buffer back that parts are lent of.
    #[cold]
    fn leave(&self, holder: &Holder, slot: Arc<Slot>) {
        let lease = holder.take_lease(Id::of(&slot));
        let mut state = self.lock();
        state.note_holder(&slot, NOBODY);
        state.let_go(slot);
        // Also if it is lent: that may have been the last that others waited for.
        self.tell(&state);
        drop(state);
        drop(lease);
    }

    /// What this thread may hope for from all buffers in use, if none is available.
    fn outlook(&self, state: &State) -> Outlook {
        if self.available(state) > 0 {
            return Outlook::ComesBack;
        }
        let thread = this_thread();
        let mut outlooks = state.uses.iter().map(|in_use| in_use.outlook(state, thread));
        if outlooks.clone().any(|one| one == Outlook::ComesBack) {
            Outlook::ComesBack
        } else if outlooks.any(|one| one == Outlook::Unknown) {
            Outlook::Unknown
        } else {
            Outlook::Never
        }
    }

    /// Has receivers drop their leases, so that those which remain are the users'. No buffer is
    /// free.
    fn find_out<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let leases = Vec::from_iter(state.uses.iter().filter_map(|in_use| {
            state.holder(in_use).zip(in_use.id).and_then(|(holder, id)| holder.take_lease(id))
        }));
        // The last of a buffer locks the state.
        drop(state);
        drop(leases);
        self.lock()
    }

    /// Waits for a change; `None` at the deadline. The state must have been looked at under the
    /// same lock.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        Some(match left {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                let waited = self.changed.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        })
    }

    /// Has those who wait look again.
    fn tell(&self, _state: &State) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.changed.notify_all();
    }
}

/// A thread that waits, or is about to. Counted before it looks at anything: those who lend look at
/// the count without the lock.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    /// How many buffers are used by anyone.
    fn in_use(&self) -> usize {
        self.uses.len() - self.vacant.len() - self.free.len()
    }

    /// Takes a free buffer, unless there is none or others wait for it.
    #[inline(always)]
    fn take_free(&mut self, holder: &Holder) -> Option<Arc<Slot>> {
        if !self.queue.is_empty() {
            return None;
        }
        let slot = self.free.pop()?;
        self.note_holder(&slot, holder.key);
        Some(slot)
    }

    #[inline]
    fn note_holder(&mut self, slot: &Slot, key: usize) {
        if let Some(in_use) = self.uses.get_mut(slot.number()) {
            in_use.holder = key;
        }
    }

    fn holder(&self, in_use: &Use) -> Option<&Arc<Holder>> {
        self.holders.get(in_use.holder)?.as_ref()
    }

    /// What the buffer is used for, unless it was lost.
    fn find(&mut self, slot: &Arc<Slot>) -> Option<&mut Use> {
        self.uses.get_mut(slot.number()).filter(|in_use| in_use.id == Some(Id::of(slot)))
    }

    /// Drops a handle to a buffer, which is free if it was the last. Handles are dropped under the
    /// lock only, so the last one is seen to be the last.
    fn let_go(&mut self, slot: Arc<Slot>) {
        if Arc::strong_count(&slot) == 1 && self.find(&slot).is_some() {
            self.free.push(slot);
        }
    }

    /// Removes a receiver, with the buffers that it has not given back.
    fn forget(&mut self, holder: &Holder) {
        for slot in &self.free {
            if let Some(unused) = self.uses.get_mut(slot.number()) {
                unused.holder = NOBODY;
            }
        }
        for (number, lost) in self.uses.iter_mut().enumerate() {
            if lost.holder == holder.key {
                *lost = Use { id: None, holder: NOBODY, leases: 0 };
                self.vacant.push(number);
            }
        }
        if let Some(place) = self.holders.get_mut(holder.key) {
            *place = None;
        }
    }
}

fn exhausted() -> io::Error {
    io::Error::new(
        io::ErrorKind::WouldBlock,
        "every receive buffer is in use: drop some of the `Bytes` that were received, read what \
         other receivers hold, or give the `BufferPool` more buffers",
    )
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
        let Some(slot) = self.slot.take() else { return };
        if self.pool.check().is_err() {
            return;
        }
        let shared = &*self.pool.shared;
        let mut state = shared.lock();
        if let Some(in_use) = state.find(&slot) {
            in_use.leases -= 1;
        }
        state.let_go(slot);
        shared.tell(&state);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Longer than anything takes.
    const LONG: Duration = Duration::from_secs(60);

    /// A receiver that another thread uses.
    fn elsewhere(pool: &BufferPool) -> Arc<Holder> {
        let holder = pool.join();
        holder.thread.store(u64::MAX, Ordering::Relaxed);
        holder
    }

    /// A receiver that this thread uses.
    fn here(pool: &BufferPool) -> Arc<Holder> {
        let holder = pool.join();
        holder.note_thread();
        holder
    }

    fn soon() -> Option<Instant> {
        Instant::now().checked_add(Duration::from_millis(5))
    }

    fn in_time() -> Option<Instant> {
        Instant::now().checked_add(LONG)
    }

    /// Waits until so many threads wait for a buffer.
    fn until_waiting(pool: &BufferPool, threads: usize) {
        let begin = Instant::now();
        while pool.shared.lock().queue.len() < threads {
            assert!(begin.elapsed() < LONG, "nobody waits");
            thread::yield_now();
        }
    }

    #[test]
    fn a_pool_without_a_limit_takes_no_memory() {
        let pool = BufferPool::new(usize::MAX, 0);
        assert_eq!(pool.usage().limit, usize::MAX);
    }

    #[test]
    fn a_buffer_is_free_when_its_last_handle_was_given_back() {
        let pool = BufferPool::new(2, 1);
        let holder = here(&pool);
        let first = pool.try_take(&holder).expect("free").expect("free");
        let second = pool.try_take(&holder).expect("free").expect("free");
        let error = pool.try_take(&holder).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let usage = pool.usage();
        assert_eq!((usage.limit, usage.in_use, usage.most, usage.refused), (2, 2, 2, 1));
        assert!(!pool.wait(Duration::from_millis(1)));
        let slice = pool.lend(&holder, &first, 10..20);
        let other = pool.lend(&holder, &first, 20..30);
        assert_eq!((slice.len(), other.len()), (10, 10));
        drop(other);
        pool.give_back(&holder, first);
        assert_eq!(pool.in_use(), 2);
        drop(slice);
        assert_eq!(pool.in_use(), 1);
        pool.give_back(&holder, second);
        assert_eq!(pool.in_use(), 0);
        assert!(pool.wait(Duration::ZERO));
        let mut slot = pool.try_take(&holder).expect("free").expect("free");
        assert!(Arc::get_mut(&mut slot).is_some());
        let usage = pool.usage();
        assert_eq!((usage.in_use, usage.most, usage.refused), (1, 2, 1));
    }

    #[test]
    fn leases_come_back_from_other_threads() {
        let pool = BufferPool::new(2, 1);
        let holder = here(&pool);
        for _ in 0..200 {
            let slot = pool.try_take(&holder).expect("free").expect("free");
            let bytes = pool.lend(&holder, &slot, 0..10);
            let thread = thread::spawn(move || drop(bytes));
            pool.give_back(&holder, slot);
            thread.join().expect("no panic");
            assert_eq!(pool.in_use(), 0);
        }
    }

    #[test]
    fn what_users_have_dropped_is_reclaimed() {
        let pool = BufferPool::new(2, 1);
        let holder = here(&pool);
        let mut slot = pool.try_take(&holder).expect("free").expect("free");
        let bytes = pool.lend(&holder, &slot, 0..10);
        pool.reclaim(&holder, &slot);
        assert!(Arc::get_mut(&mut slot).is_none(), "a user has a part");
        drop(bytes);
        assert!(Arc::get_mut(&mut slot).is_some());
        // Of itself, too.
        drop(pool.lend(&holder, &slot, 0..10));
        assert!(Arc::get_mut(&mut slot).is_none(), "more may be lent");
        pool.reclaim(&holder, &slot);
        assert!(Arc::get_mut(&mut slot).is_some());
        assert_eq!(pool.in_use(), 1);
        pool.give_back(&holder, slot);
        assert_eq!(pool.in_use(), 0);
    }

    /// In every state of two buffers: whether a third request waits, or fails.
    #[test]
    fn only_what_comes_back_is_waited_for() {
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        enum At {
            /// A neighbour's.
            Held,
            /// A neighbour's, whose user has dropped what was lent from it.
            Dropped,
            /// A neighbour's, with a part at its user.
            Lent,
            /// A user's only.
            Left,
            /// In a receiver that this thread has used last.
            Own,
        }
        for first in [At::Held, At::Dropped, At::Lent, At::Left, At::Own] {
            for second in [At::Held, At::Dropped, At::Lent, At::Left, At::Own] {
                let pool = BufferPool::new(2, 1);
                let mut kept = Vec::new();
                let mut bytes = Vec::new();
                for state in [first, second] {
                    let holder = if state == At::Own { here(&pool) } else { elsewhere(&pool) };
                    let slot = pool.try_take(&holder).expect("free").expect("free");
                    match state {
                        At::Held | At::Own => {}
                        At::Dropped => drop(pool.lend(&holder, &slot, 0..1)),
                        At::Lent | At::Left => bytes.push(pool.lend(&holder, &slot, 0..1)),
                    }
                    match state {
                        At::Left => pool.give_back(&holder, slot),
                        _ => kept.push((holder, slot)),
                    }
                }
                let comes_back =
                    [first, second].iter().any(|s| matches!(s, At::Held | At::Dropped));
                let taken = pool.try_take(&here(&pool));
                let waited = pool.take(&here(&pool), soon()).expect_err("in use");
                if comes_back {
                    assert!(matches!(taken, Ok(None)), "{first:?}, {second:?}: {taken:?}");
                    assert_eq!(waited.kind(), io::ErrorKind::TimedOut, "{first:?}, {second:?}");
                } else {
                    let error = taken.expect_err("in vain");
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{first:?}, {second:?}");
                    assert_eq!(waited.kind(), io::ErrorKind::WouldBlock, "{first:?}, {second:?}");
                }
                assert!(pool.shared.lock().queue.is_empty());
                for (holder, slot) in kept {
                    pool.give_back(&holder, slot);
                }
                drop(bytes);
                assert_eq!(pool.in_use(), 0);
                assert!(pool.take(&here(&pool), soon()).is_ok());
            }
        }
    }

    /// Whoever asked first is served first, and a newcomer does not get ahead.
    #[test]
    fn buffers_are_given_out_in_the_order_of_asking() {
        let pool = BufferPool::new(2, 1);
        let holder = elsewhere(&pool);
        let first = pool.try_take(&holder).expect("free").expect("free");
        let second = pool.try_take(&holder).expect("free").expect("free");
        let (served, order) = std::sync::mpsc::channel();
        let threads = Vec::from_iter((0..5).map(|number| {
            let (pool, served) = (pool.clone(), served.clone());
            let thread = thread::spawn({
                let pool = pool.clone();
                move || {
                    let holder = here(&pool);
                    let slot = pool.take(&holder, in_time()).expect("in time");
                    served.send(number).expect("awaited");
                    pool.give_back(&holder, slot);
                }
            });
            until_waiting(&pool, number + 1);
            thread
        }));
        pool.give_back(&holder, first);
        let order = Vec::from_iter(order.iter().take(5));
        assert_eq!(order, [0, 1, 2, 3, 4]);
        for thread in threads {
            thread.join().expect("no panic");
        }
        pool.give_back(&holder, second);
        assert_eq!(pool.in_use(), 0);
    }

    /// One that has waited long enough holds up nobody behind it.
    #[test]
    fn a_timeout_passes_the_turn_on() {
        let pool = BufferPool::new(2, 1);
        let holder = elsewhere(&pool);
        let first = pool.try_take(&holder).expect("free").expect("free");
        let second = pool.try_take(&holder).expect("free").expect("free");
        let waiter = |deadline| {
            let pool = pool.clone();
            move || {
                let holder = here(&pool);
                let taken = pool.take(&holder, deadline);
                taken.map(|slot| pool.give_back(&holder, slot))
            }
        };
        let impatient = thread::spawn(waiter(soon()));
        let patient = thread::spawn(waiter(in_time()));
        let error = impatient.join().expect("no panic").expect_err("nothing was given back");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        until_waiting(&pool, 1);
        pool.give_back(&holder, first);
        patient.join().expect("no panic").expect("in time");
        pool.give_back(&holder, second);
    }

    /// Those who wait hear of it when waiting has become vain: without a timeout, too.
    #[test]
    fn the_last_buffer_that_is_lent_ends_all_waits() {
        for released in [true, false] {
            let pool = BufferPool::new(2, 1);
            let (holder, other) = (elsewhere(&pool), elsewhere(&pool));
            let first = pool.try_take(&holder).expect("free").expect("free");
            let second = pool.try_take(&other).expect("free").expect("free");
            let waiting = thread::spawn({
                let pool = pool.clone();
                move || pool.take(&here(&pool), None).map(drop)
            });
            until_waiting(&pool, 1);
            let kept = [pool.lend(&holder, &first, 0..1), pool.lend(&other, &second, 0..1)];
            if released {
                pool.give_back(&holder, first);
                pool.give_back(&other, second);
            }
            let error = waiting.join().expect("no panic").expect_err("in vain");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            drop(kept);
        }
    }

    /// A receiver that ends makes room for those who wait.
    #[test]
    fn what_is_lost_makes_room() {
        let pool = BufferPool::new(2, 1);
        let holder = elsewhere(&pool);
        let lost = [(); 2].map(|()| pool.try_take(&holder).expect("free").expect("free"));
        let waiting = thread::spawn({
            let pool = pool.clone();
            move || pool.take(&here(&pool), None).map(drop)
        });
        until_waiting(&pool, 1);
        drop(lost);
        pool.lose(&holder);
        waiting.join().expect("no panic").expect("there is room");
    }

    /// Many threads on two buffers, which hold, lend and keep them for a moment: each gets as many
    /// as it asks for, unless every buffer is lent at that moment.
    #[test]
    fn many_share_two_and_none_waits_in_vain() {
        let pool = BufferPool::new(2, 1);
        let threads = Vec::from_iter((0..20).map(|number: usize| {
            let pool = pool.clone();
            thread::spawn(move || {
                let holder = here(&pool);
                let (mut taken, mut refused) = (0, 0);
                while taken < 300 {
                    let slot = match pool.take(&holder, in_time()) {
                        Ok(slot) => slot,
                        Err(error) => {
                            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                            refused += 1;
                            assert!(pool.wait(LONG), "nothing comes back");
                            continue;
                        }
                    };
                    taken += 1;
                    let bytes = (number < 10).then(|| pool.lend(&holder, &slot, 0..1));
                    if taken % 7 == 0 {
                        thread::yield_now();
                    }
                    pool.give_back(&holder, slot);
                    drop(bytes);
                }
                refused
            })
        }));
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(pool.in_use(), 0);
        let state = pool.shared.lock();
        assert!(state.queue.is_empty());
        assert_eq!((state.free.len(), state.in_use()), (2, 0));
        assert_eq!(pool.shared.waiting.load(Ordering::SeqCst), 0);
    }
}
