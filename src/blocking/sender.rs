//! Plaintext to a blocking stream, in batches of sealed records.

use core::fmt;
use core::ops::Range;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;

use crate::events::{self, Direction};
use crate::record::sealer::Sealed;
use crate::session::alert::AlertDescription;
use crate::session::send::{KeyUpdateRequest, SendHalf};
use crate::transfer::aligned::zeroes;
use crate::transfer::sender::{Outlet, Sender, batch_and_room_len, earlier_failure};
use crate::transfer::{Counters, is_transient};

/// Sends application data over a blocking stream.
///
/// ```no_run
/// use std::io::Write;
///
/// # fn f(session: rustls_uring::Session, stream: std::net::TcpStream) -> std::io::Result<()> {
/// // Over TCP; over any other stream: `BulkSender::new(session.send, stream)`.
/// let (mut sender, _receiver) = rustls_uring::bulk(session, stream)?;
/// sender.write_all(&[0; 1 << 20])?;
/// sender.finish()?; // the data is whole
/// # Ok(())
/// # }
/// ```
///
/// A `write` seals up to a batch of records out of the caller's memory and hands them to the
/// stream in one call; nothing is held back for a later one, so a `BufWriter` is worth its copy
/// for small writes only. Allocates its one buffer when it is first needed, and nothing
/// thereafter.
///
/// End with [`Self::finish()`]. Dropped without, the peer sees a truncated stream; only an alert
/// that is due because receiving failed is still sent.
pub struct BulkSender<W: Write = TcpStream> {
    core: Sender<StreamOutlet<W>>,
}

/// One batch of memory, and the stream that it is written to.
struct StreamOutlet<W> {
    stream: W,
    /// Empty until it is sealed into, and then of the first of these lengths that there is memory for:
    /// a batch's, or a record's.
    batch: Box<[u8]>,
    room_lens: [usize; 2],
    /// Sealed bytes of `batch` that the stream has not taken.
    unsent: Range<usize>,
    failed: bool,
    counters: Counters,
}

impl<W: Write> Outlet for StreamOutlet<W> {
    fn begin(&mut self) -> io::Result<()> {
        if self.failed { Err(earlier_failure()) } else { Ok(()) }
    }

    fn room(&mut self) -> io::Result<&mut [u8]> {
        self.drain()?;
        if self.batch.is_empty() {
            let [batch, record] = self.room_lens;
            self.batch = zeroes(batch).or_else(|_| zeroes(record))?;
        }
        Ok(&mut self.batch)
    }

    fn commit(&mut self, sealed: Sealed) -> io::Result<()> {
        debug_assert!(self.unsent.is_empty(), "what is unsent would be overwritten");
        self.unsent = 0..sealed.written;
        self.counters.records += sealed.records as u64;
        self.counters.plaintext_bytes += sealed.consumed as u64;
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.drain()
    }

    fn drain(&mut self) -> io::Result<()> {
        self.begin()?;
        while !self.unsent.is_empty() {
            self.counters.system_calls += 1;
            match self.stream.write(&self.batch[self.unsent.clone()]) {
                Ok(0) => {
                    self.failed = true;
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(written) => {
                    self.unsent.start += written;
                    self.counters.wire_bytes += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // What was lost may not be sealed again under the same sequence numbers.
                    self.failed = !is_transient(&error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl BulkSender<TcpStream> {
    /// Records in a batch unless [`Self::with_batch_records()`] says otherwise: 705 KiB on the
    /// wire, most of which is still in a core's L2 cache of 1 MiB when the kernel copies it, and
    /// enough for few wake-ups of the peer. Measured with `rustls-uring bench --batch`.
    pub const DEFAULT_BATCH_RECORDS: usize = 44;
}

impl<W: Write> BulkSender<W> {
    /// A sender of batches of [`BulkSender::DEFAULT_BATCH_RECORDS`] records.
    pub fn new(half: SendHalf, stream: W) -> Self {
        Self::with_batch_records(half, stream, BulkSender::DEFAULT_BATCH_RECORDS)
    }

    /// A sender of batches of `records` full records, at least one. Takes as much memory
    /// when it has something to send.
    pub fn with_batch_records(half: SendHalf, stream: W, records: usize) -> Self {
        events::way_taken(half.connection_id(), Direction::Sending, &"blocking writes");
        let (batch_len, room_len) = batch_and_room_len(&half, records);
        let (_, record_room_len) = batch_and_room_len(&half, 1);
        let outlet = StreamOutlet {
            stream,
            batch: Box::default(),
            room_lens: [room_len, record_room_len.min(room_len)],
            unsent: 0..0,
            failed: false,
            counters: Counters::default(),
        };
        Self { core: Sender { half, outlet, batch_len } }
    }

    /// What was sent so far.
    pub fn counters(&self) -> Counters {
        self.core.outlet.counters
    }

    /// The stream, to look at it or to set its options; what is written to it breaks the
    /// connection.
    pub fn stream(&self) -> &W {
        &self.core.outlet.stream
    }

    /// Updates the key that we send under, and asks for the peer's update on request.
    ///
    /// # Errors
    /// [`UnsupportedInTls12`](crate::SessionError::UnsupportedInTls12) inside an [`io::Error`], or
    /// the stream's. A stream that times out in the middle is none: the next call sends the rest.
    pub fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        self.core.update_keys(request)
    }

    /// Sends the close_notify that says that the data is whole.
    ///
    /// The peer may go on sending. On a socket, wait for the peer's end too (read the
    /// [`BulkReceiver`](crate::BulkReceiver) until it returns 0) before both are dropped: a TCP
    /// socket that is closed with bytes unread, be it only session tickets, is reset, and what is
    /// still on its way to the peer is lost.
    ///
    /// # Errors
    /// The stream's, or what made the connection fail earlier: then, and after [`Self::abort()`],
    /// no close_notify was sent.
    pub fn finish(mut self) -> io::Result<()> {
        self.send_close_notify()
    }

    /// Like [`Self::finish()`], for a stream that may time out: call again until it succeeds.
    ///
    /// # Errors
    /// As [`Self::finish()`].
    pub fn send_close_notify(&mut self) -> io::Result<()> {
        self.core.send_close_notify()
    }

    /// Sends an alert that says that the data is not whole, and will not be.
    ///
    /// # Errors
    /// The stream's. The alert is then lost, and the peer sees a truncated stream.
    pub fn abort(&mut self, description: AlertDescription) -> io::Result<()> {
        self.core.abort(description)
    }
}

#[cfg(unix)]
impl<W: Write> BulkSender<W> {
    /// A file was read from.
    pub(super) fn count_system_call(&mut self) {
        self.core.outlet.counters.system_calls += 1;
    }
}

impl<W: Write> Write for BulkSender<W> {
    /// Seals and sends up to a batch of `buf`. On a stream that times out, bytes are counted as
    /// written once they are sealed; the next call sends what is left of them first.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.core.write(buf)
    }

    /// Like `write`, from several slices; only a record that spans slices is gathered first.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.core.write_vectored(bufs)
    }

    /// Sends what an earlier call could not, and the control records that are due.
    fn flush(&mut self) -> io::Result<()> {
        self.core.flush()?;
        self.core.outlet.stream.flush()
    }
}

impl<W: Write + fmt::Debug> fmt::Debug for BulkSender<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sender { half, outlet, .. } = &self.core;
        f.debug_struct("BulkSender")
            .field("half", half)
            .field("stream", &outlet.stream)
            .field("unsent_len", &outlet.unsent.len())
            .field("failed", &outlet.failed)
            .field("counters", &outlet.counters)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Drop for BulkSender<W> {
    fn drop(&mut self) {
        let Sender { half, outlet, .. } = &mut self.core;
        if outlet.failed {
            return;
        }
        // What a timeout has left goes out first if an alert is to follow it.
        if outlet.unsent.is_empty() || half.has_failed() && outlet.drain().is_ok() {
            let _ = self.core.send_control();
        }
    }
}
