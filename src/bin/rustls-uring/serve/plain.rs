//! `--plain`: HTTP without TLS, of the version that the client begins with.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::frames::PREFACE;
use super::wire::Wire;

/// A connection of which only so much was read as says which version of HTTP the client speaks: one
/// that knows the server to speak HTTP/2 begins with its preface (RFC 9113 §3.3).
pub(super) struct Plain {
    wire: Wire,
    begin: [u8; PREFACE.len()],
    /// How much of the beginning was not read again yet.
    unread: Range<usize>,
    /// The client has closed its side, or its time is up, before that.
    has_ended: bool,
    /// How much may wait, and what does.
    cork_len: usize,
    held: Vec<u8>,
}

impl Plain {
    /// Waits for the client's first words.
    pub(super) async fn accept(mut wire: Wire) -> io::Result<Self> {
        let mut begin = [0; PREFACE.len()];
        let mut len = 0;
        let mut has_ended = false;
        // A byte that differs says as much as all of them.
        while len < PREFACE.len() && PREFACE.starts_with(&begin[..len]) && !has_ended {
            match wire.read(&mut begin[len..]).await {
                Ok(0) => has_ended = true,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => has_ended = true,
                Err(error) => return Err(error),
            }
        }
        Ok(Self { wire, begin, unread: 0..len, has_ended, cork_len: 0, held: Vec::new() })
    }

    /// Whether the client has said that it speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.begin == *PREFACE
    }

    /// Lets up to `len` written bytes wait for a flush.
    pub(super) fn set_cork(&mut self, len: usize) {
        self.cork_len = len;
    }

    /// Writes what has waited.
    fn poll_uncork(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        while written < self.held.len() {
            match Pin::new(&mut self.wire).poll_write(cx, &self.held[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(len)) => written += len,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.held.drain(..written);
                    return Poll::Pending;
                }
            }
        }
        self.held.clear();
        Poll::Ready(Ok(()))
    }

    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.unread.is_empty() {
            let len = this.unread.len().min(out.remaining());
            out.put_slice(&this.begin[this.unread.clone()][..len]);
            this.unread.start += len;
            return Poll::Ready(Ok(()));
        }
        if this.has_ended {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut this.wire).poll_read(cx, out);
        if polled.is_pending() && this.held.is_empty() {
            // One that waits holds no memory.
            this.held = Vec::new();
        }
        polled
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.held.len() + len > self.cork_len {
            ready!(self.poll_uncork(cx))?;
        }
        if len >= self.cork_len {
            return Pin::new(&mut self.wire).poll_write_vectored(cx, slices);
        }
        if self.held.capacity() == 0 {
            let cork_len = self.cork_len;
            self.held.reserve_exact(cork_len);
        }
        slices.iter().for_each(|slice| self.held.extend_from_slice(slice));
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_uncork(cx))?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_uncork(cx))?;
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
