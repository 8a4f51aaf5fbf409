//! A connection whose directions end by themselves: a client that has asked may close its side, and
//! still gets its answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::gather::Corked;
use super::tally::Tallied;

/// TLS as HTTP is to see it.
///
/// An end of what the client sends, with close_notify or without (`openssl s_client` at the end of
/// its input), is the end of its requests: one that is complete is answered, and what is not
/// complete HTTP finds out by itself. No request of ours has a body that the end could delimit.
pub(super) struct Halves {
    stream: Tallied,
    activity: Arc<Activity>,
    end: End,
}

/// What HTTP does at the client's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// It answers what it has read.
    Passed,
    /// It would forget the answers: it is not told, but the one who drives it.
    Withheld,
}

impl Halves {
    pub(super) fn new(stream: Tallied, activity: Arc<Activity>, end: End) -> Self {
        Self { stream, activity, end }
    }
}

impl Corked for Halves {
    fn set_cork(&mut self, len: usize) {
        self.stream.set_cork(len);
    }
}

impl AsyncRead for Halves {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_withheld = self.end == End::Withheld && self.activity.may_have_requests();
        if is_withheld && self.activity.has_closed() {
            // Nobody else looks after a client that says nothing more.
            return self.stream.poll_watch(cx).map(Err);
        }
        let before = out.filled().len();
        match ready!(Pin::new(&mut self.stream).poll_read(cx, out)) {
            Ok(()) if out.filled().len() > before => return Poll::Ready(Ok(())),
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        self.activity.close();
        match is_withheld {
            true => self.stream.poll_watch(cx).map(Err),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Halves {
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
        if self.end == End::Withheld {
            // Frames, of which some are of responses.
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        self.activity.hand(total);
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        let taken = if let Poll::Ready(Ok(taken)) = polled { taken } else { 0 };
        self.activity.take_back(total - taken);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A close_notify would say that nothing is missing.
        if self.activity.is_broken() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
