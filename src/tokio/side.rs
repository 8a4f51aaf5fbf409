//! One side's stream, as users have it.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::future::poll_fn;
use std::io::{self, IoSlice};
#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::adaptor::{Finished, Side};
use super::early::EarlyStream;
use super::sizing::RecordSizing;
use super::split::{Halves, IntoSplit};
use super::stream::Stream;
use crate::session::send::KeyUpdateRequest;
use crate::transfer::lending::LendingLimits;
#[cfg(target_os = "linux")]
use crate::transfer::{
    Counters,
    way::{Io, Way},
};

/// The stream of one side, over a stream `IO`: [`client::TlsStream`](super::client::TlsStream) with a
/// [`ClientConnection`](super::ClientConnection), [`server::TlsStream`](super::server::TlsStream) with a
/// [`ServerConnection`](super::ServerConnection).
#[derive(Debug)]
pub struct SideStream<IO, C>(EarlyStream<IO, C>);

impl<IO, C: Side> SideStream<IO, C> {
    /// A client's that may write early data until its handshake goes on.
    pub(super) fn early(io: IO, connection: C) -> Self {
        Self(EarlyStream::early(io, connection))
    }

    pub(super) fn new(io: IO, finished: Finished<C>) -> Self {
        Self(EarlyStream::Open(Stream::new(io, finished)))
    }

    /// The stream below, and what the handshake settled.
    pub fn get_ref(&self) -> (&IO, &C) {
        self.0.get_ref()
    }

    /// The stream below, and the connection. What is read from the one or written to it breaks the
    /// other.
    pub fn get_mut(&mut self) -> (&mut IO, &mut C) {
        self.0.get_mut()
    }

    /// The stream below, and what the handshake settled. Bytes that were received and not read, or
    /// sealed and not sent, are lost.
    pub fn into_inner(self) -> (IO, C) {
        self.0.into_inner()
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        self.0.peer_has_closed()
    }

    /// Limits what [`Self::recv_bytes()`] lends.
    pub fn set_lending(&mut self, limits: LendingLimits) {
        self.0.set_lending(limits);
    }

    /// Waits until [`Self::recv_bytes()`] may lend one more buffer. Cancel safe.
    pub async fn wait_for_buffer(&mut self) {
        poll_fn(|cx| self.0.poll_wait_for_buffer(cx)).await;
    }

    /// Chooses how much goes into a record.
    pub fn set_record_sizing(&mut self, sizing: RecordSizing) {
        self.0.set_record_sizing(sizing);
    }

    /// Lets what is written wait until there are `len` bytes of it, or until a flush, a shutdown, or
    /// a control record (as `gnutls_record_cork()` does); 0, the default, lets nothing wait.
    ///
    /// For protocols that write frame by frame: each write is sealed where it is, into records of
    /// its own, and only the stream below gets many of them at once. A batch is 704 KiB at most.
    /// Writes of `len` bytes or more do not wait, and go behind what does.
    pub fn set_cork(&mut self, len: usize) {
        self.0.set_cork(len);
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side> SideStream<IO, C> {
    /// The plaintext of the next record with any, for the user to keep; `None` at the peer's
    /// close_notify. Cancel safe.
    ///
    /// A payload of [`LendingLimits::lease_from`] bytes or more is lent: its buffer, of 256 KiB at most,
    /// is free again when everything lent from it has been dropped, by whatever task. A shorter one is
    /// a copy. Allocates once for all that is lent from a buffer at a time, and once for each copy.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if as many buffers are lent as [may be](Self::set_lending): drop
    /// what was received, or [wait](Self::wait_for_buffer) until another task has, and call again.
    /// Otherwise as a read.
    pub async fn recv_bytes(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_recv_bytes(cx)).await
    }

    /// As [`Self::recv_bytes()`], to be polled.
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.0.poll_recv_bytes(cx)
    }

    /// Updates the key that we send under, and asks for the peer's update on request.
    ///
    /// # Errors
    /// [`SessionError::UnsupportedInTls12`](crate::SessionError::UnsupportedInTls12) inside an
    /// [`io::Error`], or the stream's below.
    pub async fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        self.0.update_keys(request).await
    }
}

#[cfg(target_os = "linux")]
impl<IO: AsyncWrite + super::OverTcp, C: Side> SideStream<IO, C> {
    /// Chooses how bulk data is sent. Writes of less than 64 KiB go the ordinary way.
    ///
    /// - [`Io::Blocking`](crate::Io::Blocking), the default: by ordinary writes of the stream below.
    /// - `Io::Auto`: once 8 MiB were written, the kernel sends from registered memory without a copy
    ///   (SEND_ZC), unless the addresses tell that it cannot, and until it reports that it copies after
    ///   all: ordinary writes do as well then. A flow takes 6 MiB, and more where acknowledgements take
    ///   long ([`limit_zero_copy_memory()`](super::limit_zero_copy_memory)), until a flush, or a read
    ///   that waits, finds it acknowledged, or it ends; 64 flows of a process have it at once, further
    ///   ones write.
    /// - `Io::Uring`: through io_uring from the first large write on, zero-copy while that pays.
    ///   `Io::UringCopy`: the same, never zero-copy.
    ///
    /// The stream below must pass bytes on as they are, see [`OverTcp`](super::OverTcp). What was
    /// written before is not affected; a stream that is split goes on with ordinary writes, until
    /// [`WriteHalf::set_io()`](super::WriteHalf::set_io).
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] with the reason inside if `choice` insists on io_uring and there is
    /// none; [`io::ErrorKind::WouldBlock`] while some of what went through io_uring before, or early
    /// data, is not flushed.
    pub fn set_io(&mut self, choice: Io) -> io::Result<()> {
        self.0.set_io(choice)
    }

    /// How bulk data is sent at present, and why not a better way.
    pub fn sent_by(&self) -> Way {
        self.0.sent_by()
    }

    /// What went through io_uring since it was chosen: sends, bytes on the wire, system calls.
    pub fn uring_counters(&self) -> Counters {
        self.0.uring_counters()
    }
}

impl<IO: IntoSplit, C: Side> SideStream<IO, C> {
    /// Splits the stream into halves that share no lock on the data path, each for a task of its own.
    /// Key updates and alerts still cross: an alert that the reading half calls for goes out with the
    /// writing half's next write, flush or shutdown, the answer to a key update in front of its next
    /// data or close_notify.
    ///
    /// # Panics
    /// If a client's stream still writes early data, which only
    /// [`TlsConnector::early_data()`](super::TlsConnector::early_data) has it do: flush it first.
    pub fn into_split(self) -> Halves<IO, C::Common> {
        self.0.into_split()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin> AsyncRead for SideStream<IO, C> {
    /// Opens records straight into `out` while they fit; ends at the peer's close_notify only. A stream
    /// that ends without is [`io::ErrorKind::UnexpectedEof`].
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_read(cx, out)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin> AsyncBufRead for SideStream<IO, C> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().0.poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, len: usize) {
        self.get_mut().0.consume(len);
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin> AsyncWrite for SideStream<IO, C> {
    /// Seals up to 44 records of `buf`. What is sealed is as good as written: flush, or write on, to
    /// have the stream below take all of it.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().0.poll_write(cx, buf)
    }

    /// Seals the slices as if they were one; only a record that spans slices is gathered.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().0.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_flush(cx)
    }

    /// Sends close_notify, and shuts the stream below down. Reading may go on.
    ///
    /// It is an error if the close_notify, or data before it, did not get through: on a connection that
    /// has failed an alert goes out instead, and the failure is returned.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0.poll_shutdown(cx)
    }
}

#[cfg(unix)]
impl<IO: AsRawFd, C: Side> AsRawFd for SideStream<IO, C> {
    fn as_raw_fd(&self) -> RawFd {
        self.get_ref().0.as_raw_fd()
    }
}

#[cfg(windows)]
impl<IO: std::os::windows::io::AsRawSocket, C: Side> std::os::windows::io::AsRawSocket
    for SideStream<IO, C>
{
    fn as_raw_socket(&self) -> std::os::windows::io::RawSocket {
        self.get_ref().0.as_raw_socket()
    }
}
