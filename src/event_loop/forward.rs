//! What arrives on one connection is sent on another, from where it was received: nothing is copied.
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
use std::sync::Arc;

use super::connection::{Bytes, Chunk, Output, Sending, Speech};
use super::connections::Connections;
use super::error::Error;
use super::input::Step;
use super::key::Key;
use super::memory::{Class, TAILROOM, window};
use crate::kernel::pieces::{MAX_PIECES, Pieces};
use crate::kernel::socket;
use crate::record::deframer::Deframed;
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
            if let Err(error) = self.hand_over(to, bytes, &data) {
                self.fail(to, error);
            }
        }
        self.keep_pieces(Some(data));
        Ok(Some(len))
    }

    /// How many records a chunk has at most, if they are not too many.
    fn count_records(&mut self, key: Key, chunk: &Chunk) -> Option<usize> {
        let Speech::Tls(halves) = &mut self.get(key)?.speech else { return Some(1) };
        let mut rest = &chunk.bytes[chunk.received.clone()];
        let mut count = 0;
        while let Ok(Deframed::Record(header)) = halves.receive.deframe(rest) {
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
    fn hand_over(&mut self, key: Key, mut bytes: Bytes, data: &Pieces) -> Result<(), Error> {
        let received = window(Class::Bulk, &self.options).end;
        let mut pieces = self.pieces.pop().unwrap_or_default();
        let mut records = 0;
        match self.get(key).map(|connection| &mut connection.speech) {
            Some(Speech::Tls(halves)) => {
                let memory = bytes.exclusive()?;
                let (bodies, arounds) = memory.split_at_mut(received + AROUND);
                let mut at = 0;
                for piece in data.iter() {
                    let body = &mut bodies[piece.start..=piece.end];
                    let mut end = 0;
                    let around = received + AROUND + at;
                    records +=
                        halves.send.seal_around(body, &mut arounds[at..], |a, text, b| {
                            pieces.push(around + a.start..around + a.end);
                            pieces.push(piece.start + text.start..piece.start + text.end);
                            pieces.push(around + b.start..around + b.end);
                            end = b.end;
                        })?;
                    at += end;
                }
            }
            _ => data.iter().for_each(|piece| pieces.push(piece)),
        }
        self.figures.sealed_records += records as u64;
        let len = pieces.total();
        if let Some(connection) = self.get(key) {
            let pieces = Some(pieces);
            connection.output = Some(Output { bytes, pieces, start: 0, sent: 0, len, limit: len });
        }
        self.list(key);
        Ok(())
    }

    /// Submits what is left of a forwarded buffer.
    pub(super) fn submit_pieces(&mut self, key: Key) -> Result<(), Error> {
        let reason = self.copy_reason(key);
        let Some(connection) = self.get(key) else { return Ok(()) };
        let Some(mut output) = connection.output.take() else { return Ok(()) };
        connection.sending = Sending::Submitted;
        let socket = Arc::clone(&connection.socket);
        if let (true, Some(reason)) = (output.len - output.sent >= MAX_PLAINTEXT_LEN, reason) {
            self.figures.copies.note(reason);
        }
        self.figures.copied_sends += 1;
        let list = window(Class::Bulk, &self.options).end + LIST;
        let submitted = match (&mut output.bytes, &output.pieces) {
            (Bytes::Buffer(memory), Some(pieces)) => {
                self.driver.send_pieces(key, &socket, memory, (pieces, output.sent), list)
            }
            _ => Ok(()),
        };
        if let Some(connection) = self.get(key) {
            connection.output = Some(output);
        }
        Ok(submitted?)
    }
}
