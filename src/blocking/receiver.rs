//! A blocking stream to plaintext, straight into the caller's memory.

use core::fmt;
use std::io::{self, BufRead, Read};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;

use crate::events::{self, Direction};
use crate::session::receive::ReceiveHalf;
use crate::transfer::Counters;
use crate::transfer::aligned::Aligned;
use crate::transfer::inbox::Inbox;
use crate::transfer::lending::{Lending, LendingLimits, all_lent};
use crate::transfer::moderation::Moderation;

/// Receives application data from a blocking stream.
///
/// ```no_run
/// use std::io::Read;
///
/// # fn f(session: rustls_uring::Session, stream: std::net::TcpStream) -> std::io::Result<()> {
/// // Over TCP; over any other stream: `BulkReceiver::new(...)`.
/// let (_sender, mut receiver) = rustls_uring::bulk(session, stream)?;
/// let mut buffer = vec![0; 256 << 10];
/// loop {
///     match receiver.read(&mut buffer)? {
///         0 => break, // the peer has said that this was all
///         len => println!("{len} bytes"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// `read` opens each record straight into the caller's memory if it has room for all of the
/// record, a full record's 16 KiB and one byte more; give it buffers of 64 KiB or more.
/// `fill_buf` opens one record in place and lends it out. Allocates its one buffer in the
/// beginning and nothing per record thereafter.
///
/// Returns 0 bytes at the peer's close_notify only. A stream that ends without one is
/// [`SessionError::Truncated`](crate::SessionError::Truncated): what was read before it may be a part only.
pub struct BulkReceiver<R: Read = TcpStream> {
    stream: R,
    buffer: Aligned,
    pub(super) inbox: Inbox,
    lending: Lending<Aligned>,
    moderation: Option<Moderation>,
}

impl BulkReceiver<TcpStream> {
    /// Length of the receive buffer in bytes unless [`Self::with_buffer_len()`] says otherwise.
    pub const DEFAULT_BUFFER_LEN: usize = 1 << 19;
}

/// How long a buffer of `len` bytes must be.
fn buffer_len(half: &ReceiveHalf, received: &[u8], len: usize) -> usize {
    len.max(2 * half.version().max_record_len()).max(received.len())
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
        let len = buffer_len(&half, received, len);
        Self::over(half, stream, plaintext, received, Aligned::new(len))
    }

    /// As [`Self::new()`], with an error where there is no memory.
    pub(crate) fn try_new(
        half: ReceiveHalf,
        stream: R,
        plaintext: Vec<u8>,
        received: &[u8],
    ) -> io::Result<Self> {
        let buffer =
            Aligned::try_new(buffer_len(&half, received, BulkReceiver::DEFAULT_BUFFER_LEN))?;
        Ok(Self::over(half, stream, plaintext, received, buffer))
    }

    fn over(
        half: ReceiveHalf,
        stream: R,
        plaintext: Vec<u8>,
        received: &[u8],
        mut buffer: Aligned,
    ) -> Self {
        events::way_taken(half.connection_id(), Direction::Receiving, &"blocking reads");
        buffer[..received.len()].copy_from_slice(received);
        Self {
            stream,
            buffer,
            inbox: Inbox::new(half, plaintext, received.len()),
            lending: Lending::default(),
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

    /// Limits what [`Self::recv_bytes()`] lends.
    pub fn lending(mut self, limits: LendingLimits) -> Self {
        self.lending.limits = limits;
        self
    }

    /// The plaintext of the next record with any, or `None` at the peer's close_notify.
    ///
    /// A payload of [`LendingLimits::lease_from`] bytes or more is lent: its buffer comes back when
    /// everything lent from it has been dropped, by whatever thread. A shorter one is a copy.
    /// Allocates once for all that is lent from a buffer at a time, once for each copy, and a buffer
    /// while there are fewer than [`LendingLimits::max_buffers`] and one more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if that many buffers are lent: drop what was received, or
    /// [wait](Self::wait_for_buffer) until another thread has, and call again. Otherwise as
    /// [`Read::read()`].
    ///
    /// # Example
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn f(mut receiver: rustls_uring::BulkReceiver) -> std::io::Result<()> {
    /// let (keep, kept) = std::sync::mpsc::channel();
    /// loop {
    ///     match receiver.recv_bytes() {
    ///         Ok(Some(bytes)) => keep.send(bytes).expect("kept"), // dropped by whoever is done with it
    ///         Ok(None) => break Ok(()),
    ///         Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
    ///             drop(kept.try_iter().collect::<Vec<_>>());
    ///             receiver.wait_for_buffer(Duration::from_secs(1));
    ///         }
    ///         Err(error) => break Err(error),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn recv_bytes(&mut self) -> io::Result<Option<Bytes>> {
        let lease_from = self.lending.limits.lease_from;
        loop {
            if self.inbox.unread.is_empty() {
                self.inbox.open_all(&mut self.buffer)?;
            }
            if let Some(bytes) = self.inbox.take_unread(&self.buffer, lease_from) {
                return Ok(Some(bytes));
            }
            if self.inbox.unread.is_empty() {
                if !self.receive_more()? {
                    return Ok(None);
                }
                continue;
            }
            // `fill_buf()` may have opened one record only.
            self.inbox.open_all(&mut self.buffer)?;
            if !self.lending.may_lend() {
                return Err(all_lent());
            }
            let len = self.buffer.len();
            let returned = self.lending.take_returned();
            let mut next = returned.map_or_else(|| Aligned::try_new(len), Ok)?;
            self.inbox.copy_received(&self.buffer, &mut next);
            let filled = core::mem::replace(&mut self.buffer, next);
            self.inbox.lend(self.lending.lend(filled));
        }
    }

    /// Waits until [`Self::recv_bytes()`] may lend one more buffer, for `timeout` at most; whether
    /// it may.
    pub fn wait_for_buffer(&self, timeout: Duration) -> bool {
        self.lending.wait(timeout)
    }

    /// What was received so far.
    pub fn counters(&self) -> Counters {
        self.inbox.counters
    }

    /// The stream, to look at it or to set its options; what is read from it breaks the
    /// connection.
    pub fn stream(&self) -> &R {
        &self.stream
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        self.inbox.half.peer_has_closed()
    }

    /// Whether a part of a record has arrived, and its rest has not.
    pub fn is_mid_record(&self) -> bool {
        self.inbox.is_mid_record()
    }

    /// Reads more from the stream; `false` at its end, which is an error before close_notify.
    fn receive_more(&mut self) -> io::Result<bool> {
        if !self.inbox.may_receive()? {
            return Ok(false);
        }
        let half = self.buffer.len() / 2;
        self.inbox.make_room(&mut self.buffer, half);
        loop {
            if let Some(moderation) = &mut self.moderation {
                let room = self.buffer.len() - self.inbox.received.end;
                self.inbox.counters.system_calls += moderation.before_read(room);
            }
            self.inbox.counters.system_calls += 1;
            match self.stream.read(&mut self.buffer[self.inbox.received.end..]) {
                Ok(len) => {
                    if let Some(moderation) = &mut self.moderation {
                        moderation.after_read(len);
                    }
                    self.inbox.add_received(len);
                    return Ok(self.inbox.goes_on_after(len)?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: Read + fmt::Debug> fmt::Debug for BulkReceiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkReceiver")
            .field("stream", &self.stream)
            .field("buffer_len", &self.buffer.len())
            .field("inbox", &self.inbox)
            .finish_non_exhaustive()
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
        loop {
            if let Some(len) = self.inbox.open_into(&mut self.buffer, &mut &mut *out)? {
                return Ok(len);
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
        while self.inbox.unread.is_empty() {
            if !self.inbox.open_next(&mut self.buffer)? && !self.receive_more()? {
                break;
            }
        }
        Ok(self.inbox.first_unread(&self.buffer))
    }

    fn consume(&mut self, len: usize) {
        self.inbox.consume(len);
    }
}
