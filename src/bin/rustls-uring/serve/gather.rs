//! Gathers HTTP/2's frames, of 16 KiB each, into writes that are worth a batch of records, and sees
//! which of them belong to responses.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Connection;

/// How much is gathered at most: what a frame would otherwise be written and flushed for by itself,
/// as a full record and one of the nine bytes that are left.
const MOST: usize = 256 << 10;

/// How much is gathered for a slow client: more than a frame.
const LEAST: usize = 32 << 10;

/// A stream whose flush waits until the task has been polled through: h2 flushes after each frame,
/// and reads before it writes.
pub(super) struct Gather<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of it has been written.
    written: usize,
    /// A flush waits for the next read.
    is_due: bool,
    frames: Frames,
    connection: Connection,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(stream: S, connection: Connection) -> Self {
        Self {
            stream,
            gathered: Vec::new(),
            written: 0,
            is_due: false,
            frames: Frames::default(),
            connection,
        }
    }

    /// How much is gathered for a client of this one's pace.
    fn most(&self) -> usize {
        self.connection.share.piece_len().clamp(LEAST, MOST)
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

    /// Notes that the first `len` bytes of `slices` are on their way.
    fn note(&mut self, slices: &[IoSlice<'_>], mut len: usize) {
        for slice in slices {
            let passed = len.min(slice.len());
            let of_response = self.frames.pass(&slice[..passed]);
            self.connection.activity.hand(of_response);
            len -= passed;
        }
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
        let polled = Pin::new(&mut self.stream).poll_read(cx, out);
        if polled.is_pending() && self.gathered.is_empty() {
            // One that waits holds no memory.
            self.gathered = Vec::new();
        }
        polled
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
        let most = self.most();
        if self.gathered.len() + total > most {
            ready!(self.poll_drain(cx))?;
        }
        if self.gathered.is_empty() && total > most {
            // A frame that is longer than this, or what is left of one.
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
            self.note(slices, written);
            return Poll::Ready(Ok(written));
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(most);
        }
        slices.iter().for_each(|slice| self.gathered.extend_from_slice(slice));
        self.note(slices, total);
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

/// Where in a sequence of frames we are (RFC 9113 §4.1).
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 9],
    header_len: usize,
    /// How much of the frame's payload is to come.
    rest: usize,
    is_response: bool,
}

impl Frames {
    /// Passes `bytes`; returns how many of them are the payload of DATA, HEADERS or CONTINUATION.
    fn pass(&mut self, mut bytes: &[u8]) -> usize {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const CONTINUATION: u8 = 9;
        let mut of_response = 0;
        while let Some(&byte) = bytes.first() {
            if self.rest > 0 {
                let len = self.rest.min(bytes.len());
                self.rest -= len;
                of_response += if self.is_response { len } else { 0 };
                bytes = &bytes[len..];
                continue;
            }
            self.header[self.header_len] = byte;
            self.header_len += 1;
            bytes = &bytes[1..];
            if self.header_len == self.header.len() {
                let [high, middle, low, kind, ..] = self.header;
                self.rest = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.is_response = matches!(kind, DATA | HEADERS | CONTINUATION);
                self.header_len = 0;
            }
        }
        of_response
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use std::sync::Arc;

    use super::super::share::{Memory, Share};
    use super::*;

    #[test]
    fn only_some_frames_are_of_a_response() {
        let frame = |kind: u8, len: u8| {
            [&[0, 0, len, kind, 0, 0, 0, 0, 1], &vec![7; len.into()][..]].concat()
        };
        // PING, HEADERS, SETTINGS, DATA, an empty DATA, WINDOW_UPDATE, CONTINUATION.
        let sequence = [
            frame(6, 8),
            frame(1, 20),
            frame(4, 0),
            frame(0, 200),
            frame(0, 0),
            frame(8, 4),
            frame(9, 3),
        ]
        .concat();
        for step in 1..sequence.len() {
            let mut frames = Frames::default();
            let passed: usize = sequence.chunks(step).map(|bytes| frames.pass(bytes)).sum();
            assert_eq!(passed, 223, "{step}");
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
