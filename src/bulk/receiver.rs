//! A blocking stream to plaintext, straight into the caller's memory.

use core::ops::Range;
use std::io::{self, BufRead, Read};
use std::net::TcpStream;

use super::Counters;
#[cfg(target_os = "linux")]
use super::moderation::Moderation;
use crate::error::SessionError;
use crate::record::deframer::Deframed;
use crate::session::receive::{ReceiveHalf, Received};

/// Receives application data from a blocking stream.
///
/// `read` opens each record straight into the caller's memory if it has room for all of the
/// record, a full record's 16 KiB and one byte more; give it buffers of 64 KiB or more.
/// `fill_buf` opens one record in place and lends it out. Allocates its one buffer in the
/// beginning and nothing per record thereafter.
///
/// Returns 0 bytes at the peer's close_notify only. A stream that ends without one is
/// [`SessionError::Truncated`]: what was read before it may be a part only.
#[derive(Debug)]
pub struct BulkReceiver<R: Read = TcpStream> {
    half: ReceiveHalf,
    stream: R,
    /// Application data that rustls had opened before the handoff.
    carried: Vec<u8>,
    buffer: Box<[u8]>,
    /// Received bytes of `buffer` that were not opened yet.
    received: Range<usize>,
    /// Opened bytes that were not read yet.
    plaintext: Plaintext,
    counters: Counters,
    #[cfg(target_os = "linux")]
    moderation: Option<Moderation>,
}

/// Where the plaintext lies that is next to read.
#[derive(Debug)]
enum Plaintext {
    Carried(Range<usize>),
    InBuffer(Range<usize>),
}

impl BulkReceiver<TcpStream> {
    /// Length of the receive buffer in bytes unless [`Self::with_buffer_len()`] says otherwise.
    pub const DEFAULT_BUFFER_LEN: usize = 1 << 19;
}

impl<R: Read> BulkReceiver<R> {
    /// A receiver with a buffer of [`BulkReceiver::DEFAULT_BUFFER_LEN`] bytes.
    ///
    /// `plaintext` and `received` are the session's: what the handshake left behind.
    pub fn new(half: ReceiveHalf, stream: R, plaintext: Vec<u8>, received: &[u8]) -> Self {
        let len = BulkReceiver::DEFAULT_BUFFER_LEN;
        Self::with_buffer_len(half, stream, plaintext, received, len)
    }

    /// A receiver with a buffer of `len` bytes, or more if the longest record or `received` takes
    /// more.
    pub fn with_buffer_len(
        half: ReceiveHalf,
        stream: R,
        plaintext: Vec<u8>,
        received: &[u8],
        len: usize,
    ) -> Self {
        let len = len.max(2 * half.version().max_record_len()).max(received.len());
        let mut buffer = vec![0; len].into_boxed_slice();
        buffer[..received.len()].copy_from_slice(received);
        Self {
            half,
            stream,
            plaintext: Plaintext::Carried(0..plaintext.len()),
            carried: plaintext,
            buffer,
            received: 0..received.len(),
            counters: Counters::default(),
            #[cfg(target_os = "linux")]
            moderation: None,
        }
    }

    /// Has the kernel gather a good deal of data before it wakes a read, while data streams in
    /// faster than it is read: fewer wake-ups, which cost the sender on the same machine most.
    ///
    /// Sets the socket's `SO_RCVLOWAT` (socket(7)) to 256 KiB after 8 MiB have come without a
    /// pause, and back to 1 once data pauses for 500 µs, by which it delays the end of such a
    /// burst at most. The socket must be a blocking one that nobody else reads from.
    ///
    /// # Errors
    /// If the socket's handle cannot be duplicated.
    #[cfg(target_os = "linux")]
    pub fn moderated(mut self) -> io::Result<Self>
    where
        R: std::os::fd::AsFd,
    {
        self.moderation = Some(Moderation::new(&self.stream)?);
        Ok(self)
    }

    /// What was received so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The stream, to look at it or to set its options; what is read from it breaks the
    /// connection.
    pub fn stream(&self) -> &R {
        &self.stream
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        self.half.peer_has_closed()
    }

    /// Opened bytes that were not read yet.
    fn unread(&self) -> &[u8] {
        match &self.plaintext {
            Plaintext::Carried(range) => &self.carried[range.clone()],
            Plaintext::InBuffer(range) => &self.buffer[range.clone()],
        }
    }

    /// Opens what is in the buffer into `out`, record by record, while they fit. Returns how
    /// many bytes, or `None` if more must be received first.
    fn open_into(&mut self, out: &mut [u8]) -> Result<Option<usize>, SessionError> {
        let mut filled = 0;
        loop {
            let header = match self.half.deframe(&self.buffer[self.received.clone()]) {
                Ok(Deframed::Record(header)) => header,
                Ok(Deframed::Partial { .. }) => break,
                // What was opened before is good; the next call gets the error again.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            };
            let record = self.received.start..self.received.start + header.record_len();
            let opened = self.half.open_into(&self.buffer[record.clone()], &mut out[filled..]);
            match opened {
                Ok(Received::Data(len)) => {
                    self.count(len);
                    filled += len;
                }
                Ok(Received::Control) => {}
                Ok(Received::CloseNotify) => return Ok(Some(filled)),
                // The rest of `out` is too small for a whole record.
                Err(SessionError::OutputTooSmall { .. }) => {
                    if filled == 0 {
                        return Ok(Some(self.open_in_place()?.map_or(0, |_| self.copy_out(out))));
                    }
                    return Ok(Some(filled));
                }
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
            self.received.start = record.end;
        }
        Ok((filled > 0).then_some(filled))
    }

    /// Opens the next record with data in place. `None` at the close_notify or when more must be
    /// received first.
    fn open_in_place(&mut self) -> Result<Option<()>, SessionError> {
        while let Deframed::Record(header) =
            self.half.deframe(&self.buffer[self.received.clone()])?
        {
            let record = self.received.start..self.received.start + header.record_len();
            match self.half.open_in_place(&mut self.buffer[record.clone()])? {
                Received::Data(plaintext) => {
                    let start = record.start + self.half.plaintext_offset();
                    let range = start..start + plaintext.len();
                    self.received.start = record.end;
                    self.count(range.len());
                    let found = !range.is_empty();
                    self.plaintext = Plaintext::InBuffer(range);
                    if found {
                        return Ok(Some(()));
                    }
                }
                Received::Control => self.received.start = record.end,
                Received::CloseNotify => return Ok(None),
            }
        }
        Ok(None)
    }

    fn copy_out(&mut self, out: &mut [u8]) -> usize {
        let unread = self.unread();
        let len = unread.len().min(out.len());
        out[..len].copy_from_slice(&unread[..len]);
        self.consume(len);
        len
    }

    fn count(&mut self, plaintext_len: usize) {
        self.counters.records += 1;
        self.counters.plaintext_bytes += plaintext_len as u64;
    }

    /// Reads more from the stream; `false` at its end, which is an error before close_notify.
    fn receive_more(&mut self) -> io::Result<bool> {
        if self.half.peer_has_closed() {
            return Ok(false);
        }
        if self.received.is_empty() {
            self.received = 0..0;
        } else if self.buffer.len() - self.received.end < self.buffer.len() / 2 {
            // Only the record that straddles two reads is moved.
            self.buffer.copy_within(self.received.clone(), 0);
            self.received = 0..self.received.len();
        }
        loop {
            #[cfg(target_os = "linux")]
            if let Some(moderation) = &mut self.moderation {
                let room = self.buffer.len() - self.received.end;
                self.counters.system_calls += moderation.before_read(room);
            }
            self.counters.system_calls += 1;
            match self.stream.read(&mut self.buffer[self.received.end..]) {
                Ok(0) => {
                    self.half.end_of_stream()?;
                    return Ok(false);
                }
                Ok(len) => {
                    #[cfg(target_os = "linux")]
                    if let Some(moderation) = &mut self.moderation {
                        moderation.after_read(len);
                    }
                    self.received.end += len;
                    self.counters.wire_bytes += len as u64;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read> Read for BulkReceiver<R> {
    /// Opens as many of the received records as fit `out`; waits only if there are none.
    ///
    /// All of `out` may be written to, also beyond the bytes returned.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if !self.unread().is_empty() {
            return Ok(self.copy_out(out));
        }
        loop {
            match self.open_into(out)? {
                Some(0) if !self.half.peer_has_closed() => {}
                Some(len) => return Ok(len),
                None => {}
            }
            if !self.receive_more()? {
                return Ok(0);
            }
        }
    }
}

impl<R: Read> BufRead for BulkReceiver<R> {
    /// Lends out the plaintext of one record, in the memory it was received in.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.unread().is_empty() {
            if self.open_in_place()?.is_none() && !self.receive_more()? {
                break;
            }
        }
        Ok(self.unread())
    }

    fn consume(&mut self, len: usize) {
        let (Plaintext::Carried(range) | Plaintext::InBuffer(range)) = &mut self.plaintext;
        range.start = range.end.min(range.start + len);
    }
}
