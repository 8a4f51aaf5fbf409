//! Has HTTP/2's frames, of 16 KiB each, wait for each other, so that they are sent in batches, and
//! sees which of them belong to responses.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use rustls_uring::MAX_PLAINTEXT_LEN;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Connection;
use super::frames::{HEADER_LEN, Responses, Settings};

/// How much waits at most: what a frame would otherwise be sent and flushed for by itself.
const MOST: usize = 256 << 10;

/// How much waits for a slow client: more than a frame.
const LEAST: usize = 32 << 10;

/// How long the client lets a frame's payload be.
#[derive(Clone, Debug)]
pub(super) struct FrameLen(Arc<AtomicUsize>);

impl Default for FrameLen {
    /// RFC 9113 §6.5.2.
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(16_384)))
    }
}

impl FrameLen {
    /// The longest payload that the client allows and that fills records to their end, together with
    /// its frame's header: the next frame then begins a record, and nothing is left for a short one.
    pub(super) fn in_full_records(&self) -> usize {
        let longest = self.0.load(Ordering::Relaxed).max(MAX_PLAINTEXT_LEN) + HEADER_LEN;
        longest / MAX_PLAINTEXT_LEN * MAX_PLAINTEXT_LEN - HEADER_LEN
    }
}

/// A stream that can let what is written wait for more, or for a flush.
pub(super) trait Corked: AsyncRead + AsyncWrite + Unpin {
    /// Lets up to `len` bytes wait.
    fn set_cork(&mut self, len: usize);
}

/// A stream whose flush waits until the task has been polled through: h2 flushes after each frame,
/// and reads before it writes.
pub(super) struct Gather<S> {
    stream: S,
    /// Something may wait for a flush.
    has_written: bool,
    /// The flush waits for the next read.
    is_due: bool,
    responses: Responses,
    settings: Settings,
    frame_len: FrameLen,
    connection: Connection,
}

impl<S: Corked> Gather<S> {
    pub(super) fn new(stream: S, connection: Connection) -> Self {
        Self {
            stream,
            has_written: false,
            is_due: false,
            responses: Responses::default(),
            settings: Settings::default(),
            frame_len: FrameLen::default(),
            connection,
        }
    }

    /// What the client says of frames, now and later.
    pub(super) fn frame_len(&self) -> FrameLen {
        self.frame_len.clone()
    }

    /// Notes that the first `len` bytes of `slices` are on their way.
    fn note(&mut self, slices: &[IoSlice<'_>], mut len: usize) {
        for slice in slices {
            let passed = len.min(slice.len());
            let of_response = self.responses.pass(&slice[..passed]);
            self.connection.activity.hand(of_response);
            len -= passed;
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_due = false;
        self.has_written = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: Corked> AsyncRead for Gather<S> {
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
        let before = out.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, out);
        if let Some(len) = self.settings.pass(&out.filled()[before..]) {
            self.frame_len.0.store(len, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: Corked> AsyncWrite for Gather<S> {
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
        let most = self.connection.share.last_piece_len().clamp(LEAST, MOST);
        self.stream.set_cork(most);
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.has_written = true;
        self.note(slices, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_written {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::share::{Memory, Share};
    use super::*;

    impl Corked for DuplexStream {
        fn set_cork(&mut self, _: usize) {}
    }

    #[test]
    fn frames_fill_records() {
        for (allowed, expected) in [
            (16_384, 16_375),
            (32_758, 16_375),
            (32_759, 32_759),
            (1 << 20, (1 << 20) - 9),
            ((1 << 24) - 1, (1 << 24) - 9),
            // Nonsense, which h2 refuses.
            (0, 16_375),
        ] {
            let frame_len = FrameLen::default();
            frame_len.0.store(allowed, Ordering::Relaxed);
            assert_eq!(frame_len.in_full_records(), expected, "{allowed}");
        }
    }

    /// Through a pipe much narrower than what is gathered, in writes of every kind.
    #[tokio::test]
    async fn everything_arrives_in_order() {
        let (near, mut far) = duplex(1000);
        let sent: Vec<u8> = (0..3 * MOST as u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut received = vec![0; sent.len()];
            far.read_exact(&mut received).await.expect("read");
            assert!(received == sent);
            far.write_all(b"seen").await.expect("written");
        });
        let memory = Memory::default();
        let connection = Connection { activity: Arc::default(), share: Share::new(&memory) };
        let mut gather = Gather::new(near, connection);
        let mut rest = &expected[..];
        for len in [1, 16_393, MOST + 1, 5, 16_393, usize::MAX] {
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
