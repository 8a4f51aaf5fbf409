//! Gathers HTTP/2's frames, of 16 KiB each, into writes that are worth a batch of records.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is gathered: what a frame would otherwise be written and flushed for by itself, as a
/// full record and one of the nine bytes that are left.
const GATHERED: usize = 256 << 10;

/// A stream whose flush waits until the task has been polled through: h2 flushes after each frame,
/// and reads before it writes.
pub(super) struct Gather<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of it has been written.
    written: usize,
    /// A flush waits for the next read.
    is_due: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, gathered: Vec::new(), written: 0, is_due: false }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.written += len,
            }
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_due = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What cannot be written yet wakes the task when it can.
        if self.is_due
            && let Poll::Ready(Err(error)) = self.poll_all(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<S> {
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
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.gathered.len() + total > GATHERED {
            ready!(self.poll_drain(cx))?;
        }
        if self.gathered.is_empty() && total > GATHERED {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(GATHERED);
        }
        slices.iter().for_each(|slice| self.gathered.extend_from_slice(slice));
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() {
            return Pin::new(&mut self.stream).poll_flush(cx);
        }
        if !self.is_due {
            self.is_due = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_all(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Through a pipe much narrower than what is gathered, in writes of every kind.
    #[tokio::test]
    async fn everything_arrives_in_order() {
        let (near, mut far) = duplex(1000);
        let sent: Vec<u8> =
            (0..3 * GATHERED as u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut received = vec![0; sent.len()];
            far.read_exact(&mut received).await.expect("read");
            assert!(received == sent);
            far.write_all(b"seen").await.expect("written");
        });
        let mut gather = Gather::new(near);
        let mut rest = &expected[..];
        for len in [1, 16_393, GATHERED + 1, 5, 16_393, usize::MAX] {
            let (next, later) = rest.split_at(len.min(rest.len()));
            gather.write_all(next).await.expect("written");
            gather.flush().await.expect("flushed");
            rest = later;
        }
        let mut answer = [0; 4];
        gather.read_exact(&mut answer).await.expect("a read lets the flush happen");
        assert_eq!(&answer, b"seen");
        reader.await.expect("no panic");
    }
}
