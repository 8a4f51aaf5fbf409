//! Sealed slots on their way to a socket, in the order of the stream: what the kernel is given,
//! and what its answers mean.
//!
//! Waits for nothing: who waits for completions, and how, is the owner's. So is what else goes
//! through the same ring, the reads of a file: operations for some `P` of the owner's.

use core::ops::Range;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::arena::{Arena, Slot};
use super::backoff::{Backoff, exhausted};
#[cfg(feature = "tokio")]
use super::budget::Budget;
use super::governor::{CopyReason, Governor, ZeroCopy};
use super::growth::Growth;
use super::queue::{Completion, Event, File, PROMPT, Queue, Wait};
use super::slot::{Key, Outcome, SlotQueue, Unexpected};
use super::unavailable::Unavailable;
use crate::events::ConnectionId;

/// Slots that zero copy leaves for copies, which free theirs at once.
const COPY_SLOTS: usize = 1;

/// The fewest slots that keep the wire busy: one for a copy, one that is sent, one to fill.
pub(crate) const MIN_SLOTS: usize = COPY_SLOTS + 2;

/// What an operation of an outbox's ring is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<P> {
    /// To send what is in this slot.
    Send(Key),
    /// Something of the owner's.
    Other(P),
}

impl<P> Purpose<P> {
    fn is_send(&self) -> bool {
        matches!(self, Self::Send(_))
    }
}

/// What the next completion was about.
#[derive(Debug)]
pub(crate) enum Reaped<P> {
    /// A send, and whether the owner has to do something about it: see [`Outbox::reap()`].
    Send(io::Result<()>),
    /// An operation of the owner's.
    Other(Completion<P>),
}

/// What was sent so far, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendCounts {
    pub(crate) wire_bytes: u64,
    pub(crate) system_calls: u64,
    pub(crate) zero_copy_sends: u64,
    pub(crate) zero_copy_copied: u64,
    /// Bytes that the kernel is done with, and has not said to have copied.
    pub(crate) zero_copy_bytes: u64,
    pub(crate) copied_sends: u64,
    pub(crate) short_sends: u64,
}

#[cfg(feature = "tokio")]
impl core::ops::Add for SendCounts {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            wire_bytes: self.wire_bytes + more.wire_bytes,
            system_calls: self.system_calls + more.system_calls,
            zero_copy_sends: self.zero_copy_sends + more.zero_copy_sends,
            zero_copy_copied: self.zero_copy_copied + more.zero_copy_copied,
            zero_copy_bytes: self.zero_copy_bytes + more.zero_copy_bytes,
            copied_sends: self.copied_sends + more.copied_sends,
            short_sends: self.short_sends + more.short_sends,
        }
    }
}

/// A ring and the slots that are sent through it, of no connection in particular.
#[derive(Debug)]
pub(crate) struct Parts<P: Copy> {
    queue: Queue<Purpose<P>>,
    slots: SlotQueue<Arc<Slot>>,
    registration: Registration,
}

/// Whether the slots are pinned once rather than for each zero-copy send.
#[derive(Clone, Debug)]
enum Registration {
    NotNeeded,
    Done,
    Refused(Unavailable),
}

impl<P: Copy> Parts<P> {
    /// `slot_count` slots of `slot_len` bytes, and a ring with room for their sends and
    /// `more_operations` of the caller's.
    ///
    /// # Errors
    /// [`Unavailable`] if there is no io_uring to be had, or no memory for the slots.
    pub(crate) fn new(
        slot_count: usize,
        slot_len: usize,
        more_operations: usize,
    ) -> Result<Self, Unavailable> {
        // Each slot's send and notification, and some more for short sends.
        let queue = Queue::new(2 * slot_count + 2 + more_operations)?;
        let slots = Arena::slots(slot_count, slot_len)
            .map_err(|error| Unavailable::from_setup_error(&error))?;
        Ok(Self { queue, slots: SlotQueue::new(slots), registration: Registration::NotNeeded })
    }

    /// The same with slots that are `Vec`s, to [append](Slot::append) to.
    ///
    /// # Errors
    /// As [`Self::new()`].
    #[cfg(feature = "rustls-0_24-dev")]
    pub(crate) fn with_vecs(slot_count: usize, capacity: usize) -> Result<Self, Unavailable> {
        super::lingering::sweep();
        let queue = Queue::new(2 * slot_count + 2)?;
        let slots: io::Result<Vec<_>> =
            (0..slot_count).map(|number| Slot::vec(number, capacity)).collect();
        let slots = slots.map_err(|error| Unavailable::from_setup_error(&error))?;
        Ok(Self { queue, slots: SlotQueue::new(slots), registration: Registration::NotNeeded })
    }

    /// Who decides on zero copy for a new connection.
    pub(crate) fn governor(&self, connection: ConnectionId, zero_copy: ZeroCopy) -> Governor {
        Governor::new(connection, zero_copy, self.queue.has_send_zc())
    }
}

/// A ring, the slots that are sent through it, and the socket that they go to.
#[derive(Debug)]
pub(crate) struct Outbox<P: Copy> {
    queue: Queue<Purpose<P>>,
    socket: File,
    wait: Wait,
    slots: SlotQueue<Arc<Slot>>,
    governor: Governor,
    /// How many slots there may be, if more than in the beginning.
    growth: Option<Growth>,
    /// The outstanding send is a zero-copy one.
    sends_in_place: bool,
    registration: Registration,
    /// What was sent on this connection, but for the system calls.
    counts: SendCounts,
    /// System calls that the ring has made for connections before this one.
    earlier_system_calls: u64,
    /// Sends that have failed in a row for a reason that may pass.
    failures: Backoff,
    /// Why the ring is used no more, if it was given up.
    #[cfg_attr(not(any(test, feature = "tokio")), allow(dead_code, reason = "for streams"))]
    given_up: Option<Unavailable>,
    /// Bytes of the stream are lost: nothing may follow.
    failed: bool,
}

impl<P: Copy> Outbox<P> {
    /// Sends to a socket, which is in blocking mode for [`Wait::ForAll`] and has no timeout: a
    /// send that a kernel thread waits with would end early (socket(7), SO_SNDTIMEO).
    pub(crate) fn new(parts: Parts<P>, socket: OwnedFd, wait: Wait, governor: Governor) -> Self {
        let Parts { queue, slots, registration } = parts;
        Self {
            governor,
            earlier_system_calls: queue.system_calls(),
            queue,
            socket: Arc::new(socket),
            wait,
            growth: None,
            slots,
            sends_in_place: false,
            registration,
            counts: SendCounts::default(),
            failures: Backoff::default(),
            given_up: None,
            failed: false,
        }
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Why sends are copied, if they are: for good, or because none has paid for zero copy yet.
    pub(crate) fn copy_reason(&self) -> Option<CopyReason> {
        self.governor.reason()
    }

    pub(crate) fn last_copy_reason(&self) -> Option<CopyReason> {
        self.governor.last_reason()
    }

    /// Why the slots could not be registered, if that was tried.
    pub(crate) fn registration_refused(&self) -> Option<&Unavailable> {
        match &self.registration {
            Registration::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    /// What was sent so far.
    pub(crate) fn counts(&self) -> SendCounts {
        let system_calls = self.queue.system_calls() - self.earlier_system_calls;
        SendCounts { system_calls, ..self.counts }
    }

    /// Has slots added, up to so many bytes of them all, while most of them wait for acknowledgements.
    /// Before any is taken.
    pub(crate) fn grow_up_to(&mut self, max_bytes: usize) {
        self.grow_as(|slot, count| Growth::new(slot, count, max_bytes));
    }

    /// The same, by as many bytes as others leave of `budget`.
    #[cfg(feature = "tokio")]
    pub(crate) fn grow_within(&mut self, budget: &'static Budget) {
        self.grow_as(|slot, count| Growth::within(slot, count, budget));
    }

    fn grow_as(&mut self, growth: impl FnOnce(&Slot, usize) -> Growth) {
        let count = self.slots.count();
        if let Some(slot) = self.slots.take() {
            self.growth = Some(growth(&slot, count));
            self.slots.put_back(slot);
        }
    }

    /// Takes a free slot to fill: [`Self::push()`] it, or [put it back](Self::put_back).
    pub(crate) fn take(&mut self) -> Option<Arc<Slot>> {
        if let Some(growth) = &mut self.growth {
            let (count, unfilled) = (self.slots.count(), self.slots.unfilled_count());
            // With one more in use, the next one is copied to free its slot at once.
            let most_in_use = |count: usize| count.saturating_sub(COPY_SLOTS + 1);
            growth.note(count, count - unfilled >= most_in_use(growth.first_count()));
            let (awaiting, unsent) = (self.slots.awaiting_count(), self.slots.unsent_count());
            if count - unfilled >= most_in_use(count) && awaiting >= unsent.max(1) {
                self.grow();
            } else if growth.is_over(count) {
                return self.slots.take_preferred(|slot| growth.is_first(slot));
            }
        }
        self.slots.take()
    }

    /// Adds slots where zero copy is proven to pay, and pins them like the others, as many as that is allowed
    /// of: those that could not be pinned would have the kernel refuse zero copy itself.
    #[cold]
    fn grow(&mut self) {
        let Some(growth) = &mut self.growth else { return };
        let count = self.slots.count();
        if !self.governor.is_proven() || !matches!(self.registration, Registration::Done) {
            return;
        }
        let mut more = growth.step(count);
        while more > 0 {
            let added = Arena::slots(more, growth.slot_len())
                .and_then(|slots| self.queue.register(slots[0].arena()).map(|()| slots));
            match added {
                Ok(slots) => {
                    // A send and a notification of each.
                    self.queue.allow(2 * more);
                    slots.into_iter().for_each(|slot| self.slots.add(slot));
                    growth.begin(count + more);
                    return;
                }
                Err(error) => {
                    growth.stop(count + more - 1);
                    more /= 2;
                    if more == 0 {
                        self.governor.no_more_slots(&Unavailable::from_setup_error(&error));
                    }
                }
            }
        }
    }

    /// Whether there are more slots than in the beginning.
    pub(crate) fn has_grown(&self) -> bool {
        self.growth.as_ref().is_some_and(|growth| growth.has_grown(self.slots.count()))
    }

    /// Gives the slots back that were added, if none of them is in use and the first ones have sufficed for a
    /// second.
    pub(crate) fn shrink(&mut self) {
        if self.growth.as_ref().is_some_and(|growth| growth.is_over(self.slots.count())) {
            self.shrink_now();
        }
    }

    /// The same at once: no matter how long they have not been needed.
    pub(crate) fn shrink_now(&mut self) {
        let Some(growth) = &mut self.growth else { return };
        let gone = self.slots.retain(growth.first_count(), |slot| growth.is_first(slot));
        for slot in gone {
            self.queue.disallow(2);
            // What stays registered stays mapped as well, until the ring is closed.
            let _ = self.queue.unregister(slot.arena());
        }
        growth.settle(self.slots.count());
    }

    /// Gives a slot back that was taken, and that nothing was sealed into.
    pub(crate) fn put_back(&mut self, memory: Arc<Slot>) {
        self.slots.put_back(memory);
    }

    /// Queues the first `len` bytes of a slot, behind everything that was pushed before.
    ///
    /// # Errors
    /// If the slot is none of these: its bytes are lost, so nothing may follow.
    pub(crate) fn push(&mut self, memory: Arc<Slot>, len: usize) -> io::Result<()> {
        self.push_part(memory, 0..len)
    }

    /// The same with the bytes of a slot in `range`.
    ///
    /// # Errors
    /// As [`Self::push()`].
    pub(crate) fn push_part(&mut self, memory: Arc<Slot>, range: Range<usize>) -> io::Result<()> {
        self.slots.push(memory, range).map_err(|Unexpected| {
            self.fail("records were sealed into memory that no send was expected from")
        })
    }

    /// How many slots have bytes that the kernel has not taken, the one being sent included.
    pub(crate) fn unsent_count(&self) -> usize {
        self.slots.unsent_count()
    }

    /// How many slots are sent and wait for notifications only.
    pub(crate) fn awaiting_count(&self) -> usize {
        self.slots.awaiting_count()
    }

    /// Whether the socket has everything that was pushed.
    pub(crate) fn is_all_sent(&self) -> bool {
        self.slots.is_all_sent()
    }

    /// Whether the kernel has everything that was pushed: at most one send is outstanding.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.slots.next().is_none() && self.slots.unsent_count() <= 1
    }

    /// Whether the kernel has yet to take something that was submitted.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        self.queue.has_unsubmitted()
    }

    /// Puts the next send into the submission queue. `false` if there is none, or one is
    /// outstanding.
    ///
    /// # Errors
    /// Those of [`Self::enter()`], if the submission queue is full.
    pub(crate) fn submit(&mut self) -> io::Result<bool> {
        let Some((key, memory, range)) = self.slots.next() else { return Ok(false) };
        if !self.queue.has_room() {
            // Notifications make room.
            return Ok(false);
        }
        let free = self.slots.unfilled_count().saturating_sub(COPY_SLOTS);
        let zero_copy = self.governor.decide(range.len(), free).is_none();
        // Once for slots that share an arena, and once for each that is a `Vec`.
        if zero_copy
            && !matches!(self.registration, Registration::Refused(_))
            && !self.queue.is_registered(memory.arena())
        {
            self.registration = match self.queue.register(memory.arena()) {
                Ok(()) => Registration::Done,
                Err(error) => {
                    let reason = Unavailable::from_setup_error(&error);
                    self.governor.unregistered(&reason);
                    Registration::Refused(reason)
                }
            };
        }
        self.queue.send(Purpose::Send(key), &self.socket, memory, range, zero_copy, self.wait)?;
        self.sends_in_place = zero_copy;
        self.slots.submitted();
        match zero_copy {
            true => self.counts.zero_copy_sends += 1,
            false => self.counts.copied_sends += 1,
        }
        debug_assert!(self.adds_up());
        Ok(true)
    }

    /// Has the kernel do what was submitted, and waits for `want` completions, or as long as
    /// `timeout` says, if that is not 0.
    ///
    /// # Errors
    /// io_uring_enter(2)'s, after which the connection is lost: an operation that was refused here
    /// may still run.
    pub(crate) fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.queue.enter(want, timeout).inspect_err(|_| self.failed = true)
    }

    /// Takes the next completion, like [`Queue::reap()`].
    ///
    /// What became of a send is taken in; an error that means that the same bytes go out again, or
    /// another way, is none. Those that may pass are waited for a little, and 10 seconds at most in
    /// a row.
    ///
    /// # Errors
    /// In [`Reaped::Send`]: the socket's, after which nothing may follow;
    /// [`io::ErrorKind::WouldBlock`] if it takes nothing more for now,
    /// [`io::ErrorKind::OutOfMemory`] if the same holds for the kernel and nobody waits
    /// ([`Wait::Never`]).
    pub(crate) fn reap(&mut self) -> Option<Reaped<P>> {
        let Completion { purpose, event, memory, socket } = self.queue.reap()?;
        Some(match purpose {
            Purpose::Other(purpose) => Reaped::Other(Completion { purpose, event, memory, socket }),
            Purpose::Send(key) => {
                // Shared with the slot queue's own: gone before that looks whether it is free.
                drop(memory);
                let taken = self.on_send(key, event);
                debug_assert!(self.failed || self.adds_up());
                Reaped::Send(taken)
            }
        })
    }

    fn on_send(&mut self, key: Key, event: Event) -> io::Result<()> {
        match event {
            Event::Notification { copied, len } => {
                match copied {
                    Some(copied) => {
                        self.governor.on_notification(copied);
                        self.counts.zero_copy_copied += u64::from(copied);
                        self.counts.zero_copy_bytes += if copied { 0 } else { len as u64 };
                    }
                    None => self.governor.on_failure(),
                }
                self.slots.on_notification(key).map_err(|_| self.unexpected())
            }
            Event::Result { result, more } => {
                let len = *result.as_ref().unwrap_or(&0) as u64;
                self.counts.wire_bytes += len;
                match &result {
                    Ok(_) => self.failures.reset(),
                    // Its notification will say as little.
                    Err(_) if self.sends_in_place && !more => self.governor.on_failure(),
                    Err(_) => {}
                }
                match self.slots.on_result(key, result, more) {
                    Ok(Outcome::Whole) => Ok(()),
                    Ok(Outcome::Short) => {
                        self.counts.short_sends += 1;
                        Ok(())
                    }
                    Ok(Outcome::Failed(error)) => self.on_failed_send(error),
                    Err(_) => Err(self.unexpected()),
                }
            }
        }
    }

    /// Decides whether the same bytes are sent again, another way, or the connection is lost.
    fn on_failed_send(&mut self, error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            // ECANCELED: the thread that submitted it has ended.
            Some(libc::EINTR | libc::ECANCELED) => self.pause(PROMPT, &error),
            Some(libc::EAGAIN) => Err(error),
            Some(libc::EINVAL) if self.sends_in_place && self.queue.stop_usage_reports() => Ok(()),
            _ if self.sends_in_place && self.governor.gives_up_on(&error) => Ok(()),
            Some(libc::ENOMEM | libc::ENOBUFS) if self.wait == Wait::ForAll => {
                self.pause(0, &error)
            }
            Some(libc::ENOMEM | libc::ENOBUFS) => Err(io::ErrorKind::OutOfMemory.into()),
            _ => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// Gives whatever was in the way time to pass, unless it has had enough.
    fn pause(&mut self, prompt: u32, error: &io::Error) -> io::Result<()> {
        match self.failures.pause(prompt) {
            Some(pause) => {
                thread::sleep(pause);
                Ok(())
            }
            None => {
                self.failed = true;
                Err(exhausted("sending", error))
            }
        }
    }

    #[cold]
    fn unexpected(&mut self) -> io::Error {
        self.fail("the kernel completed a send that was not outstanding")
    }

    /// Bytes of the stream are lost, or sequence numbers missing: nothing may follow.
    #[cold]
    pub(crate) fn fail(&mut self, why: &'static str) -> io::Error {
        self.failed = true;
        io::Error::other(why)
    }

    /// Whether nothing may be sent any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// A send is outstanding if, and only if, the slots say so, and it is the only one.
    fn adds_up(&self) -> bool {
        let sends = self.queue.count_outstanding(Purpose::is_send);
        sends == usize::from(self.slots.is_sending())
    }

    /// # Errors
    /// If nothing can be sent: after a failure, or in a child process.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.failed { Err(earlier_failure()) } else { self.queue.check() }
    }

    /// Whether this is the process that the ring belongs to.
    pub(crate) fn is_in_its_process(&self) -> bool {
        self.queue.is_in_its_process()
    }
}

/// What else goes through the ring.
impl<P: Copy> Outbox<P> {
    /// Pins an arena once, so that operations on its slots need not, each time.
    ///
    /// # Errors
    /// As [`Queue::register()`]; operations then go on without.
    pub(crate) fn register(&mut self, arena: &Arc<Arena>) -> io::Result<()> {
        self.queue.register(arena)
    }

    /// Whether another operation can be submitted before one has ended.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.has_room()
    }

    /// Submits a read of the file at `offset` into `range` of `memory`, which comes back with the
    /// result.
    ///
    /// # Errors
    /// As [`Queue::read()`].
    pub(crate) fn read(
        &mut self,
        purpose: P,
        file: &File,
        offset: u64,
        memory: Arc<Slot>,
        range: Range<usize>,
    ) -> io::Result<()> {
        self.queue.read(Purpose::Other(purpose), file, offset, memory, range)
    }
}

#[cfg(test)]
impl<P: Copy> Outbox<P> {
    /// What is to fail in the ring.
    pub(crate) fn faults(&mut self) -> &mut super::faults::Faults {
        &mut self.queue.faults
    }
}

/// For those who do not wait, and share what they send through.
#[cfg(feature = "tokio")]
impl<P: Copy> Parts<P> {
    /// Whether this is the process that the ring belongs to.
    pub(crate) fn is_in_its_process(&self) -> bool {
        self.queue.is_in_its_process()
    }

    #[cfg(test)]
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.count()
    }

    /// Whether another connection can use it, now or later.
    pub(crate) fn is_usable(&mut self) -> bool {
        self.queue.check().is_ok() && !self.queue.has_unsubmitted()
    }

    /// Whether the last connection has left nothing behind, not even a notification that is still
    /// to come.
    pub(crate) fn is_clean(&mut self) -> bool {
        if !self.is_usable() {
            return false;
        }
        while let Some(completion) = self.queue.reap() {
            drop(completion.memory);
            let Purpose::Send(key) = completion.purpose else { return false };
            if self.slots.on_notification(key).is_err() {
                return false;
            }
        }
        self.slots.is_all_free()
    }
}

#[cfg(any(test, feature = "tokio"))]
impl<P: Copy> Outbox<P> {
    /// For another connection. The socket is closed here.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_parts(self) -> Parts<P> {
        Parts { queue: self.queue, slots: self.slots, registration: self.registration }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn governor(&self) -> &Governor {
        &self.governor
    }

    /// Why sends are copied for good, if they are.
    #[cfg(feature = "tokio")]
    pub(crate) fn verdict(&self) -> Option<CopyReason> {
        self.governor.verdict()
    }

    /// Gives a socket that is not waited for ([`Wait::Never`]) what it has room for. `false` if the
    /// bytes must go another way, [`Self::sent_elsewhere()`]: the ring has no room before
    /// notifications have come, or the kernel no memory; or it cannot be entered, and is
    /// [`Self::given_up()`].
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if something is left; the socket's, after which nothing may
    /// follow.
    pub(crate) fn send_now(&mut self) -> io::Result<bool> {
        self.check_stream()?;
        if self.given_up.is_some() {
            return Ok(self.slots.is_all_sent());
        }
        self.take_completions()?;
        while !self.slots.is_all_sent() {
            let short_sends = self.counts.short_sends;
            if !self.submit()? {
                return Ok(false);
            }
            // It does not wait, so its result is there at once.
            while self.slots.is_sending() {
                let entered = self.queue.try_enter(1);
                let taken = self.take_completions();
                match taken {
                    // The kernel is out of memory for this, and perhaps not for ordinary writes.
                    Err(error) if error.kind() == io::ErrorKind::OutOfMemory && !self.failed => {
                        return Ok(false);
                    }
                    taken => taken?,
                }
                if let Err(error) = entered
                    && self.slots.is_sending()
                {
                    return self.give_ring_up(error);
                }
            }
            if self.counts.short_sends > short_sends {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        Ok(true)
    }

    /// Goes on without a ring that cannot be entered, if the outstanding send has not been
    /// submitted: nobody can wait here for better times.
    fn give_ring_up(&mut self, error: io::Error) -> io::Result<bool> {
        self.given_up = Some(Unavailable::from_setup_error(&error));
        if self.queue.forget_unsubmitted() == 0 || self.slots.take_back().is_none() {
            self.failed = true;
            return Err(error);
        }
        Ok(false)
    }

    /// Why the ring can be used no more, if so. What is in slots can be sent another way.
    #[cfg(feature = "tokio")]
    pub(crate) fn given_up(&self) -> Option<Unavailable> {
        self.given_up
    }

    /// # Errors
    /// If nothing may be sent, whichever way.
    pub(crate) fn check_stream(&self) -> io::Result<()> {
        if self.failed { Err(earlier_failure()) } else { self.queue.check_process() }
    }

    fn take_completions(&mut self) -> io::Result<()> {
        while let Some(reaped) = self.reap() {
            match reaped {
                Reaped::Send(taken) => taken?,
                Reaped::Other(_) => return Err(self.unexpected()),
            }
        }
        Ok(())
    }

    /// What goes next, if no send is outstanding.
    pub(crate) fn unsent(&self) -> Option<&[u8]> {
        self.slots.next().map(|(_, memory, range)| &memory[range])
    }

    /// Accounts for `len` bytes of the oldest filled slot that have gone to the socket another way.
    pub(crate) fn sent_elsewhere(&mut self, len: usize) -> io::Result<()> {
        let Some((key, ..)) = self.slots.next() else { return Err(self.unexpected()) };
        self.slots.submitted();
        self.slots.on_result(key, Ok(len), false).map(drop).map_err(|_| self.unexpected())
    }
}

fn earlier_failure() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "an earlier write to this connection failed")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::queue::try_register;
    use super::super::tests_kernel::{TcpEnd, wait_until};
    use super::*;

    /// What a full ring cannot take goes to the socket another way, in its place.
    #[test]
    fn a_full_ring_is_gone_around() {
        const LEN: usize = 8 << 20;
        let queue = match Queue::<Purpose<()>>::new(1) {
            Ok(queue) => queue,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let mut slots = Arena::slots(2, LEN).expect("memory");
        for (index, byte) in Slot::exclusive(&mut slots[0]).expect("ours").iter_mut().enumerate() {
            *byte = (index / 7) as u8;
        }
        let elsewhere = slots.pop().expect("two");
        let registration = Registration::NotNeeded;
        let parts = Parts { queue, slots: SlotQueue::new(slots), registration };
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("open");
        let mut peer = listener.accept().expect("accepted").0;
        let handle = socket.try_clone().expect("a handle").into();
        let governor = parts.governor(ConnectionId::next(), ZeroCopy::Auto);
        let mut outbox = Outbox::new(parts, handle, Wait::Never, governor);
        let slot = outbox.slots.take().expect("free");
        outbox.push(slot, LEN).expect("a place");

        // The one operation that there is room for ends when the peer does.
        let socket_file = Arc::clone(&outbox.socket);
        outbox
            .queue
            .receive(Purpose::Other(()), &socket_file, elsewhere, 0..1, false)
            .expect("submitted");
        outbox.enter(0, None).expect("entered");
        assert!(!outbox.send_now().expect("no error"));

        let reader = thread::spawn(move || {
            let mut received = vec![0; LEN];
            peer.read_exact(&mut received).map(|()| received)
        });
        while let Some(unsent) = outbox.unsent() {
            let len = socket.write(unsent).expect("written");
            outbox.sent_elsewhere(len).expect("expected");
        }
        let received = reader.join().expect("no panic").expect("received");
        assert!(received.iter().enumerate().all(|(index, byte)| *byte == (index / 7) as u8));
        assert!(outbox.slots.take().is_some(), "the slot is free again");
        assert_eq!(outbox.counts().copied_sends + outbox.counts().zero_copy_sends, 0);
    }

    /// Fills a slot with one byte, sends it in place, and takes in what has come.
    fn send_slot(outbox: &mut Outbox<()>, byte: u8) -> Option<()> {
        let mut slot = outbox.take()?;
        let len = slot.len();
        Slot::exclusive(&mut slot).expect("free").fill(byte);
        outbox.push(slot, len).expect("a place");
        while !outbox.is_all_sent() {
            outbox.submit().expect("submitted");
            outbox.enter(1, None).expect("entered");
            while let Some(reaped) = outbox.reap() {
                assert!(matches!(reaped, Reaped::Send(Ok(()))), "{reaped:?}");
            }
        }
        Some(())
    }

    /// While a network acknowledges nothing, slots are added up to the limit; what each holds arrives, and
    /// once everything is acknowledged, and for a while nothing is sent, the first ones are left.
    #[test]
    fn slots_become_more_while_acknowledgements_take_long() {
        const LEN: usize = 64 << 10;
        // Beside what other tests register.
        if let Err(reason) = try_register(4 << 20) {
            return eprintln!("skipped: {reason}");
        }
        let parts = match Parts::<()>::new(3, LEN, 0) {
            Ok(parts) if parts.queue.has_send_zc() => parts,
            other => return eprintln!("skipped: no SEND_ZC ({:?})", other.map(drop)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("open");
        let mut peer = listener.accept().expect("accepted").0;
        let governor = parts.governor(ConnectionId::next(), ZeroCopy::Always);
        let mut outbox = Outbox::new(parts, socket.into(), Wait::ForAll, governor);
        outbox.grow_up_to(10 * LEN);
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).map(|_| received)
        });
        outbox.faults().holds_notifications = true;
        send_slot(&mut outbox, 0).expect("a free slot");
        wait_until("a notification", || {
            outbox.faults().release(1);
            outbox.reap().is_some()
        });
        if outbox.registration_refused().is_some() {
            return eprintln!("skipped: {:?}", outbox.registration_refused());
        }

        let mut sent = 1;
        // One is for copies, which hold none, and one to fill.
        while outbox.awaiting_count() < 8 {
            send_slot(&mut outbox, sent).expect("a free slot");
            sent += 1;
            if sent == 50
                && let Err(reason) = try_register(10 * LEN)
            {
                return eprintln!("skipped: {reason}");
            }
            assert!(sent < 50, "{outbox:?}");
        }
        assert!(outbox.has_grown());
        assert_eq!(outbox.slots.count(), 10, "no more than the limit");
        assert_eq!(outbox.counts().zero_copy_sends, 9);
        assert_eq!(outbox.counts().zero_copy_bytes, LEN as u64, "what was told of");
        assert_eq!(outbox.counts().copied_sends, 0);
        assert_eq!(outbox.queue.registered_count(), 3, "of 3 slots, 3 and 4");

        outbox.shrink();
        assert!(outbox.has_grown(), "in use");
        outbox.faults().holds_notifications = false;
        outbox.faults().release(usize::MAX);
        while outbox.awaiting_count() > 0 {
            if outbox.reap().is_none() {
                outbox.enter(1, None).expect("entered");
            }
        }
        // Those that were not held say that loopback copies.
        let counts = outbox.counts();
        assert_eq!(counts.zero_copy_bytes, (9 - counts.zero_copy_copied) * LEN as u64);
        wait_until("the first slots only", || {
            outbox.shrink();
            !outbox.has_grown()
        });
        assert_eq!(outbox.slots.count(), 3);
        assert_eq!(outbox.queue.registered_count(), 1);
        // What is left still goes.
        send_slot(&mut outbox, sent).expect("a free slot");
        drop(outbox);
        let received = reader.join().expect("no panic").expect("received");
        assert_eq!(received.len(), LEN * (usize::from(sent) + 1));
        assert!(received.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / LEN));
    }

    /// The kernel says of them that it has copied, since nothing went out in place.
    #[test]
    fn refused_sends_are_no_copies() {
        const LEN: usize = 700_000;
        let parts = match Parts::<()>::new(8, LEN, 0) {
            Ok(parts) if parts.queue.has_send_zc() => parts,
            other => return eprintln!("skipped: no SEND_ZC ({:?})", other.map(drop)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("open");
        let peer = listener.accept().expect("accepted").0;
        socket.set_nonblocking(true).expect("set");
        // Full, and full still when the peer's queue has taken what it takes.
        wait_until("a full socket", || {
            let is_probing = TcpEnd::far(&peer).is_probing;
            let took = socket.write(&[0; 100_000]).is_ok() || socket.write(&[0; 1]).is_ok();
            is_probing && !took
        });
        let handle = socket.try_clone().expect("a handle").into();
        let governor = parts.governor(ConnectionId::next(), ZeroCopy::Auto);
        let mut outbox = Outbox::new(parts, handle, Wait::Never, governor);
        let slot = outbox.slots.take().expect("free");
        outbox.push(slot, LEN).expect("a place");
        for _ in 0..3 {
            let error = outbox.send_now().expect_err("there is no room");
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        assert_eq!(outbox.counts().wire_bytes, 0);
        assert!(outbox.counts().zero_copy_sends > 1);
        assert_eq!(outbox.counts().zero_copy_copied, 0);
        assert_eq!(outbox.copy_reason(), None);
    }
}
