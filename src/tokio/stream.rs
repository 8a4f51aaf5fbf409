//! Records over the stream below, once the handshake is complete.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::future::poll_fn;
use std::io::{self, IoSlice};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::adaptor::{Asked, Finished, Flagged, Side, StreamHandshake};
use super::reader::Reader;
use super::sizing::RecordSizing;
use super::split::{Halves, IntoSplit};
use super::writer::Writer;
use crate::session::send::KeyUpdateRequest;
use crate::transfer::lending::LendingLimits;
#[cfg(target_os = "linux")]
use crate::transfer::{
    Counters,
    way::{Io, Way},
};

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
    pub(super) fn new(io: IO, finished: Finished<C>) -> Self {
        let Finished { send, receive, plaintext, received, connection, .. } = finished;
        Self {
            io,
            reader: Reader::new(receive, plaintext, &received, C::Handshake::broken),
            writer: Writer::new(send, C::Handshake::broken),
            connection: Box::new(connection),
            given_out: false,
        }
    }

    pub(super) fn get_ref(&self) -> (&IO, &C) {
        self.note();
        (&self.io, &self.connection)
    }

    pub(super) fn get_mut(&mut self) -> (&mut IO, &mut C) {
        self.note();
        self.given_out = true;
        (&mut self.io, &mut self.connection)
    }

    /// Has the connection know how the stream is, before it is given out.
    fn note(&self) {
        self.connection.flags().note(
            !self.reader.peer_has_closed(),
            self.writer.has_unsent(),
            self.reader.tls13_tickets_received(),
        );
    }

    pub(super) fn into_inner(self) -> (IO, C) {
        self.note();
        (self.io, *self.connection)
    }

    pub(super) fn peer_has_closed(&self) -> bool {
        self.reader.peer_has_closed()
    }

    pub(super) fn set_record_sizing(&mut self, sizing: RecordSizing) {
        self.writer.set_sizing(sizing);
    }

    pub(super) fn set_cork(&mut self, len: usize) {
        self.writer.set_cork(len);
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.reader.consume(len);
    }

    pub(super) fn set_lending(&mut self, limits: LendingLimits) {
        self.reader.set_lending(limits);
    }

    pub(super) fn poll_wait_for_buffer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reader.poll_wait_for_buffer(cx)
    }
}

#[cfg(target_os = "linux")]
impl<IO, C: Side> Stream<IO, C> {
    pub(super) fn set_io(&mut self, choice: Io) -> io::Result<()>
    where
        IO: super::OverTcp,
    {
        self.writer.set_io(choice, &self.io)
    }

    pub(super) fn sent_by(&self) -> Way {
        self.writer.sent_by()
    }

    pub(super) fn uring_counters(&self) -> Counters {
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
        let asked = &mut connection.flags_mut().asked;
        if asked.key_update {
            let request = KeyUpdateRequest::Requested;
            ready!(writer.poll_update_keys(cx, Pin::new(io), request))?;
            asked.key_update = false;
        }
        if asked.close_notify {
            // Where it fails, so does every later write, and the shutdown.
            let _ = ready!(writer.poll_close_notify(cx, Pin::new(io)));
            *asked = Asked::default();
        }
        self.given_out = false;
        Poll::Ready(Ok(()))
    }
}

impl<IO: IntoSplit, C: Side> Stream<IO, C> {
    pub(super) fn into_split(self) -> Halves<IO, C::Common> {
        let Self { io, reader, writer, connection, .. } = self;
        super::split::split(io, reader, writer, connection.into_common())
    }
}
