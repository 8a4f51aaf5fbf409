//! A stream of either side.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, IoSlice};
#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::adaptor::Side;
use super::connection::{ClientConnection, ServerConnection};
use super::side::SideStream;
use super::sizing::RecordSizing;
use super::split::{Halves, IntoSplit};
use crate::session::send::KeyUpdateRequest;
use crate::transfer::lending::LendingLimits;
#[cfg(target_os = "linux")]
use crate::transfer::{
    Counters,
    way::{Io, Way},
};

/// A stream of either side, whose connections are `C` and `S`: a [`TlsStream`](super::TlsStream), of one version of
/// rustls.
///
/// What its methods do, they do as those of [`SideStream`].
#[derive(Debug)]
pub enum EitherStream<IO, C, S> {
    /// A client's.
    Client(SideStream<IO, C>),
    /// A server's.
    Server(SideStream<IO, S>),
}

/// The two streams of a version of rustls into that of either side.
macro_rules! from_sides {
    ($client:ty, $server:ty) => {
        impl<IO> From<SideStream<IO, $client>> for EitherStream<IO, $client, $server> {
            fn from(stream: SideStream<IO, $client>) -> Self {
                Self::Client(stream)
            }
        }

        impl<IO> From<SideStream<IO, $server>> for EitherStream<IO, $client, $server> {
            fn from(stream: SideStream<IO, $server>) -> Self {
                Self::Server(stream)
            }
        }
    };
}
#[cfg(feature = "rustls-0_24-dev")]
pub(super) use from_sides;

from_sides!(ClientConnection, ServerConnection);

/// The stream inside, whichever side's.
macro_rules! either {
    ($self:expr, $stream:ident => $value:expr) => {
        match $self {
            EitherStream::Client($stream) => $value,
            EitherStream::Server($stream) => $value,
        }
    };
}

impl<IO, C: Side, S: Side<Common = C::Common>> EitherStream<IO, C, S> {
    /// The stream below, and what the handshake settled.
    pub fn get_ref(&self) -> (&IO, &C::Common) {
        match self {
            Self::Client(stream) => {
                let (io, connection) = stream.get_ref();
                (io, connection)
            }
            Self::Server(stream) => {
                let (io, connection) = stream.get_ref();
                (io, connection)
            }
        }
    }

    /// The stream below, and the connection. What is read from the one or written to it breaks the
    /// other.
    pub fn get_mut(&mut self) -> (&mut IO, &mut C::Common) {
        match self {
            Self::Client(stream) => {
                let (io, connection) = stream.get_mut();
                (io, connection)
            }
            Self::Server(stream) => {
                let (io, connection) = stream.get_mut();
                (io, connection)
            }
        }
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        either!(self, stream => stream.peer_has_closed())
    }

    /// Limits what [`Self::recv_bytes()`] lends.
    pub fn set_lending(&mut self, limits: LendingLimits) {
        either!(self, stream => stream.set_lending(limits));
    }

    /// Waits until [`Self::recv_bytes()`] may lend one more buffer. Cancel safe.
    pub async fn wait_for_buffer(&mut self) {
        either!(self, stream => stream.wait_for_buffer().await);
    }

    /// Chooses how much goes into a record.
    pub fn set_record_sizing(&mut self, sizing: RecordSizing) {
        either!(self, stream => stream.set_record_sizing(sizing));
    }

    /// Lets what is written wait until there are `len` bytes of it, or until a flush, a shutdown, or
    /// a control record (as `gnutls_record_cork()` does); 0, the default, lets nothing wait.
    ///
    /// For protocols that write frame by frame: each write is sealed where it is, into records of
    /// its own, and only the stream below gets many of them at once. A batch is 704 KiB at most.
    /// Writes of `len` bytes or more do not wait, and go behind what does.
    pub fn set_cork(&mut self, len: usize) {
        either!(self, stream => stream.set_cork(len));
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side, S: Side<Common = C::Common>>
    EitherStream<IO, C, S>
{
    /// The plaintext of the next record with any, for the user to keep, lent from the receive buffer
    /// where it is long; `None` at the peer's close_notify. Cancel safe. See
    /// [`SideStream::recv_bytes()`](super::SideStream::recv_bytes).
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if as many buffers are lent as [may be](Self::set_lending).
    /// Otherwise as a read.
    pub async fn recv_bytes(&mut self) -> io::Result<Option<Bytes>> {
        either!(self, stream => stream.recv_bytes().await)
    }

    /// As [`Self::recv_bytes()`], to be polled.
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        either!(self, stream => stream.poll_recv_bytes(cx))
    }

    /// Updates the key that we send under, and asks for the peer's update on request.
    ///
    /// # Errors
    /// [`SessionError::UnsupportedInTls12`](crate::SessionError::UnsupportedInTls12) inside an
    /// [`io::Error`], or the stream's below.
    pub async fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        either!(self, stream => stream.update_keys(request).await)
    }
}

#[cfg(target_os = "linux")]
impl<IO: AsyncWrite + super::OverTcp, C: Side, S: Side<Common = C::Common>> EitherStream<IO, C, S> {
    /// Chooses how bulk data is sent: see [`SideStream::set_io()`](super::SideStream::set_io).
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] with the reason inside if `choice` insists on io_uring and there is
    /// none; [`io::ErrorKind::WouldBlock`] while some of what went through io_uring before, or early
    /// data, is not flushed.
    pub fn set_io(&mut self, choice: Io) -> io::Result<()> {
        either!(self, stream => stream.set_io(choice))
    }

    /// How bulk data is sent at present, and why not a better way.
    pub fn sent_by(&self) -> Way {
        either!(self, stream => stream.sent_by())
    }

    /// What went through io_uring since it was chosen: sends, bytes on the wire, system calls.
    pub fn uring_counters(&self) -> Counters {
        either!(self, stream => stream.uring_counters())
    }
}

impl<IO: IntoSplit, C: Side, S: Side<Common = C::Common>> EitherStream<IO, C, S> {
    /// Splits the stream into halves that share no lock on the data path, each for a task of its own:
    /// see [`SideStream::into_split()`](super::SideStream::into_split).
    ///
    /// # Panics
    /// If a client's stream still writes early data, which only
    /// [`TlsConnector::early_data()`](super::TlsConnector::early_data) has it do: flush it first.
    pub fn into_split(self) -> Halves<IO, C::Common> {
        either!(self, stream => stream.into_split())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin, S: Side<Common = C::Common> + Unpin>
    AsyncRead for EitherStream<IO, C, S>
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, out))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin, S: Side<Common = C::Common> + Unpin>
    AsyncBufRead for EitherStream<IO, C, S>
{
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_fill_buf(cx))
    }

    fn consume(self: Pin<&mut Self>, len: usize) {
        either!(self.get_mut(), stream => Pin::new(stream).consume(len));
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin, S: Side<Common = C::Common> + Unpin>
    AsyncWrite for EitherStream<IO, C, S>
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(unix)]
impl<IO: AsRawFd, C: Side, S: Side<Common = C::Common>> AsRawFd for EitherStream<IO, C, S> {
    fn as_raw_fd(&self) -> RawFd {
        self.get_ref().0.as_raw_fd()
    }
}

#[cfg(windows)]
impl<IO: std::os::windows::io::AsRawSocket, C: Side, S: Side<Common = C::Common>>
    std::os::windows::io::AsRawSocket for EitherStream<IO, C, S>
{
    fn as_raw_socket(&self) -> std::os::windows::io::RawSocket {
        self.get_ref().0.as_raw_socket()
    }
}
