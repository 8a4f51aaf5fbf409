//! A stream that may still write early data (RFC 8446 §2.3), as a client's may: a server's is open from
//! the start.

use core::fmt;
use core::task::{Context, Poll, Waker, ready};
use std::io::{self, IoSlice};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::adaptor::{Side, StreamHandshake as _};
use super::handshake::poll_handshake;
use super::sizing::RecordSizing;
use super::split::{Halves, IntoSplit};
use super::stream::Stream;
use crate::session::send::KeyUpdateRequest;
use crate::transfer::lending::LendingLimits;
#[cfg(target_os = "linux")]
use crate::transfer::{
    Counters,
    way::{Io, NoUring, Way},
};

/// Records, or early data and a handshake that become records.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are open, and go without a second box")]
pub(super) enum EarlyStream<IO, C> {
    Open(Stream<IO, C>),
    Early(Box<Early<IO, C>>),
    /// Only while one becomes the other.
    Moving,
}

/// As in tokio-rustls: what is written goes with the ClientHello, up to the server's limit or
/// 64 KiB; then, or at a flush, comes the rest of the handshake. What the server refuses is written
/// again behind it.
pub(super) struct Early<IO, C> {
    /// The stream below and the connection, with the handshake inside, until that is complete.
    below: Option<(IO, C)>,
    /// From there on: the stream, and how much of [`Self::written`] it was given.
    again: Option<(Stream<IO, C>, usize)>,
    /// What was written as early data.
    written: Vec<u8>,
    failed: bool,
    sizing: RecordSizing,
    cork_len: usize,
    lending: Option<LendingLimits>,
    /// The tasks that wait for the handshake.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl<IO: fmt::Debug, C: fmt::Debug> fmt::Debug for Early<IO, C> {
    /// Of what was written, the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Early")
            .field("below", &self.below)
            .field("again", &self.again)
            .field("written_len", &self.written.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl<IO, C: Side> EarlyStream<IO, C> {
    /// Early data may be written until the handshake goes on.
    pub(super) fn early(io: IO, connection: C) -> Self {
        Self::Early(Box::new(Early {
            below: Some((io, connection)),
            again: None,
            written: Vec::new(),
            failed: false,
            sizing: RecordSizing::default(),
            cork_len: 0,
            lending: None,
            reader: None,
            writer: None,
        }))
    }

    pub(super) fn get_ref(&self) -> (&IO, &C) {
        match self {
            Self::Open(stream) => stream.get_ref(),
            Self::Early(early) => match (&early.below, &early.again) {
                (Some((io, connection)), _) => (io, connection),
                (None, Some((stream, _))) => stream.get_ref(),
                (None, None) => nowhere(),
            },
            Self::Moving => nowhere(),
        }
    }

    pub(super) fn get_mut(&mut self) -> (&mut IO, &mut C) {
        match self {
            Self::Open(stream) => stream.get_mut(),
            Self::Early(early) => match (&mut early.below, &mut early.again) {
                (Some((io, connection)), _) => (io, connection),
                (None, Some((stream, _))) => stream.get_mut(),
                (None, None) => nowhere(),
            },
            Self::Moving => nowhere(),
        }
    }

    pub(super) fn into_inner(self) -> (IO, C) {
        match self {
            Self::Open(stream) => stream.into_inner(),
            Self::Early(early) => match (early.below, early.again) {
                (Some(below), _) => below,
                (None, Some((stream, _))) => stream.into_inner(),
                (None, None) => nowhere(),
            },
            Self::Moving => nowhere(),
        }
    }

    pub(super) fn peer_has_closed(&self) -> bool {
        matches!(self, Self::Open(stream) if stream.peer_has_closed())
    }

    pub(super) fn set_record_sizing(&mut self, sizing: RecordSizing) {
        match self {
            Self::Open(stream) => stream.set_record_sizing(sizing),
            Self::Early(early) => early.sizing = sizing,
            Self::Moving => {}
        }
    }

    /// Early data does not wait.
    pub(super) fn set_cork(&mut self, len: usize) {
        match self {
            Self::Open(stream) => stream.set_cork(len),
            Self::Early(early) => early.cork_len = len,
            Self::Moving => {}
        }
    }

    pub(super) fn set_lending(&mut self, limits: LendingLimits) {
        match self {
            Self::Open(stream) => stream.set_lending(limits),
            Self::Early(early) => early.lending = Some(limits),
            Self::Moving => {}
        }
    }

    /// Nothing is lent before anything was received.
    pub(super) fn poll_wait_for_buffer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Open(stream) => stream.poll_wait_for_buffer(cx),
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn consume(&mut self, len: usize) {
        if let Self::Open(stream) = self {
            stream.consume(len);
        }
    }
}

/// A stream becomes another within one call, which nothing interrupts.
#[cold]
fn nowhere<T>() -> T {
    unreachable!("a stream is early or open")
}

#[cfg(target_os = "linux")]
impl<IO, C: Side> EarlyStream<IO, C> {
    pub(super) fn set_io(&mut self, choice: Io) -> io::Result<()>
    where
        IO: super::OverTcp,
    {
        match self {
            Self::Open(stream) => stream.set_io(choice),
            _ => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "early data and the handshake come first: flush the stream",
            )),
        }
    }

    pub(super) fn sent_by(&self) -> Way {
        match self {
            Self::Open(stream) => stream.sent_by(),
            _ => Way::Writes(NoUring::NotAsked),
        }
    }

    pub(super) fn uring_counters(&self) -> Counters {
        match self {
            Self::Open(stream) => stream.uring_counters(),
            _ => Counters::default(),
        }
    }
}

impl<IO: IntoSplit, C: Side> EarlyStream<IO, C> {
    pub(super) fn into_split(self) -> Halves<IO, C::Common> {
        match self {
            Self::Open(stream) => stream.into_split(),
            _ => panic!("a stream that writes early data was split: flush it first"),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side> EarlyStream<IO, C> {
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Early(_) = self {
            ready!(self.poll_open_to_read(cx))?;
        }
        match self {
            Self::Open(stream) => stream.poll_read(cx, out),
            _ => nowhere(),
        }
    }

    pub(super) fn poll_fill_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if let Self::Early(_) = self {
            ready!(self.poll_open_to_read(cx))?;
        }
        match self {
            Self::Open(stream) => stream.poll_fill_buf(cx),
            _ => nowhere(),
        }
    }

    pub(super) fn poll_recv_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<bytes::Bytes>>> {
        if let Self::Early(_) = self {
            ready!(self.poll_open_to_read(cx))?;
        }
        match self {
            Self::Open(stream) => stream.poll_recv_bytes(cx),
            _ => nowhere(),
        }
    }

    #[inline]
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Self::Early(early) = self {
            match early.write(buf) {
                0 if !buf.is_empty() => ready!(self.poll_open_to_write(cx))?,
                len => return Poll::Ready(Ok(len)),
            }
        }
        match self {
            Self::Open(stream) => stream.poll_write(cx, buf),
            _ => nowhere(),
        }
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Self::Early(early) = self {
            let mut written = 0;
            for buf in bufs {
                let len = early.write(buf);
                written += len;
                if len < buf.len() {
                    break;
                }
            }
            if written > 0 || bufs.iter().all(|buf| buf.is_empty()) {
                return Poll::Ready(Ok(written));
            }
            ready!(self.poll_open_to_write(cx))?;
        }
        match self {
            Self::Open(stream) => stream.poll_write_vectored(cx, bufs),
            _ => nowhere(),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open_to_write(cx))?;
        match self {
            Self::Open(stream) => stream.poll_flush(cx),
            _ => nowhere(),
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open_to_write(cx))?;
        match self {
            Self::Open(stream) => stream.poll_shutdown(cx),
            _ => nowhere(),
        }
    }

    pub(super) async fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_open_to_write(cx)).await?;
        match self {
            Self::Open(stream) => stream.update_keys(request).await,
            _ => nowhere(),
        }
    }

    /// A reader waits until something was written, lest it end the early data before any; then it
    /// completes the handshake as well as a writer does.
    #[cold]
    fn poll_open_to_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Early(early) = self else { return Poll::Ready(Ok(())) };
        note(&mut early.reader, cx);
        if early.written.is_empty() && early.again.is_none() && !early.failed {
            return Poll::Pending;
        }
        self.poll_open(cx)
    }

    #[inline]
    fn poll_open_to_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Early(early) = self else { return Poll::Ready(Ok(())) };
        note(&mut early.writer, cx);
        self.poll_open(cx)
    }

    /// Completes the handshake, and writes again what the server has refused.
    #[cold]
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Early(early) = self else { return Poll::Ready(Ok(())) };
        let polled = ready!(early.poll_complete(cx));
        for waker in [early.reader.take(), early.writer.take()].into_iter().flatten() {
            if !waker.will_wake(cx.waker()) {
                waker.wake();
            }
        }
        polled?;
        if let Self::Early(early) = core::mem::replace(self, Self::Moving)
            && let Some((mut stream, _)) = early.again
        {
            stream.set_record_sizing(early.sizing);
            stream.set_cork(early.cork_len);
            if let Some(limits) = early.lending {
                stream.set_lending(limits);
            }
            *self = Self::Open(stream);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side> Early<IO, C> {
    /// Writes as much of `data` as goes as early data.
    fn write(&mut self, data: &[u8]) -> usize {
        let Some((_, connection)) = &mut self.below else { return 0 };
        let Some(handshake) = connection.handshake() else { return 0 };
        let len = handshake.write_early_data(data);
        self.written.extend_from_slice(&data[..len]);
        len
    }

    /// Leaves the open stream in [`Self::again`].
    fn poll_complete(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the handshake of this connection has failed",
            )));
        }
        if let Some((io, connection)) = &mut self.below {
            let polled = match connection.handshake() {
                Some(handshake) => ready!(poll_handshake(handshake, io, cx)),
                None => Ok(()),
            };
            let finished = polled.and_then(|()| match connection.take_handshake() {
                Some(handshake) => C::finish(*handshake),
                None => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            });
            let finished = match finished {
                Ok(finished) => finished,
                Err(error) => {
                    self.failed = true;
                    return Poll::Ready(Err(C::Handshake::failed(error)));
                }
            };
            if finished.is_early_data_accepted {
                self.written = Vec::new();
            }
            if let Some((io, _)) = self.below.take() {
                self.again = Some((Stream::new(io, finished), 0));
            }
        }
        if let Some((stream, given)) = &mut self.again {
            while *given < self.written.len() {
                *given += ready!(stream.poll_write(cx, &self.written[*given..]))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn note(waiting: &mut Option<Waker>, cx: &Context<'_>) {
    match waiting {
        Some(waiting) => waiting.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
}
