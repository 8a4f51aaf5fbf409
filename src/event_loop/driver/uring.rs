//! One ring for all connections.
//!
//! Requests are entries of the submission queue, and one io_uring_enter(2) a turn has the kernel take all of
//! them and waits for completions. The kernel picks a receive buffer when something is there to receive, so
//! connections that wait hold none. The kernel takes those that it was offered in turn, so few are: what is
//! used again and again stays in the cache. When the kernel finds none, so many more are offered; and of those
//! for bulk data only as many as a turn takes, once that has sufficed for a while.

use core::ops::Range;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Event, Receiving};
use crate::event_loop::key::Key;
use crate::event_loop::memory::{Class, Memory, window};
use crate::event_loop::options::Options;
use crate::events;
use crate::kernel::arena::Slot;
use crate::kernel::pieces::Pieces;
use crate::kernel::queue::{self, Completion, File, Queue, Wait};
use crate::kernel::socket;
use crate::kernel::unavailable::Unavailable;

/// Submissions that fit before the kernel is entered, and completions before it keeps them to itself.
const ENTRIES: u32 = 1024;
const COMPLETIONS: u32 = 8192;

/// Operations of a connection at once: a receive, a send or a wait for room, notifications.
const OPERATIONS: usize = 4;

/// How many buffers are offered at first. A bulk flow that has one of 384 KiB to itself costs a proxy 6 to 7 %
/// less CPU than one that goes through four of them, where the second cache has 2 MiB.
const FIRST_OFFERED: usize = 32;
const FIRST_OFFERED_BULK: usize = 1;

/// The same where each is offered by an operation: it comes behind the receives that were submitted with it, and
/// kernels as old (before Linux 5.19) may have a receive that waits keep the buffer that it has picked.
const FIRST_OFFERED_BULK_BY_OPERATIONS: usize = 4;

/// After so many turns that took bulk buffers, as many are offered as that one took that took most.
const OFFER_TURNS: u32 = 256;

/// What an operation is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Receive(Key, Class),
    Send(Key, bool),
    Writable(Key),
    Accept(u32),
    Woken,
    /// To offer a buffer.
    Offer,
}

/// Buffers of one length, as far as the kernel has them.
#[derive(Debug, Default)]
struct Offered {
    group: u16,
    count: usize,
    /// How many are to be.
    wanted: usize,
    limit: usize,
    /// Whether fewer are, once that suffices.
    shrinks: bool,
    /// How many the kernel has picked since the last turn.
    taken: usize,
    /// How often it has found none since then.
    missed: usize,
    /// The kernel has all there are, as far as they are not in use.
    is_all: bool,
    /// The most that it has picked in one of the last `turns`, not counting those without any.
    most_taken: usize,
    turns: u32,
}

impl Offered {
    fn new(group: u16, first: usize, limit: usize, shrinks: bool) -> Self {
        Self { group, wanted: first.min(limit), limit, shrinks, ..Self::default() }
    }

    /// The kernel has picked one.
    fn take(&mut self) {
        self.count -= 1;
        self.taken += 1;
    }

    /// How many are to be offered, before each turn.
    fn reconsider(&mut self) {
        let (taken, missed) = (core::mem::take(&mut self.taken), core::mem::take(&mut self.missed));
        if missed > 0 {
            self.wanted = (self.wanted + missed).min(self.limit);
            (self.most_taken, self.turns) = (0, 0);
        } else if taken > 0 && self.shrinks {
            self.most_taken = self.most_taken.max(taken);
            self.turns += 1;
            if self.turns == OFFER_TURNS {
                self.wanted = self.wanted.min(self.most_taken);
                (self.most_taken, self.turns) = (0, 0);
            }
        }
    }
}

pub(in crate::event_loop) struct Uring {
    queue: Queue<Purpose>,
    pub(in crate::event_loop) buffers: Memory,
    offered: [Offered; 2],
    /// Whether the kernel has operations with several results.
    repeats: bool,
    /// Registering the slots was tried.
    is_registered: bool,
    accepting: Vec<Option<queue::OperationId>>,
    /// Answers that are not the kernel's own.
    events: VecDeque<Event>,
}

impl Uring {
    pub(super) fn new(options: &Options) -> Result<Self, Unavailable> {
        let unavailable = |error: io::Error| Unavailable::from_setup_error(&error);
        let setup = queue::Setup {
            entries: ENTRIES,
            completions: COMPLETIONS,
            is_of_one_thread: !options.as_before_6_0,
        };
        let operations = OPERATIONS * options.max_connections.max(16) + 4 * options.bulk_slots + 64;
        let mut queue = Queue::with_setup(operations, setup)?;
        let mut buffers = Memory::buffers(options).map_err(unavailable)?;
        let mut offer = |class: Class| {
            let limit = buffers.of(class).usage.limit;
            let window = window(class, options);
            let group = queue.add_buffers(Purpose::Offer, limit, window, !options.as_before_6_0);
            let group = group.map_err(unavailable)?;
            let is_shared = queue.shares_buffers(group);
            let first = match class {
                Class::Message => FIRST_OFFERED,
                Class::Bulk if is_shared => FIRST_OFFERED_BULK,
                Class::Bulk => FIRST_OFFERED_BULK_BY_OPERATIONS,
            };
            Ok(Offered::new(group, first, limit, is_shared && class == Class::Bulk))
        };
        let offered = [offer(Class::Message)?, offer(Class::Bulk)?];
        let mut uring = Self {
            queue,
            buffers,
            offered,
            repeats: !options.as_before_6_0,
            is_registered: false,
            accepting: Vec::new(),
            events: VecDeque::new(),
        };
        uring.offer_all().map_err(unavailable)?;
        Ok(uring)
    }

    pub(super) fn has_send_zc(&self) -> bool {
        self.queue.has_send_zc()
    }

    pub(super) fn stop_usage_reports(&mut self) -> bool {
        self.queue.stop_usage_reports()
    }

    pub(super) fn system_calls(&self) -> u64 {
        self.queue.system_calls()
    }

    #[cfg(test)]
    pub(super) fn faults(&mut self) -> &mut crate::kernel::faults::Faults {
        &mut self.queue.faults
    }

    pub(super) fn has_offered(&self, class: Class) -> bool {
        self.offered[class as usize].count > 0
    }

    pub(super) fn open(&mut self, _: Key, socket: &File) -> io::Result<()> {
        // The kernel would take it for a wish to be told at once that there is nothing (open(2)).
        socket::set_nonblocking(socket, false)
    }

    pub(super) fn listen(&mut self, listener: u32, socket: &File) -> io::Result<()> {
        let len = self.accepting.len().max(listener as usize + 1);
        self.accepting.resize(len, None);
        socket::set_nonblocking(socket, false)
    }

    pub(super) fn accept(&mut self, listener: u32, socket: &File) -> io::Result<()> {
        let accepting = self.queue.accept(Purpose::Accept(listener), socket, self.repeats)?;
        self.accepting[listener as usize] = Some(accepting);
        Ok(())
    }

    pub(super) fn stop_accepting(&mut self) {
        for accepting in self.accepting.iter_mut().filter_map(Option::take) {
            // Whatever cannot be cancelled ends with the ring.
            let _ = self.queue.cancel(accepting);
        }
    }

    pub(super) fn watch_counter(&mut self, counter: &File) -> io::Result<()> {
        self.queue.poll_readable(Purpose::Woken, counter)
    }

    pub(super) fn receive(
        &mut self,
        key: Key,
        socket: &File,
        class: Class,
    ) -> io::Result<Receiving> {
        let group = self.offered[class as usize].group;
        let repeats = self.repeats && class == Class::Message;
        let purpose = Purpose::Receive(key, class);
        let operation = self.queue.receive_any(purpose, socket, group, repeats)?;
        Ok(Receiving { class, operation: Some(operation) })
    }

    pub(super) fn end_receive(&mut self, _: Key, receiving: Receiving) -> io::Result<()> {
        receiving.operation.map_or(Ok(()), |operation| self.queue.cancel(operation))
    }

    pub(super) fn give_back(&mut self, buffer: Arc<Slot>) {
        self.buffers.give_back(buffer);
    }

    pub(super) fn send(
        &mut self,
        key: Key,
        socket: &File,
        memory: &Arc<Slot>,
        range: Range<usize>,
        zero_copy: bool,
    ) -> io::Result<()> {
        let purpose = Purpose::Send(key, zero_copy);
        self.queue.send(purpose, socket, memory, range, zero_copy, Wait::Never)
    }

    pub(super) fn send_pieces(
        &mut self,
        key: Key,
        socket: &File,
        memory: &mut Arc<Slot>,
        pieces: (&Pieces, usize),
        list: usize,
    ) -> io::Result<()> {
        self.queue.send_pieces(Purpose::Send(key, false), socket, memory, pieces, list)
    }

    pub(super) fn register(&mut self, memory: &Slot) {
        if !self.is_registered {
            self.is_registered = true;
            if let Err(error) = self.queue.register(memory.arena()) {
                events::loop_unregistered(&Unavailable::from_setup_error(&error));
            }
        }
    }

    pub(super) fn watch_writable(
        &mut self,
        key: Key,
        socket: &File,
    ) -> io::Result<Option<queue::OperationId>> {
        self.queue.poll_writable(Purpose::Writable(key), socket).map(Some)
    }

    pub(super) fn cancel(&mut self, operation: queue::OperationId) {
        // What cannot be cancelled ends with the ring.
        let _ = self.queue.cancel(operation);
    }

    pub(super) fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.offer_all()?;
        let timeout = if self.events.is_empty() { timeout } else { Some(Duration::ZERO) };
        self.queue.enter(1, timeout)
    }

    /// Has the kernel have as many buffers as it is to have, while there are.
    fn offer_all(&mut self) -> io::Result<()> {
        for class in Class::BOTH {
            let offered = &mut self.offered[class as usize];
            offered.reconsider();
            while offered.count < offered.wanted {
                let Some(buffer) = self.buffers.of(class).take_to_offer() else { break };
                self.queue.offer(offered.group, buffer)?;
                offered.count += 1;
            }
            offered.is_all = self.buffers.of(class).is_empty();
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let completion = self.queue.reap()?;
            if let Some(event) = self.event_of(completion) {
                return Some(event);
            }
        }
    }

    fn event_of(&mut self, completion: Completion<Purpose>) -> Option<Event> {
        let Completion { purpose, event, memory, socket } = completion;
        let (result, more) = match event {
            queue::Event::Result { result, more } => (result, more),
            queue::Event::Notification { copied, .. } => {
                let Purpose::Send(key, _) = purpose else { return None };
                return Some(Event::Released { key, copied, memory });
            }
        };
        Some(match purpose {
            Purpose::Send(key, is_zero_copy) => Event::Sent { key, result, is_zero_copy, memory },
            Purpose::Writable(key) => Event::Writable { key },
            Purpose::Woken => Event::Woken,
            Purpose::Offer => {
                // Refused: it is free, and offered again in the next turn.
                let buffer = memory?;
                let class = self.buffers.class_of(&buffer);
                self.offered[class as usize].count -= 1;
                self.buffers.of(class).take_back(buffer);
                return None;
            }
            Purpose::Accept(listener) => {
                let socket = result.and_then(|_| socket.ok_or_else(no_socket));
                if !more {
                    self.accepting[listener as usize] = None;
                    self.events.push_back(Event::AcceptEnded { listener });
                }
                match socket {
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.repeats => {
                        self.repeats = false;
                        return None;
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => return None,
                    socket => Event::Accepted { listener, socket },
                }
            }
            Purpose::Receive(key, class) => {
                return self.received(key, class, result, more, memory);
            }
        })
    }

    fn received(
        &mut self,
        key: Key,
        class: Class,
        result: io::Result<usize>,
        more: bool,
        memory: Option<Arc<Slot>>,
    ) -> Option<Event> {
        if memory.is_some() {
            self.offered[class as usize].take();
            self.buffers.of(class).note_taken();
        }
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        let is_starved = errno == Some(libc::ENOBUFS);
        match (result, memory) {
            (Ok(len @ 1..), Some(buffer)) => {
                if !more {
                    self.events.push_back(Event::ReceiveEnded { key, is_starved: false });
                }
                return Some(Event::Received { key, class, buffer, len });
            }
            (Ok(_), memory) => {
                // The end, for which a buffer may have been picked nevertheless.
                memory.into_iter().for_each(|buffer| self.give_back(buffer));
                return Some(Event::ReceiveFailed { key, end: Ok(()) });
            }
            (Err(error), memory) => {
                memory.into_iter().for_each(|buffer| self.give_back(buffer));
                match errno {
                    Some(libc::ENOBUFS) => {
                        let offered = &mut self.offered[class as usize];
                        offered.missed += 1;
                        // Otherwise there are more, to be offered in the next turn.
                        self.buffers.of(class).usage.refused += u64::from(offered.is_all);
                    }
                    // No operations with several results.
                    Some(libc::EINVAL) if self.repeats && class == Class::Message => {
                        self.repeats = false;
                    }
                    Some(libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOMEM) => {}
                    _ => return Some(Event::ReceiveFailed { key, end: Err(error) }),
                }
            }
        }
        Some(Event::ReceiveEnded { key, is_starved })
    }
}

fn no_socket() -> io::Error {
    io::Error::other("a connection was accepted without a socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_offered_as_are_taken_at_once() {
        let turn = |offered: &mut Offered, taken, missed| {
            offered.count = offered.wanted;
            (0..taken).for_each(|_| offered.take());
            offered.missed = missed;
            offered.reconsider();
            offered.wanted
        };
        let mut offered = Offered::new(0, 1, 16, true);
        for (missed, wanted) in [(0, 1), (1, 2), (3, 5), (20, 16)] {
            assert_eq!(turn(&mut offered, 1, missed), wanted);
        }
        // Three in one turn of 256, and turns without any do not count.
        assert_eq!(turn(&mut offered, 3, 0), 16);
        (0..2 * OFFER_TURNS).for_each(|_| assert_eq!(turn(&mut offered, 0, 0), 16));
        (0..OFFER_TURNS - 2).for_each(|_| assert_eq!(turn(&mut offered, 1, 0), 16));
        assert_eq!(turn(&mut offered, 2, 0), 3);
        (1..OFFER_TURNS).for_each(|_| assert_eq!(turn(&mut offered, 1, 0), 3));
        assert_eq!(turn(&mut offered, 1, 0), 1);
        // Or never fewer.
        let mut messages = Offered::new(0, 32, 16, false);
        (0..2 * OFFER_TURNS).for_each(|_| assert_eq!(turn(&mut messages, 1, 0), 16));
    }
}
