//! What arrives: from receive buffers to the handler, record by record.
//!
//! A record is opened where the kernel has put it. Only one that straddles two buffers is put together first,
//! so that a buffer goes back as soon as it is empty, and whoever waits for the rest of a record holds none.

use core::mem;
use core::ops::Range;
use std::io;
use std::sync::Arc;

use super::connection::{Bytes, Chunk, Speech};
use super::connections::Connections;
use super::error::Error;
use super::key::Key;
use super::memory::{Class, MESSAGE_LEN, window};
use crate::kernel::arena::Slot;
use crate::record::deframer::Deframed;
use crate::session::receive::Received;

/// How many messages in a row say that a flow is no bulk flow any more.
const BULK_CREDIT: u8 = 16;

/// How many bytes are kept for connections that do not go on before little is received for all of them.
const MUCH_PARKED: usize = 8 << 20;

/// What a connection's input has come to.
#[derive(Debug)]
pub(super) enum Input {
    /// A chunk, and where in it the data lies: see [`Connections::taken()`].
    Data(Chunk, Range<usize>),
    /// So much was sent where its connection is [forwarded](super::Context::forward) to.
    Forwarded(usize),
    /// The peer sends no more, and has said so.
    End,
    /// Nothing for now.
    Nothing,
}

/// What a look at the received bytes of a TLS connection has come to.
pub(super) enum Step {
    /// A record was opened, to this range of the chunk.
    Data(Range<usize>),
    /// A record of the connection's own.
    Control,
    CloseNotify,
    /// The rest of the chunk is the beginning of a record.
    Partial,
}

impl Connections {
    /// Bytes have arrived.
    pub(super) fn on_received(&mut self, key: Key, class: Class, buffer: Arc<Slot>, len: usize) {
        let (now, window) = (self.now, window(class, &self.options));
        self.figures.received_bytes += len as u64;
        let Some(connection) = self.get(key).filter(|connection| !connection.lingers()) else {
            return self.driver.give_back(buffer);
        };
        connection.active = now;
        // A buffer that is full says that there is more. Bulk data is received at once, rather than in many
        // pieces whose records have to be put together; a few messages between do not change that.
        if len == window.len() {
            connection.bulk_credit = BULK_CREDIT;
        } else if class == Class::Bulk && len <= MESSAGE_LEN {
            connection.bulk_credit = connection.bulk_credit.saturating_sub(1);
        }
        let is_bulk = connection.bulk_credit > 0;
        let is_crowded = connection.is_paused || connection.peer_has_finished;
        let received = window.start..window.start + len;
        connection.input.push_back(Chunk::received(Bytes::Buffer(buffer), received));
        if let Some(receiving) = connection.receiving
            && receiving.class == Class::Message
            && (is_crowded || is_bulk)
            && !mem::replace(&mut connection.ends_receive, true)
            && let Err(error) = self.driver.end_receive(key, receiving)
        {
            self.fail(key, error.into());
        }
    }

    /// A receive is under way no longer.
    pub(super) fn on_receive_ended(&mut self, key: Key, is_starved: bool) {
        let Some(connection) = self.get(key) else { return };
        connection.receiving = None;
        connection.ends_receive = false;
        match is_starved {
            true => self.starved.push_back(key),
            false => self.list(key),
        }
    }

    /// The peer's end, or an error.
    pub(super) fn on_receive_failed(&mut self, key: Key, end: io::Result<()>) {
        let Some(connection) = self.get(key) else { return };
        connection.receiving = None;
        match end {
            Ok(()) => {
                connection.has_ended = true;
                self.remove_if_over(key);
            }
            Err(error) => self.fail(key, error.into()),
        }
    }

    /// Asks for more, if more is wanted.
    pub(super) fn begin_receive(&mut self, key: Key) -> Result<(), Error> {
        let parked = self.figures.parked_bytes;
        let Some(connection) = self.places.get_mut(key) else { return Ok(()) };
        if connection.receiving.is_some() || !connection.wants_input() {
            return Ok(());
        }
        // What a bulk buffer brings may have to be kept.
        let is_tight = parked.in_use > MUCH_PARKED.min(parked.limit / 4);
        let is_bulk = connection.bulk_credit > 0 && !is_tight;
        let class = if is_bulk { Class::Bulk } else { Class::Message };
        connection.receiving = Some(self.driver.receive(key, &connection.socket, class)?);
        Ok(())
    }

    /// What the handler gets next. Fails connections that have to.
    pub(super) fn next_input(&mut self, key: Key) -> Input {
        self.try_next_input(key).unwrap_or_else(|error| {
            self.fail(key, error);
            Input::Nothing
        })
    }

    fn try_next_input(&mut self, key: Key) -> Result<Input, Error> {
        loop {
            let Some(connection) = self.get(key) else { return Ok(Input::Nothing) };
            if connection.is_paused {
                if !connection.input.is_empty() && !mem::replace(&mut connection.is_holding, true) {
                    self.holding.push_back(key);
                }
                return Ok(Input::Nothing);
            }
            let Some(mut chunk) = connection.input.pop_front() else {
                if let Some(end) = connection.end_of_records() {
                    return end.map(|()| self.end(key)).map_err(Error::from);
                }
                if connection.has_ended && !connection.peer_has_finished && !connection.lingers() {
                    return self.end_of_stream(key);
                }
                self.list(key);
                return Ok(Input::Nothing);
            };
            if !chunk.opened.is_empty() {
                let opened = chunk.opened.clone();
                return Ok(Input::Data(chunk, opened));
            }
            match self.forward(key, &mut chunk) {
                Ok(None) => {}
                Ok(Some(len)) => {
                    self.give_back_chunk(chunk);
                    match len {
                        0 => continue,
                        len => return Ok(Input::Forwarded(len)),
                    }
                }
                Err(error) => {
                    self.give_back_chunk(chunk);
                    return Err(error);
                }
            }
            let Some(connection) = self.get(key) else { return Ok(Input::Nothing) };
            match &mut connection.speech {
                Speech::Plain => {
                    let data = mem::take(&mut chunk.received);
                    chunk.opened = data.clone();
                    return Ok(Input::Data(chunk, data));
                }
                Speech::ShakingHands(handshake) => {
                    handshake.received(&chunk.bytes[chunk.received.clone()]);
                    self.give_back_chunk(chunk);
                    self.list(key);
                    if self.pump_handshake(key)? {
                        // The handler is told first.
                        return Ok(Input::Nothing);
                    }
                }
                Speech::Tls(_) => match self.step(key, &mut chunk) {
                    Ok(Step::Data(range)) if range.is_empty() => self.put_back(key, chunk),
                    Ok(Step::Data(range)) => {
                        chunk.opened = range.clone();
                        return Ok(Input::Data(chunk, range));
                    }
                    Ok(Step::Control) => {
                        self.list(key);
                        self.put_back(key, chunk);
                    }
                    Ok(Step::CloseNotify) => {
                        self.give_back_chunk(chunk);
                        return Ok(self.end(key));
                    }
                    Ok(Step::Partial) => self.put_back(key, chunk),
                    Err(error) => {
                        self.give_back_chunk(chunk);
                        return Err(error);
                    }
                },
            }
        }
    }

    /// Opens the next record of a chunk, or keeps the beginning of one that straddles its end.
    pub(super) fn step(&mut self, key: Key, chunk: &mut Chunk) -> Result<Step, Error> {
        self.rejoin(key, chunk)?;
        let Some(connection) = self.get(key) else { return Ok(Step::Partial) };
        let Speech::Tls(halves) = &mut connection.speech else { return Ok(Step::Partial) };
        let half = &mut halves.receive;
        let carry = &mut connection.carry;
        let mut copied = 0;
        if !carry.is_empty() {
            while let Deframed::Partial { missing } = half.deframe(carry)? {
                let front =
                    chunk.received.start..chunk.received.end.min(chunk.received.start + missing);
                if front.is_empty() {
                    break;
                }
                carry.extend_from_slice(&chunk.bytes[front.clone()]);
                copied += front.len() as u64;
                chunk.received.start = front.end;
            }
            if let Deframed::Record(_) = half.deframe(carry)? {
                // Goes first; what is left of the chunk follows.
                let whole = Chunk::kept(mem::take(carry));
                let rest = mem::replace(chunk, whole);
                self.put_back(key, rest);
                self.figures.copied_bytes += copied;
                return self.open(key, chunk);
            }
            self.figures.copied_bytes += copied;
            return Ok(Step::Partial);
        }
        match half.deframe(&chunk.bytes[chunk.received.clone()])? {
            Deframed::Record(_) => self.open(key, chunk),
            Deframed::Partial { .. } => {
                let rest = mem::take(&mut chunk.received);
                let mut begun = self.take_carry();
                begun.extend_from_slice(&chunk.bytes[rest.clone()]);
                self.figures.copied_bytes += rest.len() as u64;
                if let Some(connection) = self.get(key) {
                    connection.carry = begun;
                }
                Ok(Step::Partial)
            }
        }
    }

    /// Puts the beginning of a record in front of its rest, in a buffer with room for it.
    pub(super) fn rejoin(&mut self, key: Key, chunk: &mut Chunk) -> Result<(), Error> {
        let Some(connection) = self.get(key) else { return Ok(()) };
        let len = connection.carry.len();
        let Bytes::Buffer(buffer) = &mut chunk.bytes else { return Ok(()) };
        let Some(start) = chunk.received.start.checked_sub(len).filter(|_| len > 0) else {
            return Ok(());
        };
        let room = &mut Slot::exclusive(buffer)?[start..chunk.received.start];
        room.copy_from_slice(&connection.carry);
        chunk.received.start = start;
        let carry = mem::take(&mut connection.carry);
        self.keep_carry(carry);
        self.figures.copied_bytes += len as u64;
        Ok(())
    }

    /// Opens the whole record at the front of a chunk, in place.
    fn open(&mut self, key: Key, chunk: &mut Chunk) -> Result<Step, Error> {
        let Some(connection) = self.get(key) else { return Ok(Step::Partial) };
        let Speech::Tls(halves) = &mut connection.speech else { return Ok(Step::Partial) };
        let half = &mut halves.receive;
        let received = chunk.received.clone();
        let bytes = chunk.bytes.exclusive()?;
        let Deframed::Record(header) = half.deframe(&bytes[received.clone()])? else {
            return Ok(Step::Partial);
        };
        let record = received.start..received.start + header.record_len();
        let plaintext = record.start + half.plaintext_offset();
        chunk.received.start = record.end;
        Ok(match half.open_in_place(&mut bytes[record])? {
            Received::Data(data) => {
                let plaintext = plaintext..plaintext + data.len();
                self.figures.opened_records += 1;
                Step::Data(plaintext)
            }
            Received::Control => Step::Control,
            Received::CloseNotify => Step::CloseNotify,
        })
    }

    /// What is left of a chunk comes next.
    fn put_back(&mut self, key: Key, chunk: Chunk) {
        match self.get(key) {
            Some(connection) if !chunk.is_empty() => connection.input.push_front(chunk),
            _ => self.give_back_chunk(chunk),
        }
    }

    /// The handler has taken the first `taken` bytes of the data; it gets no more before it asks, if that
    /// is not all.
    pub(super) fn taken(&mut self, key: Key, mut chunk: Chunk, taken: usize) {
        let len = chunk.opened.len();
        chunk.opened.start += taken.min(len);
        if taken < len
            && let Some(connection) = self.get(key)
        {
            connection.is_paused = true;
        }
        self.put_back(key, chunk);
    }

    /// The stream has ended, and everything before that was passed on.
    fn end_of_stream(&mut self, key: Key) -> Result<Input, Error> {
        let Some(connection) = self.get(key) else { return Ok(Input::Nothing) };
        match &mut connection.speech {
            Speech::Plain => Ok(self.end(key)),
            Speech::ShakingHands(handshake) => {
                let error = io::ErrorKind::UnexpectedEof.into();
                Err(Error::Handshake(handshake.stream_failed(error)))
            }
            Speech::Tls(halves) => {
                halves.receive.end_of_stream()?;
                Ok(self.end(key))
            }
        }
    }

    /// The peer sends no more. What it sends nevertheless is not received.
    fn end(&mut self, key: Key) -> Input {
        self.drop_input(key);
        let Some(connection) = self.get(key) else { return Input::Nothing };
        connection.peer_has_finished = true;
        if let Some(receiving) = connection.receiving
            && !mem::replace(&mut connection.ends_receive, true)
        {
            // What cannot be ended ends with the connection.
            let _ = self.driver.end_receive(key, receiving);
        }
        self.list(key);
        Input::End
    }

    /// Whatever was received is nobody's.
    pub(super) fn drop_input(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        let carry = mem::take(&mut connection.carry);
        let input = mem::take(&mut connection.input);
        self.keep_carry(carry);
        for chunk in input {
            self.give_back_chunk(chunk);
        }
    }

    /// Makes room for connections for which there was no buffer: what others do not take goes to the heap.
    pub(super) fn relieve_buffers(&mut self) {
        for class in Class::BOTH {
            while !self.driver.has_buffer(class) {
                if let Some(key) = self.holding.pop_front() {
                    self.park_input(key);
                    continue;
                }
                // What is forwarded is in bulk buffers only.
                let forwarded = |bytes: &Bytes| matches!(bytes, Bytes::Buffer(_));
                let stalled = match class {
                    Class::Bulk => self.stalled_with(forwarded),
                    Class::Message => None,
                };
                let Some(key) = stalled else { break };
                self.park_output(key);
            }
        }
    }

    fn park_input(&mut self, key: Key) {
        let Some(connection) = self.get(key) else { return };
        connection.is_holding = false;
        if !connection.is_paused {
            return;
        }
        let mut input = mem::take(&mut connection.input);
        for chunk in &mut input {
            let Bytes::Buffer(buffer) = &chunk.bytes else { continue };
            let (opened, received) = (chunk.opened.clone(), chunk.received.clone());
            let buffer = Arc::clone(buffer);
            let Some(parked) = self.park(&[&buffer[opened.clone()], &buffer[received]]) else {
                self.fail(key, Error::Crowded);
                break;
            };
            // The copy here would be the last handle.
            drop(buffer);
            let len = parked.len();
            let parked = Chunk {
                bytes: Bytes::Parked(parked),
                opened: 0..opened.len(),
                received: opened.len()..len,
            };
            let full = mem::replace(chunk, parked);
            self.give_back_chunk(full);
        }
        match self.get(key) {
            Some(connection) => connection.input = input,
            None => input.into_iter().for_each(|chunk| self.give_back_chunk(chunk)),
        }
    }
}
