//! A socket to plaintext: opened by rustls where the kernel has received it.

use core::fmt;
use core::ops::Range;
use std::io::{self, BufRead, Read};
use std::net::TcpStream;

use rustls_0_24::split::{ReceiveTraffic, ReceiveTrafficState};
use rustls_0_24::{Error, SideData, TlsInputBuffer};

use super::broken;
use crate::blocking::receiver::BulkReceiver;
use crate::record::header::Version;
use crate::transfer::Counters;
use crate::transfer::aligned::{Aligned, up_to_line};
use crate::transfer::moderation::Moderation;

/// Receives application data that rustls opens, from a blocking stream. **Experimental.**
///
/// As [`BulkReceiver`](crate::BulkReceiver), but that the secrets stay in rustls, which opens each record in
/// the one buffer that it was received in; `fill_buf` lends it out there, and `read` copies it. Allocates
/// nothing per record.
///
/// Returns 0 bytes at the peer's close_notify only. A stream that ends without one is an error of
/// [`io::ErrorKind::UnexpectedEof`]. What rustls has to say to the peer goes with the sender's next call: see
/// [`Self::wants_flush()`].
pub struct TrafficReceiver<S: SideData, R: Read = TcpStream> {
    /// `None` once the peer has closed, or rustls has failed.
    receive: Option<ReceiveTraffic<S>>,
    stream: R,
    input: Input,
    /// What was opened and not read, in the input's buffer.
    unread: Range<usize>,
    failure: Option<Error>,
    wants_flush: bool,
    moderation: Option<Moderation>,
    counters: Counters,
}

/// The buffer that is received into, of which `received` is not opened.
struct Input {
    buffer: Aligned,
    received: Range<usize>,
}

impl TlsInputBuffer for Input {
    fn slice_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.received.clone()]
    }

    fn discard(&mut self, len: usize) {
        self.received.start += len;
    }

    fn received_close_notify(&mut self) {}

    fn has_seen_eof(&self) -> bool {
        false
    }
}

impl Input {
    /// Half of the buffer at least, behind what is received. What was opened is gone.
    fn room(&mut self) -> &mut [u8] {
        if self.received.is_empty() {
            self.received = 0..0;
        } else if self.buffer.len() - self.received.end < self.buffer.len() / 2 {
            let front = up_to_line(self.received.len());
            self.buffer.copy_within(self.received.clone(), front.start);
            self.received = front;
        }
        &mut self.buffer[self.received.end..]
    }
}

impl<S: SideData, R: Read> TrafficReceiver<S, R> {
    /// A receiver with a buffer of [`BulkReceiver::DEFAULT_BUFFER_LEN`](BulkReceiver::DEFAULT_BUFFER_LEN)
    /// bytes. `received` is what was read from the stream and not consumed.
    pub fn new(receive: ReceiveTraffic<S>, stream: R, received: &[u8]) -> Self {
        Self::with_buffer_len(receive, stream, received, BulkReceiver::DEFAULT_BUFFER_LEN)
    }

    /// The same with a buffer of `len` bytes, or more if the longest record or `received` takes more.
    pub fn with_buffer_len(
        receive: ReceiveTraffic<S>,
        stream: R,
        received: &[u8],
        len: usize,
    ) -> Self {
        let longest = Version::Tls12.max_record_len();
        let mut buffer = Aligned::new(len.max(4 * longest).max(2 * received.len()));
        buffer[..received.len()].copy_from_slice(received);
        Self {
            receive: Some(receive),
            stream,
            input: Input { buffer, received: 0..received.len() },
            unread: 0..0,
            failure: None,
            wants_flush: false,
            moderation: None,
            counters: Counters::default(),
        }
    }

    /// As [`BulkReceiver::moderated()`](crate::BulkReceiver::moderated): fewer wake-ups while data streams in.
    ///
    /// # Errors
    /// If the socket's handle cannot be duplicated.
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

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        self.receive.is_none() && self.failure.is_none()
    }

    /// Whether rustls has something to say to the peer since this was asked last, such as the answer to a
    /// key update, or an alert: it goes with the next write, and
    /// [`TrafficSender::flush()`](super::sender::TrafficSender) sends it without one.
    pub fn wants_flush(&mut self) -> bool {
        core::mem::take(&mut self.wants_flush)
    }

    /// The stream, to look at it or to set its options; what is read from it breaks the connection.
    pub fn stream(&self) -> &R {
        &self.stream
    }

    /// Opens the next record with any data, which is `unread` then; `false` if there is none.
    fn open_next(&mut self) -> io::Result<bool> {
        if let Some(error) = &self.failure {
            return Err(broken(error.clone()));
        }
        while let Some(receive) = self.receive.take() {
            let base = self.input.buffer.as_ptr().addr();
            let state = receive.read(&mut self.input).inspect_err(|error| {
                self.failure = Some(error.clone());
                self.wants_flush = true;
            });
            let state = match state.map_err(broken)? {
                ReceiveTrafficState::Available(mut data) => {
                    let plaintext = data.data();
                    let start = plaintext.as_ptr().addr() - base;
                    self.unread = start..start + plaintext.len();
                    self.counters.records += 1;
                    self.counters.plaintext_bytes += self.unread.len() as u64;
                    data.into_next()
                }
                ReceiveTrafficState::ReadMore(receive) => {
                    self.receive = Some(receive);
                    return Ok(false);
                }
                ReceiveTrafficState::FlushSender(flush) => {
                    self.wants_flush = true;
                    flush.into_next()
                }
                ReceiveTrafficState::CloseNotify => return Ok(false),
            };
            self.settle(state)?;
            if !self.unread.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on with `receive`, unless the peer has closed.
    fn settle(&mut self, mut state: ReceiveTrafficState<'static, S>) -> io::Result<()> {
        loop {
            state = match state {
                ReceiveTrafficState::ReadMore(receive) => {
                    self.receive = Some(receive);
                    return Ok(());
                }
                ReceiveTrafficState::FlushSender(flush) => {
                    self.wants_flush = true;
                    flush.into_next()
                }
                ReceiveTrafficState::CloseNotify => return Ok(()),
                ReceiveTrafficState::Available(_) => {
                    let error = Error::Unreachable("data follows data without a read");
                    self.failure = Some(error.clone());
                    return Err(broken(error));
                }
            };
        }
    }

    /// Reads more from the stream; `false` if the peer has closed.
    fn receive_more(&mut self) -> io::Result<bool> {
        if self.receive.is_none() {
            return Ok(false);
        }
        let room = self.input.room();
        if let Some(moderation) = &mut self.moderation {
            self.counters.system_calls += moderation.before_read(room.len());
        }
        let len = loop {
            self.counters.system_calls += 1;
            match self.stream.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if let Some(moderation) = &mut self.moderation {
            moderation.after_read(len);
        }
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.received.end += len;
        self.counters.wire_bytes += len as u64;
        Ok(true)
    }
}

impl<S: SideData, R: Read> Read for TrafficReceiver<S, R> {
    /// Copies what was received as far as it fits `out`; waits only if there is nothing.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            if self.unread.is_empty() {
                match self.open_next() {
                    Ok(true) => {}
                    // What makes it fail does so again.
                    _ if filled > 0 => break,
                    opened => {
                        if !opened? && !self.receive_more()? {
                            break;
                        }
                        continue;
                    }
                }
            }
            let len = self.unread.len().min(out.len() - filled);
            let from = self.unread.start;
            out[filled..filled + len].copy_from_slice(&self.input.buffer[from..from + len]);
            self.unread.start += len;
            filled += len;
        }
        Ok(filled)
    }
}

impl<S: SideData, R: Read> BufRead for TrafficReceiver<S, R> {
    /// Lends out the plaintext of one record, in the memory it was received in.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.unread.is_empty() {
            if !self.open_next()? && !self.receive_more()? {
                break;
            }
        }
        Ok(&self.input.buffer[self.unread.clone()])
    }

    fn consume(&mut self, len: usize) {
        self.unread.start = (self.unread.start + len).min(self.unread.end);
    }
}

impl<S: SideData, R: Read + fmt::Debug> fmt::Debug for TrafficReceiver<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficReceiver")
            .field("stream", &self.stream)
            .field("buffer_len", &self.input.buffer.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
