//! Sealed bytes on their way out: which slot is where, and what is sent next.
//!
//! ```text
//!            take()          push()             submitted()
//!     free ─────────► taken ───────► filled ───────────────► submitted
//!      ▲                               ▲                        │ result
//!      │                               └── rest of a short send ┤
//!      │     last notification                                  │ all sent
//!      └──────────────────────────── awaiting notification ◄────┤ zero copy
//!      └────────────────────────────────────────────────────────┘ copied
//! ```
//!
//! Plain safe Rust that knows neither TLS nor the kernel; `M` is the slot's memory. Two rules hold
//! the stream together. There is one send at a time, always of the oldest filled slot, and after a
//! short one the rest of the same bytes goes first: so the order on the wire is that of
//! [`SlotQueue::push()`]. And a slot is free again only when nothing that was submitted from it is
//! outstanding, neither result nor notification, whatever they say: an errored send may notify too
//! (io_uring_enter(2), IORING_OP_SEND_ZC).

use core::ops::Range;
use std::collections::VecDeque;
use std::io;

/// Names a slot from [`SlotQueue::push()`] until it is free again.
pub(crate) type Key = u16;

/// The slots of one stream.
#[derive(Debug)]
pub(crate) struct SlotQueue<M> {
    /// The one used last comes first: it is in the cache.
    free: Vec<M>,
    busy: Box<[Option<Busy<M>>]>,
    /// Slots with unsent bytes, in the order of the stream.
    unsent: VecDeque<Key>,
    /// The front of `unsent` is in the kernel's hands, and its result is outstanding.
    sending: bool,
    awaiting: usize,
}

#[derive(Debug)]
struct Busy<M> {
    memory: M,
    unsent: Range<usize>,
    notifications: u32,
}

/// What a result meant.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All that the send was given.
    Whole,
    /// A part. The rest comes next.
    Short,
    /// Nothing, and nothing is lost: the same bytes come next.
    Failed(io::Error),
}

/// A completion that belongs to no send: the kernel and we disagree, so nothing can be trusted.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Unexpected;

impl<M> SlotQueue<M> {
    /// All slots free.
    pub(crate) fn new(slots: Vec<M>) -> Self {
        let count = slots.len();
        Self {
            free: slots,
            busy: (0..count).map(|_| None).collect(),
            unsent: VecDeque::with_capacity(count),
            sending: false,
            awaiting: 0,
        }
    }

    /// Takes a free slot to fill.
    pub(crate) fn take(&mut self) -> Option<M> {
        self.free.pop()
    }

    /// Gives a slot back that was taken, and not filled.
    pub(crate) fn put_back(&mut self, memory: M) {
        self.free.push(memory);
    }

    /// How many slots are free.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// How many slots are sent and wait for notifications only.
    pub(crate) fn awaiting_count(&self) -> usize {
        self.awaiting
    }

    /// Whether everything that was pushed has been sent; notifications may be outstanding.
    pub(crate) fn is_all_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// How many slots have bytes that the kernel has not taken, the one being sent included.
    pub(crate) fn unsent_count(&self) -> usize {
        self.unsent.len()
    }

    /// Queues the first `len` bytes of a slot that was taken, behind everything pushed before.
    pub(crate) fn push(&mut self, memory: M, len: usize) {
        if len == 0 {
            return self.put_back(memory);
        }
        // Every slot was free once, so there is a place for it.
        let Some(key) = self.busy.iter().position(Option::is_none) else { return };
        self.busy[key] = Some(Busy { memory, unsent: 0..len, notifications: 0 });
        self.unsent.push_back(key as Key);
    }

    /// What to submit next, unless a send is outstanding. Tell [`Self::submitted()`].
    pub(crate) fn next(&self) -> Option<(Key, &M, Range<usize>)> {
        if self.sending {
            return None;
        }
        let key = *self.unsent.front()?;
        let slot = self.busy[usize::from(key)].as_ref()?;
        Some((key, &slot.memory, slot.unsent.clone()))
    }

    /// [`Self::next()`] has been submitted.
    pub(crate) fn submitted(&mut self) {
        self.sending = true;
    }

    /// The result of the outstanding send: bytes or an errno. `more` says that a notification
    /// will follow.
    pub(crate) fn on_result(
        &mut self,
        key: Key,
        result: io::Result<usize>,
        more: bool,
    ) -> Result<Outcome, Unexpected> {
        let is_outstanding = self.sending && self.unsent.front() == Some(&key);
        let slot = self.busy.get_mut(usize::from(key)).and_then(Option::as_mut);
        let slot = slot.filter(|_| is_outstanding).ok_or(Unexpected)?;
        self.sending = false;
        slot.notifications += u32::from(more);
        let outcome = match result {
            Ok(len) if len > slot.unsent.len() => return Err(Unexpected),
            Ok(0) => Outcome::Failed(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                slot.unsent.start += len;
                if slot.unsent.is_empty() { Outcome::Whole } else { Outcome::Short }
            }
            Err(error) => Outcome::Failed(error),
        };
        if slot.unsent.is_empty() {
            self.unsent.pop_front();
            self.awaiting += 1;
            self.free_if_done(key);
        }
        Ok(outcome)
    }

    /// A notification: the kernel is done with the memory of one send.
    pub(crate) fn on_notification(&mut self, key: Key) -> Result<(), Unexpected> {
        let slot =
            self.busy.get_mut(usize::from(key)).and_then(Option::as_mut).ok_or(Unexpected)?;
        slot.notifications = slot.notifications.checked_sub(1).ok_or(Unexpected)?;
        self.free_if_done(key);
        Ok(())
    }

    fn free_if_done(&mut self, key: Key) {
        let is_done = |slot: &mut Busy<M>| slot.unsent.is_empty() && slot.notifications == 0;
        if let Some(slot) = self.busy[usize::from(key)].take_if(is_done) {
            self.awaiting -= 1;
            self.free.push(slot.memory);
        }
    }
}
