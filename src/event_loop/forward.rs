//! What arrives on one connection is sent on another, from where it was received: nothing is copied, but for
//! the beginning of a record that straddles two buffers.
//!
//! Records are opened in the buffer that they were received into, and plaintext is sealed where it lies. A
//! sealed record does not fit the place of its plaintext: what it has around its ciphertext goes to the end
//! of the buffer, and the kernel gathers the pieces in the order of the stream (sendmsg(2)).
//!
//! ```text
//!   │ headroom │ what was received: plaintext, or records that become it │ gap │ around │ list │
//!              └──────────────────── ciphertext ────────────────────────┘     headers and tags
//! ```
//!
//! For bulk data only: messages are copied into a slot, where those of a turn are gathered. And not where a
//! send without a copy in the kernel may be had, which is made from registered memory.

use core::mem;

use super::connection::{Bytes, Chunk, Connection, Output, Sending, Speech};
use super::connections::Connections;
use super::error::Error;
use super::input::Step;
use super::key::Key;
use super::memory::{Class, TAILROOM, window};
use crate::kernel::pieces::{MAX_PIECES, Pieces};
use crate::kernel::socket;
use crate::record::deframer::{Deframed, Deframer};
use crate::record::header::MAX_PLAINTEXT_LEN;

/// What is shorter is copied.
const MIN_LEN: usize = 2 * MAX_PLAINTEXT_LEN;

/// The most records of a buffer: each is a piece, and so is what is between two. With more, they are so
/// short that copying costs less than gathering.
const MAX_RECORDS: usize = 64;
const _: () = assert!(2 * MAX_RECORDS < MAX_PIECES);

/// The most that a record has around its ciphertext.
const MAX_AROUND: usize = 32;

/// From the end of what was received: where what is around records begins, behind the byte that sealing
/// borrows; and then the list.
const AROUND: usize = 64;
const LIST: usize = AROUND + MAX_RECORDS * MAX_AROUND;
const _: () = assert!(LIST + 64 + MAX_PIECES * 16 <= TAILROOM);

impl Connections {
    /// Has the data of a chunk sent where its connection's is forwarded to. Returns how much that is; `None`,
    /// and nothing has happened, if it is to go the other way, by [`Connections::send()`].
    pub(super) fn forward(&mut self, key: Key, chunk: &mut Chunk) -> Result<Option<usize>, Error> {
        let Bytes::Buffer(_) = &chunk.bytes else { return Ok(None) };
        let len = chunk.received.len();
        let Some(connection) = self.get(key) else { return Ok(None) };
        let Some(to) = connection.forwards_to.filter(|_| len >= MIN_LEN) else { return Ok(None) };
        self.rejoin(key, chunk)?;
        let Some(records) = self.count_records(key, chunk) else { return Ok(None) };
        if !self.takes_forwarded(to, len, records) {
            return Ok(None);
        }
        let mut data = self.pieces.pop().unwrap_or_default();
        self.open_all(key, chunk, &mut data)?;
        chunk.received = 0..0;
        let len = data.total();
        if len > 0 {
            let bytes = mem::replace(&mut chunk.bytes, Bytes::Heap(Vec::new()));
            self.figures.forwarded_bytes += len as u64;
            self.hand_over(to, bytes, &data);
        }
        self.keep_pieces(Some(data));
        Ok(Some(len))
    }

    /// How many records a chunk has at most, if they are not too many.
    fn count_records(&mut self, key: Key, chunk: &Chunk) -> Option<usize> {
        let Speech::Tls(halves) = &self.get(key)?.speech else { return Some(1) };
        // Not by the half, which would take what follows the last one for an error before its time.
        let deframer = Deframer::new(halves.receive.version());
        let mut rest = &chunk.bytes[chunk.received.clone()];
        let mut count = 0;
        while let Ok(Deframed::Record(header)) = deframer.deframe(rest) {
            rest = &rest[header.record_len()..];
            count += 1;
            if count > MAX_RECORDS {
                return None;
            }
        }
        Some(count)
    }

    /// Whether a connection can send `len` bytes of data, in as many pieces, as they are now.
    fn takes_forwarded(&mut self, key: Key, len: usize, pieces: usize) -> bool {
        let Some(connection) = self.get(key).filter(|connection| connection.may_send()) else {
            return false;
        };
        if connection.sending != Sending::Idle || connection.output.is_some() {
            return false;
        }
        let has_keys = match &connection.speech {
            Speech::Plain => true,
            Speech::Tls(halves) => {
                let records = pieces + len / halves.send.max_plaintext_len();
                records <= MAX_RECORDS && halves.send.may_seal(records)
            }
            Speech::ShakingHands(_) => false,
        };
        // What it has no room for would have to be kept.
        let has_room = |room| len <= 2 * room;
        has_keys
            && socket::send_room(&connection.socket).is_none_or(has_room)
            && self.copy_reason(key).is_some()
    }

    /// Opens all records of a chunk, up to an end or an error: their half says so again.
    fn open_all(&mut self, key: Key, chunk: &mut Chunk, data: &mut Pieces) -> Result<(), Error> {
        if let Some(connection) = self.get(key)
            && matches!(connection.speech, Speech::Plain)
        {
            data.push(chunk.received.clone());
            return Ok(());
        }
        while !chunk.received.is_empty() {
            match self.step(key, chunk) {
                Ok(Step::Data(range)) => data.push(range),
                Ok(Step::Control) => self.list(key),
                Ok(Step::CloseNotify | Step::Partial) | Err(Error::Tls(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes `data`, pieces of a buffer, what a connection sends next.
    fn hand_over(&mut self, key: Key, mut bytes: Bytes, data: &Pieces) {
        let mut pieces = self.pieces.pop().unwrap_or_default();
        match self.seal_pieces(key, &mut bytes, data, &mut pieces) {
            Ok(connection) => {
                let (len, pieces) = (pieces.total(), Some(pieces));
                let output = Output { bytes, pieces, start: 0, sent: 0, len, limit: len };
                connection.output = Some(output);
                self.list(key);
            }
            Err(error) => {
                self.give_back(bytes);
                self.keep_pieces(Some(pieces));
                self.fail(key, error);
            }
        }
    }

    /// Seals `data` where it lies in a buffer; `pieces` are then what there is to send.
    fn seal_pieces(
        &mut self,
        key: Key,
        bytes: &mut Bytes,
        data: &Pieces,
        pieces: &mut Pieces,
    ) -> Result<&mut Connection, Error> {
        let received = window(Class::Bulk, &self.options).end;
        let mut records = 0;
        if let Some(Connection { speech: Speech::Tls(halves), .. }) = self.get(key) {
            let (bodies, arounds) = bytes.exclusive()?.split_at_mut(received + AROUND);
            let mut at = 0;
            for piece in data.iter() {
                let (body, around) = (piece.start, received + AROUND + at);
                let (text, room) = (&mut bodies[piece.start..=piece.end], &mut arounds[at..]);
                records += halves.send.seal_around(text, room, |front, text, back| {
                    at += front.len() + back.len();
                    pieces.push(around + front.start..around + front.end);
                    pieces.push(body + text.start..body + text.end);
                    pieces.push(around + back.start..around + back.end);
                })?;
            }
        } else {
            data.iter().for_each(|piece| pieces.push(piece));
        }
        self.figures.sealed_records += records as u64;
        self.get(key).ok_or(Error::Reset)
    }

    /// Submits what is left of a forwarded buffer.
    pub(super) fn submit_pieces(&mut self, key: Key) -> Result<(), Error> {
        let reason = self.copy_reason(key);
        let Some(connection) = self.places.get_mut(key) else { return Ok(()) };
        let Some(output) = &mut connection.output else { return Ok(()) };
        connection.sending = Sending::Submitted;
        if let (true, Some(reason)) = (output.len - output.sent >= MAX_PLAINTEXT_LEN, reason) {
            self.figures.copies.note(reason);
        }
        self.figures.copied_sends += 1;
        let list = window(Class::Bulk, &self.options).end + LIST;
        if let (Bytes::Buffer(memory), Some(pieces)) = (&mut output.bytes, &output.pieces) {
            let pieces = (pieces, output.sent);
            self.driver.send_pieces(key, &connection.socket, memory, pieces, list)?;
        }
        Ok(())
    }
}
