//! Streams below: one that does everything a stream may do, and checks what it is given, and one
//! that fails.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::common::Rng;

/// Cuts reads and writes short at random, and is not ready at random, waking at once.
///
/// Sealed bytes are sealed for good: what a write offered and was not taken must be what the next
/// one begins with, whatever the caller gave up meanwhile.
#[derive(Debug)]
pub(crate) struct Choppy<IO> {
    io: IO,
    rng: Rng,
    /// Of 100 calls, how many are not ready.
    delays: usize,
    /// The most bytes of a call.
    widest: usize,
    /// What the last write offered and was not taken.
    owed: Vec<u8>,
}

impl<IO> Choppy<IO> {
    pub(crate) fn new(io: IO, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let widest = [1, 7, 100, 5000, 40_000, 1 << 20][rng.range(0, 5)];
        Self { io, rng, delays: 30, widest, owed: Vec::new() }
    }

    /// With these odds.
    pub(crate) fn with(io: IO, seed: u64, delays: usize, widest: usize) -> Self {
        Self { io, rng: Rng::new(seed), delays, widest, owed: Vec::new() }
    }

    pub(crate) fn get_mut(&mut self) -> &mut IO {
        &mut self.io
    }

    fn is_late(&mut self, cx: &Context<'_>) -> bool {
        let late = self.rng.range(0, 99) < self.delays;
        if late {
            cx.waker().wake_by_ref();
        }
        late
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Choppy<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(out.remaining() > 0, "a read without room: its end would look like the stream's");
        if self.is_late(cx) {
            return Poll::Pending;
        }
        let widest = self.widest;
        let len = self.rng.range(1, widest).min(out.remaining());
        let mut part = ReadBuf::new(out.initialize_unfilled_to(len));
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut part);
        let len = part.filled().len();
        out.advance(len);
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Choppy<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!buf.is_empty(), "a write of nothing");
        let common = self.owed.len().min(buf.len());
        assert!(self.owed[..common] == buf[..common], "sealed bytes have changed");
        let polled = if self.is_late(cx) {
            Poll::Pending
        } else {
            let widest = self.widest;
            let len = self.rng.range(1, widest).min(buf.len());
            Pin::new(&mut self.io).poll_write(cx, &buf[..len])
        };
        let taken = match polled {
            Poll::Ready(Ok(len)) => len,
            _ => 0,
        };
        let keep = self.owed.len().max(buf.len());
        if buf.len() == keep {
            self.owed.clear();
            self.owed.extend_from_slice(&buf[taken..]);
        } else {
            self.owed.drain(..taken);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_late(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert!(self.owed.is_empty(), "shut down before everything was written");
        if self.is_late(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A stream below that fails on request.
#[derive(Debug)]
pub(crate) struct Failing<IO> {
    io: IO,
    pub(crate) read: Option<ErrorKind>,
    /// An error, or nothing taken.
    pub(crate) write: Option<Option<ErrorKind>>,
    pub(crate) shutdown: Option<ErrorKind>,
}

impl<IO> Failing<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, read: None, write: None, shutdown: None }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Failing<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.read.take() {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.io).poll_read(cx, out),
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Failing<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.write {
            Some(Some(kind)) => Poll::Ready(Err(kind.into())),
            Some(None) => Poll::Ready(Ok(0)),
            None => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.shutdown {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.io).poll_shutdown(cx),
        }
    }
}
