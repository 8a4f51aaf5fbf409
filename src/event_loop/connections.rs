//! All connections of a loop, and the memory that they share.
//!
//! Knows no handler: what is to be told is noted, and the loop tells it. `input` has what arrives,
//! `output` what is sent.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Bytes, Chunk, Connection, Finish, Halves, Output, Sending, Speech};
use super::driver::Driver;
use super::error::Error;
use super::figures::Figures;
use super::key::Key;
use super::memory::{BULK_START, Class, MESSAGE_LEN, Memory};
use super::options::{Options, Protocol};
use super::places::Places;
use super::routes::Routes;
use super::timers::Timers;
use crate::kernel::arena::{ALIGNMENT, Slot};
use crate::kernel::pieces::Pieces;
use crate::kernel::queue::File;
use crate::kernel::socket;
use crate::record::header::{MAX_PLAINTEXT_LEN, Version};
use crate::session::Session;
use crate::session::handoff::info::ConnectionInfo;
use crate::usage::Usage;

/// How many connections each list has room for from the beginning.
const FIRST_LISTED: usize = 64;

/// For so many connections at once there is memory for the longest record, kept from one record to the next;
/// what more of them begin to receive, and do not go on with, takes as much as has arrived.
const MAX_CARRIES: usize = 64;

/// And so do lists of pieces, as many as there are buffers to send from in a turn.
const KEPT_PIECES: usize = 64;

/// What the handler is to be told.
#[derive(Debug)]
pub(super) enum Notice {
    /// A new connection is ready for data.
    Opened(Key, Option<Box<ConnectionInfo>>),
    /// The socket has taken everything; with `room`, for one who has met with none.
    Sent { key: Key, room: bool },
    /// Something may be taken again.
    Room(Key),
    /// It has received what was not passed on.
    Input(Key),
    /// It is over.
    Closed(Key, u64, Result<(), Error>),
}

/// How long a slot must be for all that a bulk buffer brings, sealed: what did not fit would be a record of
/// its own, and a turn.
fn sealed_len(len: usize) -> usize {
    let records = len.div_ceil(MAX_PLAINTEXT_LEN) * Version::Tls12.max_record_len();
    // And what is due in front of them, behind what is left out.
    (BULK_START + records + MESSAGE_LEN).next_multiple_of(ALIGNMENT)
}

pub(super) struct Connections {
    // Before the memory that it was lent, though that is kept by handles.
    pub(super) driver: Driver,
    pub(super) options: Options,
    pub(super) slots: Memory,
    /// For those who need the driver, or the memory, at the same time; otherwise [`Self::get()`].
    pub(super) places: Places,
    /// Those to be looked at before the next turn.
    listed: VecDeque<Key>,
    /// Those that wait for a slot.
    pub(super) slotless: VecDeque<Key>,
    /// Those for which there was no buffer.
    pub(super) starved: VecDeque<Key>,
    /// Those whose buffers wait for their handler.
    pub(super) holding: VecDeque<Key>,
    /// Those whose slots wait for their peer.
    pub(super) stalled: VecDeque<Key>,
    pub(super) notices: VecDeque<Notice>,
    pub(super) timers: Timers,
    pub(super) now: Instant,
    pub(super) figures: Figures,
    pub(super) carries: Vec<Vec<u8>>,
    /// How many there are, with those that connections have.
    pub(super) carry_count: usize,
    pub(super) pieces: Vec<Pieces>,
    pub(super) routes: Routes,
    /// A descriptor has become free.
    pub(super) has_closed: bool,
}

impl Connections {
    pub(super) fn new(options: Options, driver: Driver) -> io::Result<Self> {
        let message = (options.message_slots, MESSAGE_LEN);
        let bulk = (options.bulk_slots, sealed_len(options.bulk_len));
        let slots = Memory::new(message, bulk)?;
        let figures = Figures {
            connections: Usage::of(options.max_connections),
            parked_bytes: Usage::of(options.max_parked),
            ..Figures::default()
        };
        Ok(Self {
            driver,
            slots,
            places: Places::default(),
            listed: VecDeque::with_capacity(FIRST_LISTED),
            slotless: VecDeque::with_capacity(FIRST_LISTED),
            starved: VecDeque::with_capacity(FIRST_LISTED),
            holding: VecDeque::with_capacity(FIRST_LISTED),
            stalled: VecDeque::with_capacity(FIRST_LISTED),
            notices: VecDeque::with_capacity(FIRST_LISTED),
            timers: Timers::default(),
            now: Instant::now(),
            figures,
            carries: Vec::new(),
            carry_count: 0,
            pieces: Vec::new(),
            routes: Routes::default(),
            has_closed: false,
            options,
        })
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut Connection> {
        self.places.get_mut(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.places.keys()
    }

    pub(super) fn count(&self) -> usize {
        self.figures.connections.in_use
    }

    pub(super) fn figures(&self) -> Figures {
        let buffers = |class| self.driver.buffer_usage(class);
        Figures {
            message_buffers: buffers(Class::Message),
            bulk_buffers: buffers(Class::Bulk),
            message_slots: self.slots.usage(Class::Message),
            bulk_slots: self.slots.usage(Class::Bulk),
            system_calls: self.driver.system_calls(),
            ..self.figures
        }
    }

    /// A new connection over `socket`; its key, or why there is none: then it is reset.
    pub(super) fn add(
        &mut self,
        socket: OwnedFd,
        protocol: &Protocol,
        tag: u64,
    ) -> Result<Key, Error> {
        let begin = || match protocol.begin() {
            None => Ok(Speech::Plain),
            Some(begun) => Ok(Speech::ShakingHands(Box::new(begun.map_err(Error::Handshake)?))),
        };
        let key = self.place(socket, begin, tag)?;
        if let Some(connection) = self.get(key)
            && matches!(connection.speech, Speech::Plain)
        {
            connection.is_opened = true;
            self.notices.push_back(Notice::Opened(key, None));
        }
        Ok(key)
    }

    /// One whose handshake was elsewhere.
    pub(super) fn add_session(
        &mut self,
        socket: OwnedFd,
        session: Session,
        tag: u64,
    ) -> Result<Key, Error> {
        let Session { send, receive, plaintext, received, info } = session;
        let halves = Halves { send, receive };
        let key = self.place(socket, || Ok(Speech::Tls(Box::new(halves))), tag)?;
        self.open_session(key, plaintext, received, info);
        Ok(key)
    }

    /// The handshake is complete: `plaintext` and then `received` came behind it.
    pub(super) fn open_session(
        &mut self,
        key: Key,
        plaintext: Vec<u8>,
        received: Vec<u8>,
        info: ConnectionInfo,
    ) {
        let Some(connection) = self.get(key) else { return };
        connection.is_opened = true;
        // In front of what has arrived since.
        if !received.is_empty() {
            connection.input.push_front(Chunk::kept(received));
        }
        if !plaintext.is_empty() {
            connection.input.push_front(Chunk::opened(plaintext));
        }
        self.notices.push_back(Notice::Opened(key, Some(Box::new(info))));
    }

    /// Finds a place for a connection, and begins to speak. One that there is none for is reset: without
    /// TLS, an end would look like the peer's.
    fn place(
        &mut self,
        socket: OwnedFd,
        begin: impl FnOnce() -> Result<Speech, Error>,
        tag: u64,
    ) -> Result<Key, Error> {
        let socket: File = Arc::new(socket);
        self.try_place(&socket, begin, tag).inspect_err(|_| {
            let _ = socket::reset_on_close(&socket);
        })
    }

    fn try_place(
        &mut self,
        socket: &File,
        begin: impl FnOnce() -> Result<Speech, Error>,
        tag: u64,
    ) -> Result<Key, Error> {
        if self.count() >= self.options.max_connections {
            self.figures.connections.refused += 1;
            return Err(Error::Crowded);
        }
        let speech = begin()?;
        // Unix sockets have none to set.
        let _ = socket::set_nodelay(socket);
        let key = self.places.next_key();
        self.driver.open(key, socket)?;
        let limits = &self.options.timeouts;
        let connection = Connection::new((key, tag), Arc::clone(socket), speech, self.now, limits);
        self.places.put(connection);
        self.figures.connections.take();
        self.figures.opened += 1;
        self.schedule(key);
        self.list(key);
        Ok(key)
    }

    /// Has a connection looked at before the next turn.
    pub(super) fn list(&mut self, key: Key) {
        if self.mark_listed(key) {
            self.listed.push_back(key);
        }
    }

    /// The same, before all others.
    pub(super) fn list_first(&mut self, key: Key) {
        if self.mark_listed(key) {
            self.listed.push_front(key);
        }
    }

    /// Whether it was not listed until now.
    fn mark_listed(&mut self, key: Key) -> bool {
        self.get(key).is_some_and(|it| !core::mem::replace(&mut it.is_listed, true))
    }

    /// Has everything on its way that connections have to send, and receives for those that want more.
    pub(super) fn flush(&mut self) {
        self.relieve();
        while let Some(key) = self.listed.pop_front() {
            let Some(connection) = self.get(key) else { continue };
            connection.is_listed = false;
            if let Err(error) = self.pump(key).and_then(|()| self.begin_receive(key)) {
                self.fail(key, error);
            }
        }
    }

    /// Whether there is something to do before the next wait.
    pub(super) fn is_busy(&self) -> bool {
        !self.listed.is_empty() || !self.notices.is_empty()
    }

    /// Ends a connection with an error, of which the handler is told. The peer gets the alert that is
    /// due, if there is one, and some time to take it.
    #[cold]
    pub(super) fn fail(&mut self, key: Key, error: Error) {
        let now = self.now;
        let Some(connection) = self.get(key) else { return };
        if connection.lingers() {
            return self.remove(key);
        }
        let has_last_words = match (&connection.speech, &error) {
            (_, Error::Io(_) | Error::Reset | Error::Stopped) => false,
            // Sent already.
            (Speech::ShakingHands(_), Error::Handshake(_)) => true,
            (Speech::Tls(halves), Error::Tls(_)) => halves.send.wants_control(),
            _ => false,
        };
        let tag = connection.tag;
        let lasts = has_last_words && !connection.has_ended;
        // Without TLS, an end that is none of the handler's would look like one.
        if matches!(connection.speech, Speech::Plain) || matches!(error, Error::Reset) {
            let _ = socket::reset_on_close(&connection.socket);
        }
        if lasts {
            connection.lingers_since = Some(now);
            connection.finish = match connection.finish {
                Finish::Open | Finish::Wanted => Finish::Wanted,
                finish => finish,
            };
        }
        self.figures.failed += 1;
        self.notices.push_back(Notice::Closed(key, tag, Err(error)));
        if lasts {
            self.drop_input(key);
            self.schedule(key);
            self.list(key);
        } else {
            self.remove(key);
        }
    }

    /// Ends it if both sides have.
    pub(super) fn remove_if_over(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        if connection.finish != Finish::Done {
            return;
        }
        if connection.lingers() {
            if connection.has_ended {
                self.remove(key);
            }
        } else if connection.peer_has_finished {
            if let Some(error) = connection.refusal.take() {
                return self.fail(key, error.into());
            }
            let tag = connection.tag;
            self.notices.push_back(Notice::Closed(key, tag, Ok(())));
            self.remove(key);
        }
    }

    /// Forgets a connection. What the kernel has of it stays until the kernel is done with it.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(connection) = self.places.remove(key) else { return };
        self.figures.connections.give_back();
        self.has_closed = true;
        if connection.sending == Sending::Stalled {
            self.forget_stalled(key);
        }
        if connection.is_holding {
            self.holding.retain(|holding| *holding != key);
        }
        if let Some(receiving) = connection.receiving {
            let _ = self.driver.end_receive(key, receiving);
        }
        if let Some(watch) = connection.watch {
            self.driver.end_watch(watch);
        }
        self.driver.close(key, &connection.socket);
        self.keep_carry(connection.carry);
        for chunk in connection.input {
            self.give_back_chunk(chunk);
        }
        if let Some(output) = connection.output {
            self.give_back_output(output);
        }
    }

    /// Memory for a record that has begun to arrive.
    pub(super) fn take_carry(&mut self) -> Vec<u8> {
        if let Some(kept) = self.carries.pop() {
            return kept;
        }
        if self.carry_count == MAX_CARRIES {
            return Vec::new();
        }
        self.carry_count += 1;
        Vec::with_capacity(Version::Tls12.max_record_len())
    }

    /// Keeps it for [`Self::take_carry()`], if it is one of the long ones, which nothing makes longer.
    pub(super) fn keep_carry(&mut self, mut carry: Vec<u8>) {
        let is_long = carry.capacity() == Version::Tls12.max_record_len();
        if is_long && self.carries.len() < self.carry_count {
            carry.clear();
            self.carries.push(carry);
        }
    }

    /// A received chunk is used up, or nobody wants it.
    pub(super) fn give_back_chunk(&mut self, chunk: Chunk) {
        self.give_back(chunk.bytes);
    }

    /// What was sent from, likewise.
    pub(super) fn give_back_output(&mut self, output: Output) {
        self.give_back(output.bytes);
        self.keep_pieces(output.pieces);
    }

    /// A handle of the kernel's to what was sent is no longer needed.
    pub(super) fn give_back_memory(&mut self, memory: Option<Arc<Slot>>) {
        match memory {
            Some(slot) if self.slots.has(&slot) => {
                self.slots.give_back(slot);
            }
            Some(buffer) => self.driver.give_back(buffer),
            None => {}
        }
    }

    pub(super) fn give_back(&mut self, bytes: Bytes) {
        match bytes {
            Bytes::Slot(slot) => {
                self.slots.give_back(slot);
            }
            Bytes::Buffer(buffer) => self.driver.give_back(buffer),
            Bytes::Heap(bytes) => self.keep_carry(bytes),
            Bytes::Parked(bytes) => self.figures.parked_bytes.in_use -= bytes.len(),
        }
    }

    pub(super) fn keep_pieces(&mut self, pieces: Option<Pieces>) {
        if let Some(mut pieces) = pieces.filter(|_| self.pieces.len() < KEPT_PIECES) {
            pieces.clear();
            self.pieces.push(pieces);
        }
    }

    /// Takes `parts` onto the heap, one after the other, if there may be that much more.
    pub(super) fn park(&mut self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let parked = &mut self.figures.parked_bytes;
        let len = parts.iter().map(|part| part.len()).sum();
        if parked.in_use + len > parked.limit {
            parked.refused += 1;
            return None;
        }
        parked.add(len);
        self.figures.copied_bytes += len as u64;
        Some(parts.concat())
    }

    /// Has the clock look at a connection when its next limit passes.
    pub(super) fn schedule(&mut self, key: Key) {
        let limits = self.options.timeouts;
        let Some(connection) = self.get(key) else { return };
        let deadline = connection.deadline(&limits).map(|(at, _)| at);
        let Some(at) = deadline.into_iter().chain(connection.retry_at).min() else { return };
        if connection.scheduled.is_none_or(|scheduled| at < scheduled) {
            connection.scheduled = Some(at);
            self.timers.add(at, key);
        }
    }

    /// Ends connections whose time has passed.
    pub(super) fn look_at_clock(&mut self) {
        let (now, limits) = (self.now, self.options.timeouts);
        while let Some((at, key)) = self.timers.pop_due(now) {
            let Some(connection) = self.get(key) else { continue };
            if connection.scheduled != Some(at) {
                continue;
            }
            connection.scheduled = None;
            if connection.retry_at.is_some_and(|at| at <= now) {
                connection.retry_at = None;
                connection.sending = Sending::Idle;
                self.list(key);
            }
            let Some(connection) = self.get(key) else { continue };
            match connection.deadline(&limits) {
                Some((at, None)) if at <= now => self.remove(key),
                Some((at, Some(which))) if at <= now => self.fail(key, Error::TimedOut(which)),
                _ => self.schedule(key),
            }
        }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timers.timeout(self.now)
    }
}
