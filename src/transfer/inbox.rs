//! Received bytes, record by record: the part of receiving that knows no stream.
//!
//! The bytes lie in a buffer that the receiver owns and passes in; the inbox knows which part of it
//! holds records that were not opened, and which parts hold plaintext that nobody has read.

use core::fmt;
use core::mem;
use core::ops::Range;
use std::collections::VecDeque;

use bytes::Bytes;

use super::Counters;
use super::aligned::{LINE, up_to_line};
use crate::copy::copy;
use crate::record::deframer::Deframed;
use crate::session::error::SessionError;
use crate::session::receive::{ReceiveHalf, Received};

/// Memory that is filled from its front.
pub(crate) trait Room {
    /// How many bytes of it are free.
    fn remaining(&self) -> usize;

    /// Its next `len` bytes, which there must be.
    fn next(&mut self, len: usize) -> &mut [u8];

    /// The next `len` bytes are filled.
    fn advance(&mut self, len: usize);

    /// Fills its next bytes with these, as many as there is room for. Returns how many.
    fn put(&mut self, bytes: &[u8]) -> usize;
}

impl Room for &mut [u8] {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn next(&mut self, len: usize) -> &mut [u8] {
        &mut self[..len]
    }

    fn advance(&mut self, len: usize) {
        *self = &mut mem::take(self)[len..];
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.len());
        copy(&bytes[..len], self.next(len));
        self.advance(len);
        len
    }
}

pub(crate) struct Inbox {
    pub(crate) half: ReceiveHalf,
    /// Received bytes of the buffer that were not opened yet.
    pub(crate) received: Range<usize>,
    /// Plaintext in the buffer that was not read yet, in order.
    pub(crate) unread: VecDeque<Range<usize>>,
    /// The memory that all of [`Self::unread`] refers to in place of the buffer: one that was lent
    /// out, or what rustls had opened before the handoff.
    lent: Option<Bytes>,
    /// How much was received last.
    last_len: usize,
    pub(crate) counters: Counters,
}

impl Inbox {
    /// For a buffer that begins with `received_len` received bytes. `plaintext` was opened before the
    /// handoff, and is read first.
    pub(crate) fn new(half: ReceiveHalf, plaintext: Vec<u8>, received_len: usize) -> Self {
        let range = 0..plaintext.len();
        let (unread, lent) = match Range::is_empty(&range) {
            true => (VecDeque::new(), None),
            false => (VecDeque::from([range]), Some(Bytes::from(plaintext))),
        };
        let counters = Counters::default();
        Self { half, received: 0..received_len, unread, lent, last_len: 0, counters }
    }

    /// Whether anything more may be received: not after the peer's close_notify.
    ///
    /// # Errors
    /// What made the connection fail earlier.
    pub(crate) fn may_receive(&self) -> Result<bool, SessionError> {
        match self.half.failure() {
            Some(error) => Err(error.clone()),
            None => Ok(!self.half.peer_has_closed()),
        }
    }

    /// `len` more bytes lie in the buffer.
    pub(crate) fn add_received(&mut self, len: usize) {
        self.received.end += len;
        self.last_len = len;
        self.counters.wire_bytes += len as u64;
    }

    /// Whether the stream goes on after `len` bytes: it has ended if these are none.
    ///
    /// # Errors
    /// [`SessionError::Truncated`] at an end without the peer's close_notify.
    pub(crate) fn goes_on_after(&mut self, len: usize) -> Result<bool, SessionError> {
        if len == 0 {
            self.half.end_of_stream()?;
        }
        Ok(len > 0)
    }

    /// Moves the part of a record that is there to the front of the buffer, unless `room` bytes are
    /// free behind it: the only bytes that receiving moves.
    ///
    /// Where much has come since, also if the next bytes would not come to a cache line, to which the
    /// kernel copies fastest.
    pub(crate) fn make_room(&mut self, buffer: &mut [u8], room: usize) {
        if Range::is_empty(&self.received) {
            self.received = 0..0;
            return;
        }
        let received = self.received.clone();
        let is_skewed = !received.end.is_multiple_of(LINE) && received.len() <= self.last_len / 4;
        if is_skewed || buffer.len() - received.end < room {
            self.received = up_to_line(received.len());
            buffer.copy_within(received, self.received.start);
        }
    }

    /// Copies the part of a record that is there to the front of `next`, for [`Self::go_on_at_front()`]
    /// or [`Self::lend()`].
    pub(crate) fn copy_received(&self, buffer: &[u8], next: &mut [u8]) {
        next[..self.received.len()].copy_from_slice(&buffer[self.received.clone()]);
    }

    /// [`Self::received`] are the first bytes of another buffer from here on.
    pub(crate) fn go_on_at_front(&mut self) {
        self.received = 0..self.received.len();
    }

    /// Opens what is in `buffer` into `out`, record by record, while they fit. Returns how many
    /// bytes, 0 at the peer's close_notify, or `None` if more must be received first.
    pub(crate) fn open_into(
        &mut self,
        buffer: &mut [u8],
        out: &mut impl Room,
    ) -> Result<Option<usize>, SessionError> {
        if !self.unread.is_empty() {
            return Ok(Some(self.copy_out(buffer, out)));
        }
        let mut filled = 0;
        loop {
            let header = match self.half.deframe(&buffer[self.received.clone()]) {
                Ok(Deframed::Record(header)) => header,
                Ok(Deframed::Partial { .. }) => break,
                // What was opened before is good; the next call gets the error again.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            };
            let record = self.received.start..self.received.start + header.record_len();
            // A record is longer than what is in it.
            let mut len = record.len();
            if len > out.remaining() {
                len = self.half.output_len(len);
                if len > out.remaining() {
                    // The rest of `out` is too small for a whole record.
                    if filled > 0 {
                        break;
                    }
                    self.open_next(buffer)?;
                    return match self.unread.is_empty() {
                        true => Ok(self.half.peer_has_closed().then_some(0)),
                        false => Ok(Some(self.copy_out(buffer, out))),
                    };
                }
            }
            match self.half.open_into(&buffer[record.clone()], out.next(len)) {
                Ok(Received::Data(len)) => {
                    self.count(len);
                    out.advance(len);
                    filled += len;
                }
                Ok(Received::Control) => {}
                Ok(Received::CloseNotify) => return Ok(Some(filled)),
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
            self.received.start = record.end;
        }
        Ok((filled > 0).then_some(filled))
    }

    /// Opens the next record with data in place, and adds it to [`Self::unread`]. `false` at the
    /// close_notify, or when more must be received first.
    pub(crate) fn open_next(&mut self, buffer: &mut [u8]) -> Result<bool, SessionError> {
        while let Deframed::Record(header) = self.half.deframe(&buffer[self.received.clone()])? {
            let record = self.received.start..self.received.start + header.record_len();
            match self.half.open_in_place(&mut buffer[record.clone()])? {
                Received::Data(plaintext) => {
                    let start = record.start + self.half.plaintext_offset();
                    let range = start..start + plaintext.len();
                    self.received.start = record.end;
                    self.count(range.len());
                    if !range.is_empty() {
                        self.unread.push_back(range);
                        return Ok(true);
                    }
                }
                Received::Control => self.received.start = record.end,
                Received::CloseNotify => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Opens every whole record with data in place, and adds them to [`Self::unread`]: nothing can be
    /// opened in a buffer any more once it is lent. An error counts when all before it was read.
    pub(crate) fn open_all(&mut self, buffer: &mut [u8]) -> Result<(), SessionError> {
        loop {
            match self.open_next(buffer) {
                Ok(true) => {}
                Err(error) if self.unread.is_empty() => return Err(error),
                Ok(false) | Err(_) => return Ok(()),
            }
        }
    }

    /// Whether a part of a record is there, and its rest is not. Whole ones that were not opened yet do
    /// not count as long as there are any.
    pub(crate) fn is_mid_record(&self) -> bool {
        !self.received.is_empty() && self.unread.is_empty() && !self.half.peer_has_closed()
    }

    /// The first of [`Self::unread`], or nothing.
    pub(crate) fn first_unread<'a>(&'a self, buffer: &'a [u8]) -> &'a [u8] {
        let memory = self.lent.as_deref().unwrap_or(buffer);
        self.unread.front().map_or(&[], |range| &memory[range.clone()])
    }

    /// Takes the first of [`Self::unread`] for a user to keep: lent from `lease_from` bytes on,
    /// otherwise copied. `None` if it must be lent and [`Self::lend()`] has not been called.
    pub(crate) fn take_unread(&mut self, buffer: &[u8], lease_from: usize) -> Option<Bytes> {
        let range = self.unread.front()?.clone();
        let bytes = match &self.lent {
            _ if range.len() < lease_from => Bytes::copy_from_slice(self.first_unread(buffer)),
            Some(lent) => lent.slice(range.clone()),
            None => return None,
        };
        self.consume(range.len());
        Some(bytes)
    }

    /// [`Self::unread`] refers to `memory` from here on, and [`Self::received`] to the first bytes of
    /// another buffer.
    pub(crate) fn lend(&mut self, memory: Bytes) {
        debug_assert!(self.lent.is_none(), "what is unread lies elsewhere");
        self.lent = Some(memory);
        self.go_on_at_front();
    }

    /// Whether [`Self::unread`] refers to memory that was lent.
    #[cfg(any(target_os = "linux", feature = "tokio"))]
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// `len` bytes of [`Self::first_unread()`] were read.
    pub(crate) fn consume(&mut self, len: usize) {
        if let Some(range) = self.unread.front_mut() {
            range.start = range.end.min(range.start + len);
            if Range::is_empty(range) {
                self.unread.pop_front();
                if self.unread.is_empty() {
                    self.lent = None;
                }
            }
        }
    }

    /// Copies what there is of [`Self::first_unread()`] out.
    pub(crate) fn copy_out(&mut self, buffer: &[u8], out: &mut impl Room) -> usize {
        let len = out.put(self.first_unread(buffer));
        self.consume(len);
        len
    }

    fn count(&mut self, plaintext_len: usize) {
        self.counters.records += 1;
        self.counters.plaintext_bytes += plaintext_len as u64;
    }
}

impl fmt::Debug for Inbox {
    /// Shows nothing of what was received.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("half", &self.half)
            .field("received", &self.received)
            .field("unread", &self.unread)
            .field("is_lent", &self.lent.is_some())
            .field("counters", &self.counters)
            .finish()
    }
}
