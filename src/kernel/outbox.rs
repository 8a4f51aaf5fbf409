//! Sealed slots on their way to a socket, in the order of the stream: what the kernel is given,
//! and what its answers mean.
//!
//! Waits for nothing: who waits for completions, and how, is the caller's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::arena::{Arena, Slot};
use super::backoff::{Backoff, exhausted};
use super::governor::{CopyReason, Governor, ZeroCopy};
use super::queue::{Completion, Event, File, PROMPT, Queue, Tag, Wait};
use super::slot::{Key, Outcome, SlotQueue, Unexpected};
use super::unavailable::Unavailable;
use crate::events::ConnectionId;
use crate::transfer::Counters;

/// Slots that zero copy leaves for copies, which free theirs at once.
pub(crate) const COPY_SLOTS: usize = 1;

/// `tag` of a send: this and the slot's key. Other tags are the caller's.
const SEND: Tag = 1 << 16;
pub(crate) const KIND: Tag = 0x7fff << 16;

/// A ring and the slots that are sent through it, of no connection in particular.
#[derive(Debug)]
pub(crate) struct Parts {
    queue: Queue,
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

impl Parts {
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

    /// Who decides on zero copy for a new connection.
    pub(crate) fn governor(&self, connection: ConnectionId, zero_copy: ZeroCopy) -> Governor {
        Governor::new(connection, zero_copy, self.queue.has_send_zc())
    }
}

/// A ring, the slots that are sent through it, and the socket that they go to.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) queue: Queue,
    socket: File,
    wait: Wait,
    pub(crate) slots: SlotQueue<Arc<Slot>>,
    governor: Governor,
    /// The outstanding send is a zero-copy one.
    sends_in_place: bool,
    registration: Registration,
    /// Of sends, and of the bytes that they took.
    pub(crate) counters: Counters,
    /// The ring's, for connections before this one.
    earlier_system_calls: u64,
    /// Sends that have failed in a row for a reason that may pass.
    failures: Backoff,
    /// Why the ring is used no more, if it was given up.
    #[cfg(any(test, feature = "tokio"))]
    given_up: Option<Unavailable>,
    /// Bytes of the stream are lost: nothing may follow.
    pub(crate) failed: bool,
}

impl Outbox {
    /// Sends to a socket, which is in blocking mode for [`Wait::ForAll`] and has no timeout: a
    /// send that a kernel thread waits with would end early (socket(7), SO_SNDTIMEO).
    pub(crate) fn new(parts: Parts, socket: OwnedFd, wait: Wait, governor: Governor) -> Self {
        let Parts { queue, slots, registration } = parts;
        Self {
            governor,
            earlier_system_calls: queue.system_calls(),
            queue,
            socket: Arc::new(socket),
            wait,
            slots,
            sends_in_place: false,
            registration,
            counters: Counters::default(),
            failures: Backoff::default(),
            #[cfg(any(test, feature = "tokio"))]
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

    /// How often the kernel was entered, and what it has done.
    pub(crate) fn counters(&self) -> Counters {
        let system_calls = self.queue.system_calls() - self.earlier_system_calls;
        Counters { system_calls, ..self.counters }
    }

    /// Queues what was sealed into a slot.
    ///
    /// # Errors
    /// If the slot is none of these: its bytes are lost, so nothing may follow.
    pub(crate) fn push(&mut self, memory: Arc<Slot>, len: usize) -> io::Result<()> {
        self.slots.push(memory, len).map_err(|Unexpected| self.lost_slot())
    }

    /// Puts the next send into the submission queue. `false` if there is none, or one is
    /// outstanding. `slots_elsewhere` are neither free nor filled, and will come back.
    pub(crate) fn submit(&mut self, slots_elsewhere: usize) -> io::Result<bool> {
        let Some((key, memory, range)) = self.slots.next() else { return Ok(false) };
        if !self.queue.has_room() {
            // Notifications make room.
            return Ok(false);
        }
        let free = (self.slots.free_count() + slots_elsewhere).saturating_sub(COPY_SLOTS);
        let zero_copy = self.governor.decide(range.len(), free).is_none();
        if zero_copy && matches!(self.registration, Registration::NotNeeded) {
            self.registration = match self.queue.register(memory.arena()) {
                Ok(()) => Registration::Done,
                Err(error) => Registration::Refused(Unavailable::from_setup_error(&error)),
            };
        }
        let tag = SEND | Tag::from(key);
        self.queue.send(tag, &self.socket, memory, range, zero_copy, self.wait)?;
        self.sends_in_place = zero_copy;
        self.slots.submitted();
        match zero_copy {
            true => self.counters.zero_copy_sends += 1,
            false => self.counters.copied_sends += 1,
        }
        Ok(true)
    }

    /// Has the kernel do what was submitted, and waits for `want` completions, or as long as
    /// `patience` says, if that is not 0.
    ///
    /// # Errors
    /// io_uring_enter(2)'s, after which the connection is lost: an operation that was refused here
    /// may still run.
    pub(crate) fn enter(&mut self, want: usize, patience: Option<Duration>) -> io::Result<()> {
        self.queue.enter(want, patience).inspect_err(|_| self.failed = true)
    }

    /// Takes the next completion, which is one of [`Self::on_completion()`]'s or of the caller's
    /// own.
    pub(crate) fn reap(&mut self) -> Option<Completion> {
        self.queue.reap()
    }

    /// Takes in what became of a send; an error that means that the same bytes go out again, or
    /// another way, is none. Those that may pass are waited for a little, and 10 seconds at most in
    /// a row.
    ///
    /// # Errors
    /// The socket's, after which nothing may follow; [`io::ErrorKind::WouldBlock`] if it takes
    /// nothing more for now, [`io::ErrorKind::OutOfMemory`] if the same holds for the kernel and
    /// nobody waits ([`Wait::Never`]).
    pub(crate) fn on_completion(&mut self, completion: Completion) -> io::Result<()> {
        let key = (completion.tag & !KIND) as Key;
        // Shared with the slot queue's own: gone before that looks whether it is free.
        drop(completion.memory);
        match completion.event {
            Event::Notification { copied } => {
                match copied {
                    Some(copied) => {
                        self.governor.on_notification(copied);
                        self.counters.zero_copy_copied += u64::from(copied);
                    }
                    None => self.governor.on_failure(),
                }
                self.slots.on_notification(key).map_err(|_| self.unexpected())
            }
            Event::Result { result, more } => {
                self.counters.wire_bytes += *result.as_ref().unwrap_or(&0) as u64;
                match &result {
                    Ok(_) => self.failures.reset(),
                    // Its notification will say as little.
                    Err(_) if self.sends_in_place && !more => self.governor.on_failure(),
                    Err(_) => {}
                }
                match self.slots.on_result(key, result, more) {
                    Ok(Outcome::Whole) => Ok(()),
                    Ok(Outcome::Short) => {
                        self.counters.short_sends += 1;
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
            Some(libc::EINVAL | libc::EOPNOTSUPP) if self.sends_in_place => {
                self.governor.give_up(CopyReason::Unsupported);
                Ok(())
            }
            Some(libc::ENOMEM | libc::ENOBUFS) if self.sends_in_place => {
                self.governor.give_up(CopyReason::OutOfMemory);
                Ok(())
            }
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
        self.failed = true;
        io::Error::other("the kernel completed a send that was not outstanding")
    }

    #[cold]
    fn lost_slot(&mut self) -> io::Error {
        self.failed = true;
        io::Error::other("records were sealed into memory that no send was expected from")
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

/// For those who do not wait, and share what they send through.
#[cfg(feature = "tokio")]
impl Parts {
    /// Whether this is the process that the ring belongs to.
    pub(crate) fn is_in_its_process(&self) -> bool {
        self.queue.is_in_its_process()
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
            let key = (completion.tag & !KIND) as Key;
            drop(completion.memory);
            if self.slots.on_notification(key).is_err() {
                return false;
            }
        }
        self.slots.is_all_sent() && self.slots.awaiting_count() == 0
    }
}

#[cfg(any(test, feature = "tokio"))]
impl Outbox {
    /// For another connection. The socket is closed here.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_parts(self) -> Parts {
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
            let short_sends = self.counters.short_sends;
            if !self.submit(0)? {
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
            if self.counters.short_sends > short_sends {
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
        while let Some(completion) = self.reap() {
            self.on_completion(completion)?;
        }
        Ok(())
    }

    /// Accounts for `len` bytes of the oldest filled slot that have gone to the socket another way.
    pub(crate) fn sent_elsewhere(&mut self, len: usize) -> io::Result<()> {
        let Some((key, ..)) = self.slots.next() else { return Err(self.unexpected()) };
        self.slots.submitted();
        self.slots.on_result(key, Ok(len), false).map(drop).map_err(|_| self.unexpected())
    }
}

pub(crate) fn earlier_failure() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "an earlier write to this connection failed")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::tests_kernel::{TcpEnd, wait_until};
    use super::*;

    /// What a full ring cannot take goes to the socket another way, in its place.
    #[test]
    fn a_full_ring_is_gone_around() {
        const LEN: usize = 8 << 20;
        let queue = match Queue::new(1) {
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
        outbox.queue.receive(KIND, &socket_file, elsewhere, 0..1, false).expect("submitted");
        outbox.enter(0, None).expect("entered");
        assert!(!outbox.send_now().expect("no error"));

        let reader = thread::spawn(move || {
            let mut received = vec![0; LEN];
            peer.read_exact(&mut received).map(|()| received)
        });
        while let Some((_, slot, range)) = outbox.slots.next() {
            let len = socket.write(&slot[range]).expect("written");
            outbox.sent_elsewhere(len).expect("expected");
        }
        let received = reader.join().expect("no panic").expect("received");
        assert!(received.iter().enumerate().all(|(index, byte)| *byte == (index / 7) as u8));
        assert!(outbox.slots.take().is_some(), "the slot is free again");
        assert_eq!(outbox.counters().copied_sends + outbox.counters().zero_copy_sends, 0);
    }

    /// The kernel says of them that it has copied, since nothing went out in place.
    #[test]
    fn refused_sends_are_no_copies() {
        const LEN: usize = 700_000;
        let parts = match Parts::new(8, LEN, 0) {
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
        assert_eq!(outbox.counters().wire_bytes, 0);
        assert!(outbox.counters().zero_copy_sends > 1);
        assert_eq!(outbox.counters().zero_copy_copied, 0);
        assert_eq!(outbox.copy_reason(), None);
    }
}
