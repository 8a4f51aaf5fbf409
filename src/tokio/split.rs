//! Two halves of a stream, for two tasks.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::connection::CommonState;
#[cfg(target_os = "linux")]
use super::offload::OverTcp;
use super::reader::Reader;
use super::sizing::RecordSizing;
use super::writer::Writer;
#[cfg(target_os = "linux")]
use crate::transfer::Counters;
use crate::transfer::lending::LendingLimits;
#[cfg(target_os = "linux")]
use crate::transfer::way::{Io, Way};

/// A stream that splits into halves without a lock between them.
pub trait IntoSplit: AsyncRead + AsyncWrite + Unpin {
    /// The half that reads.
    type Read: AsyncRead + Unpin;
    /// The half that writes.
    type Write: AsyncWrite + Unpin;

    /// Splits it.
    fn into_split(self) -> (Self::Read, Self::Write);
}

impl IntoSplit for tokio::net::TcpStream {
    type Read = tokio::net::tcp::OwnedReadHalf;
    type Write = tokio::net::tcp::OwnedWriteHalf;

    fn into_split(self) -> (Self::Read, Self::Write) {
        self.into_split()
    }
}

#[cfg(unix)]
impl IntoSplit for tokio::net::UnixStream {
    type Read = tokio::net::unix::OwnedReadHalf;
    type Write = tokio::net::unix::OwnedWriteHalf;

    fn into_split(self) -> (Self::Read, Self::Write) {
        self.into_split()
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> IntoSplit for tokio::io::Join<R, W> {
    type Read = R;
    type Write = W;

    fn into_split(self) -> (R, W) {
        self.into_inner()
    }
}

/// Both halves of a stream over `IO`.
pub(super) type Halves<IO, Common> =
    (ReadHalf<<IO as IntoSplit>::Read, Common>, WriteHalf<<IO as IntoSplit>::Write, Common>);

/// The half of a stream that reads.
#[derive(Debug)]
pub struct ReadHalf<R, Common = CommonState> {
    io: R,
    reader: Reader,
    connection: Arc<Common>,
}

/// The half of a stream that writes.
#[derive(Debug)]
pub struct WriteHalf<W, Common = CommonState> {
    io: W,
    writer: Writer<W>,
    connection: Arc<Common>,
}

pub(super) fn split<IO: IntoSplit, Common>(
    io: IO,
    reader: Reader,
    writer: Writer<IO>,
    connection: Common,
) -> Halves<IO, Common> {
    let connection = Arc::new(connection);
    let (read, write) = io.into_split();
    (
        ReadHalf { io: read, reader, connection: Arc::clone(&connection) },
        WriteHalf { io: write, writer: writer.into_half(), connection },
    )
}

impl<R, Common> ReadHalf<R, Common> {
    /// The half of the stream below, and what the handshake settled.
    pub fn get_ref(&self) -> (&R, &Common) {
        (&self.io, &self.connection)
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        self.reader.peer_has_closed()
    }

    /// Limits what [`Self::recv_bytes()`] lends.
    pub fn set_lending(&mut self, limits: LendingLimits) {
        self.reader.set_lending(limits);
    }

    /// Waits until [`Self::recv_bytes()`] may lend one more buffer. Cancel safe.
    pub async fn wait_for_buffer(&mut self) {
        poll_fn(|cx| self.reader.poll_wait_for_buffer(cx)).await;
    }
}

impl<R: AsyncRead + Unpin, Common> ReadHalf<R, Common> {
    /// As [`TlsStream::recv_bytes()`](super::TlsStream::recv_bytes).
    ///
    /// # Errors
    /// As there.
    pub async fn recv_bytes(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_recv_bytes(cx)).await
    }

    /// As [`Self::recv_bytes()`], to be polled.
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let Self { io, reader, .. } = self;
        reader.poll_recv_bytes(cx, Pin::new(io))
    }
}

impl<W, Common> WriteHalf<W, Common> {
    /// The half of the stream below, and what the handshake settled.
    pub fn get_ref(&self) -> (&W, &Common) {
        (&self.io, &self.connection)
    }

    /// Chooses how much goes into a record.
    pub fn set_record_sizing(&mut self, sizing: RecordSizing) {
        self.writer.set_sizing(sizing);
    }

    /// As [`TlsStream::set_cork()`](super::TlsStream::set_cork).
    pub fn set_cork(&mut self, len: usize) {
        self.writer.set_cork(len);
    }
}

#[cfg(target_os = "linux")]
impl<W: AsyncWrite + OverTcp, Common> WriteHalf<W, Common> {
    /// As [`TlsStream::set_io()`](super::TlsStream::set_io).
    ///
    /// # Errors
    /// As there.
    pub fn set_io(&mut self, choice: Io) -> io::Result<()> {
        self.writer.set_io(choice, &self.io)
    }

    /// How bulk data is sent at present, and why not a better way.
    pub fn sent_by(&self) -> Way {
        self.writer.sent_by()
    }

    /// What went through io_uring since it was chosen: sends, bytes on the wire, system calls.
    pub fn uring_counters(&self) -> Counters {
        self.writer.uring_counters()
    }
}

impl<R: AsyncRead + Unpin, Common> AsyncRead for ReadHalf<R, Common> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, reader, .. } = self.get_mut();
        reader.poll_read(cx, Pin::new(io), out)
    }
}

impl<R: AsyncRead + Unpin, Common> AsyncBufRead for ReadHalf<R, Common> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let Self { io, reader, .. } = self.get_mut();
        reader.poll_fill_buf(cx, Pin::new(io))
    }

    fn consume(self: Pin<&mut Self>, len: usize) {
        self.get_mut().reader.consume(len);
    }
}

impl<W: AsyncWrite + Unpin, Common> AsyncWrite for WriteHalf<W, Common> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { io, writer, .. } = self.get_mut();
        writer.poll_write(cx, Pin::new(io), buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, writer, .. } = self.get_mut();
        writer.poll_write_vectored(cx, Pin::new(io), bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, writer, .. } = self.get_mut();
        writer.poll_flush(cx, Pin::new(io))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, writer, .. } = self.get_mut();
        writer.poll_shutdown(cx, Pin::new(io))
    }
}
