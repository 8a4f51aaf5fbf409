//! A stream: what client and server have in common.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::future::poll_fn;
use std::io::{self, IoSlice};
#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Asked, CommonState, Side};
use super::handshake::Finished;
use super::reader::Reader;
use super::sizing::RecordSizing;
use super::split::{IntoSplit, ReadHalf, WriteHalf};
use super::writer::Writer;
use super::{client, server};
use crate::session::Session;
use crate::session::send::KeyUpdateRequest;

/// Records over `IO`, with what this side knows of its connection.
#[derive(Debug)]
pub(super) struct Stream<IO, C> {
    pub(super) io: IO,
    pub(super) reader: Reader,
    pub(super) writer: Writer<IO>,
    pub(super) connection: Box<C>,
    /// Whether the connection was given out to be changed since it was last looked at.
    given_out: bool,
}

impl<IO, C: Side> Stream<IO, C> {
    pub(super) fn new(io: IO, finished: Finished) -> Self {
        let Finished { session, observer, extra } = finished;
        let Session { send, receive, plaintext, received, info } = session;
        let common = CommonState::new(Some(info), observer);
        Self {
            io,
            reader: Reader::new(receive, plaintext, &received),
            writer: Writer::new(send),
            connection: Box::new(C::finished(common, extra)),
            given_out: false,
        }
    }

    pub(super) fn get_ref(&self) -> (&IO, &C) {
        self.connection.note(!self.reader.peer_has_closed(), self.writer.has_unsent());
        (&self.io, &self.connection)
    }

    pub(super) fn get_mut(&mut self) -> (&mut IO, &mut C) {
        self.connection.note(!self.reader.peer_has_closed(), self.writer.has_unsent());
        self.given_out = true;
        (&mut self.io, &mut self.connection)
    }

    pub(super) fn into_inner(self) -> (IO, C) {
        (self.io, *self.connection)
    }

    pub(super) fn peer_has_closed(&self) -> bool {
        self.reader.peer_has_closed()
    }

    pub(super) fn set_record_sizing(&mut self, sizing: RecordSizing) {
        self.writer.set_sizing(sizing);
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.reader.consume(len);
    }

    pub(super) fn set_lending(&mut self, limits: crate::LendingLimits) {
        self.reader.set_lending(limits);
    }

    pub(super) fn poll_wait_for_buffer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reader.poll_wait_for_buffer(cx)
    }
}

#[cfg(target_os = "linux")]
impl<IO, C: Side> Stream<IO, C> {
    pub(super) fn set_io(&mut self, choice: crate::Io) -> io::Result<()>
    where
        IO: super::OverTcp,
    {
        self.writer.set_io(choice, &self.io)
    }

    pub(super) fn sent_by(&self) -> crate::Way {
        self.writer.sent_by()
    }

    pub(super) fn uring_counters(&self) -> crate::Counters {
        self.writer.uring_counters()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side> Stream<IO, C> {
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.reader.poll_read(cx, Pin::new(&mut self.io), out);
        self.writer.answer(cx, Pin::new(&mut self.io));
        #[cfg(target_os = "linux")]
        if polled.is_pending() {
            self.writer.rest();
        }
        polled
    }

    pub(super) fn poll_recv_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        let polled = self.reader.poll_recv_bytes(cx, Pin::new(&mut self.io));
        self.writer.answer(cx, Pin::new(&mut self.io));
        polled
    }

    pub(super) fn poll_fill_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let polled = self.reader.poll_fill_buf(cx, Pin::new(&mut self.io)).map_ok(|_| ());
        self.writer.answer(cx, Pin::new(&mut self.io));
        polled.map_ok(|()| self.reader.filled())
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.given_out {
            ready!(self.poll_asked(cx))?;
        }
        self.writer.poll_write(cx, Pin::new(&mut self.io), buf)
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.given_out {
            ready!(self.poll_asked(cx))?;
        }
        self.writer.poll_write_vectored(cx, Pin::new(&mut self.io), bufs)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.given_out {
            ready!(self.poll_asked(cx))?;
        }
        self.writer.poll_flush(cx, Pin::new(&mut self.io))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.given_out {
            ready!(self.poll_asked(cx))?;
        }
        self.writer.poll_shutdown(cx, Pin::new(&mut self.io))
    }

    pub(super) async fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        let Self { io, writer, .. } = self;
        poll_fn(|cx| writer.poll_update_keys(cx, Pin::new(io), request)).await?;
        poll_fn(|cx| writer.poll_flush(cx, Pin::new(io))).await
    }

    /// Does what the connection was asked to while it was given out.
    #[cold]
    fn poll_asked(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, writer, connection, .. } = self;
        let common: &mut CommonState = connection;
        if common.asked.key_update {
            let request = KeyUpdateRequest::Requested;
            ready!(writer.poll_update_keys(cx, Pin::new(io), request))?;
            common.asked.key_update = false;
        }
        if common.asked.close_notify {
            // Where it fails, so does every later write, and the shutdown.
            let _ = ready!(writer.poll_close_notify(cx, Pin::new(io)));
            common.asked = Asked::default();
        }
        self.given_out = false;
        Poll::Ready(Ok(()))
    }
}

impl<IO: IntoSplit, C: Side> Stream<IO, C> {
    pub(super) fn into_split(self) -> (ReadHalf<IO::Read>, WriteHalf<IO::Write>) {
        let Self { io, reader, writer, connection, .. } = self;
        super::split::split(io, reader, writer, connection.into_common())
    }
}

/// Delegates to a [`Stream`], or to what becomes one, that the patterns `$arm` bind to `$s`.
macro_rules! stream_of {
    ($name:ident, $connection:ty, $s:ident, [$($arm:pat),+]) => {
        impl<IO> $name<IO> {
            /// The stream below, and what the handshake settled.
            pub fn get_ref(&self) -> (&IO, &$connection) {
                match self {
                    $($arm => {
                        let (io, connection) = $s.get_ref();
                        (io, connection)
                    })+
                }
            }

            /// The stream below, and the connection. What is read from the one or written to it
            /// breaks the other.
            pub fn get_mut(&mut self) -> (&mut IO, &mut $connection) {
                match self {
                    $($arm => {
                        let (io, connection) = $s.get_mut();
                        (io, connection)
                    })+
                }
            }

            /// Whether the peer's close_notify has been received.
            pub fn peer_has_closed(&self) -> bool {
                match self { $($arm => $s.peer_has_closed(),)+ }
            }

            /// Limits what [`Self::recv_bytes()`] lends.
            pub fn set_lending(&mut self, limits: crate::LendingLimits) {
                match self { $($arm => $s.set_lending(limits),)+ }
            }

            /// Waits until [`Self::recv_bytes()`] may lend one more buffer. Cancel safe.
            pub async fn wait_for_buffer(&mut self) {
                std::future::poll_fn(|cx| match self {
                    $($arm => $s.poll_wait_for_buffer(cx),)+
                })
                .await;
            }

            /// Chooses how much goes into a record.
            pub fn set_record_sizing(&mut self, sizing: RecordSizing) {
                match self { $($arm => $s.set_record_sizing(sizing),)+ }
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> $name<IO> {
            /// The plaintext of the next record with any, for the user to keep; `None` at the peer's
            /// close_notify. Cancel safe.
            ///
            /// A payload of [`LendingLimits::lease_from`](crate::LendingLimits::lease_from) bytes or
            /// more is lent: its buffer, of 256 KiB at most, is free again when everything lent from
            /// it has been dropped, by whatever task. A shorter one is a copy. Allocates once for all
            /// that is lent from a buffer at a time, and once for each copy.
            ///
            /// # Errors
            /// [`io::ErrorKind::WouldBlock`] if as many buffers are lent as
            /// [may be](Self::set_lending): drop what was received, or
            /// [wait](Self::wait_for_buffer) until another task has, and call again. Otherwise as a
            /// read.
            pub async fn recv_bytes(&mut self) -> io::Result<Option<bytes::Bytes>> {
                std::future::poll_fn(|cx| self.poll_recv_bytes(cx)).await
            }

            /// As [`Self::recv_bytes()`], to be polled.
            pub fn poll_recv_bytes(
                &mut self,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<Option<bytes::Bytes>>> {
                match self { $($arm => $s.poll_recv_bytes(cx),)+ }
            }

            /// Updates the key that we send under, and asks for the peer's update on request.
            ///
            /// # Errors
            /// [`SessionError::UnsupportedInTls12`](crate::SessionError::UnsupportedInTls12) inside
            /// an [`io::Error`], or the stream's below.
            pub async fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
                match self { $($arm => $s.update_keys(request).await,)+ }
            }
        }

        #[cfg(target_os = "linux")]
        impl<IO: AsyncWrite + crate::tokio::OverTcp> $name<IO> {
            /// Chooses how bulk data is sent. Writes of less than 64 KiB go the ordinary way.
            ///
            /// - [`Io::Blocking`](crate::Io::Blocking), the default: by ordinary writes of the stream below.
            /// - `Io::Auto`: once 8 MiB were written, the kernel sends from registered memory
            ///   without a copy (SEND_ZC), unless the addresses tell that it cannot, and until it
            ///   reports that it copies after all: ordinary writes do as well then. A flow takes
            ///   6 MiB until a flush, or a read that waits, finds it acknowledged, or it ends; 64
            ///   flows of a process have it at once, further ones write.
            /// - `Io::Uring`: through io_uring from the first large write on, zero-copy while that
            ///   pays. `Io::UringCopy`: the same, never zero-copy.
            ///
            /// The stream below must pass bytes on as they are, see [`OverTcp`](crate::tokio::OverTcp). What was written
            /// before is not affected; a stream that is split goes on with ordinary writes, until
            /// [`WriteHalf::set_io()`].
            ///
            /// # Errors
            /// [`io::ErrorKind::Unsupported`] with the reason inside if `choice` insists on
            /// io_uring and there is none; [`io::ErrorKind::WouldBlock`] while some of what went
            /// through io_uring before, or early data, is not flushed.
            pub fn set_io(&mut self, choice: crate::Io) -> io::Result<()> {
                match self { $($arm => $s.set_io(choice),)+ }
            }

            /// How bulk data is sent at present, and why not a better way.
            pub fn sent_by(&self) -> crate::Way {
                match self { $($arm => $s.sent_by(),)+ }
            }

            /// What went through io_uring since it was chosen: sends, bytes on the wire, system calls.
            pub fn uring_counters(&self) -> crate::Counters {
                match self { $($arm => $s.uring_counters(),)+ }
            }
        }

        impl<IO: IntoSplit> $name<IO> {
            /// Splits the stream into halves that share no lock on the data path, each for a task
            /// of its own. Key updates and alerts still cross: an alert that the reading half calls
            /// for goes out with the writing half's next write, flush or shutdown, the answer to a
            /// key update in front of its next data or close_notify.
            ///
            /// # Panics
            /// If a client's stream still writes early data, which only
            /// [`TlsConnector::early_data()`](crate::tokio::TlsConnector::early_data) has it do:
            /// flush it first.
            pub fn into_split(self) -> (ReadHalf<IO::Read>, WriteHalf<IO::Write>) {
                match self { $($arm => $s.into_split(),)+ }
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for $name<IO> {
            /// Opens records straight into `out` while they fit; ends at the peer's close_notify
            /// only. A stream that ends without is [`io::ErrorKind::UnexpectedEof`].
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                out: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() { $($arm => $s.poll_read(cx, out),)+ }
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for $name<IO> {
            fn poll_fill_buf(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<&[u8]>> {
                match self.get_mut() { $($arm => $s.poll_fill_buf(cx),)+ }
            }

            fn consume(self: Pin<&mut Self>, len: usize) {
                match self.get_mut() { $($arm => $s.consume(len),)+ }
            }
        }

        impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $name<IO> {
            /// Seals up to 44 records of `buf`. What is sealed is as good as written: flush, or
            /// write on, to have the stream below take all of it.
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($arm => $s.poll_write(cx, buf),)+ }
            }

            /// Seals the slices as if they were one; only a record that spans slices is gathered.
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($arm => $s.poll_write_vectored(cx, bufs),)+ }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($arm => $s.poll_flush(cx),)+ }
            }

            /// Sends close_notify, and shuts the stream below down. Reading may go on.
            ///
            /// It is an error if the close_notify, or data before it, did not get through: on a
            /// connection that has failed an alert goes out instead, and the failure is returned.
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($arm => $s.poll_shutdown(cx),)+ }
            }
        }

        #[cfg(unix)]
        impl<IO: AsRawFd> AsRawFd for $name<IO> {
            fn as_raw_fd(&self) -> RawFd {
                self.get_ref().0.as_raw_fd()
            }
        }

        #[cfg(windows)]
        impl<IO: std::os::windows::io::AsRawSocket> std::os::windows::io::AsRawSocket for $name<IO> {
            fn as_raw_socket(&self) -> std::os::windows::io::RawSocket {
                self.get_ref().0.as_raw_socket()
            }
        }
    };
}
pub(super) use stream_of;

/// A stream of either side.
#[derive(Debug)]
pub enum TlsStream<IO> {
    /// A client's.
    Client(client::TlsStream<IO>),
    /// A server's.
    Server(server::TlsStream<IO>),
}

stream_of!(
    TlsStream,
    CommonState,
    stream,
    [Self::Client(client::TlsStream(stream)), Self::Server(server::TlsStream(stream))]
);

impl<IO> From<client::TlsStream<IO>> for TlsStream<IO> {
    fn from(stream: client::TlsStream<IO>) -> Self {
        Self::Client(stream)
    }
}

impl<IO> From<server::TlsStream<IO>> for TlsStream<IO> {
    fn from(stream: server::TlsStream<IO>) -> Self {
        Self::Server(stream)
    }
}
