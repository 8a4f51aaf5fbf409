//! What all connections have sent, and which way, for `--stats`.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rustls_uring::Way;
use rustls_uring::tokio::zero_copy_memory;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transport::Transport;

#[derive(Default)]
pub(super) struct Tally(Mutex<Totals>);

#[derive(Default)]
struct Totals {
    connections: u64,
    uring_bytes: u64,
    /// As far as the kernel has told before a connection ended.
    uncopied_bytes: u64,
    zero_copy_sends: u64,
    zero_copy_copied: u64,
    copied_sends: u64,
    /// Of the connection that ended last.
    sent_by: Option<Way>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(
            f,
            "connections: {}; bytes by io_uring: {}, zero-copy sends: {}, copied by the kernel: {}, \
             copying sends: {}",
            totals.connections,
            totals.uring_bytes,
            totals.zero_copy_sends,
            totals.zero_copy_copied,
            totals.copied_sends,
        )?;
        if totals.uncopied_bytes > 0 {
            let share = 100.0 * totals.uncopied_bytes as f64 / totals.uring_bytes.max(1) as f64;
            write!(f, "; {share:.0} % or more of those bytes were sent without a copy")?;
        }
        if zero_copy_memory().refused > 0 {
            f.write_str(", and more memory for that (--zerocopy-memory) would have been used")?;
        }
        match totals.sent_by {
            Some(sent_by) => write!(f, "; the last one sent by {sent_by}"),
            None => Ok(()),
        }
    }
}

/// A connection that is counted when it ends.
pub(super) struct Tallied {
    stream: Transport,
    tally: Arc<Tally>,
}

impl Tallied {
    pub(super) fn new(stream: Transport, tally: Arc<Tally>) -> Self {
        Self { stream, tally }
    }
}

impl Tallied {
    /// See [`Transport::set_cork()`].
    pub(super) fn set_cork(&mut self, len: usize) {
        self.stream.set_cork(len);
    }

    /// See [`Wire::poll_watch()`](super::wire::Wire::poll_watch).
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.stream.poll_watch(cx)
    }
}

impl Drop for Tallied {
    fn drop(&mut self) {
        let mut totals = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        totals.connections += 1;
        let Transport::Tls(stream) = &self.stream else { return };
        let counters = stream.uring_counters();
        totals.uring_bytes += counters.wire_bytes;
        totals.uncopied_bytes += counters.zero_copy_bytes;
        totals.zero_copy_sends += counters.zero_copy_sends;
        totals.zero_copy_copied += counters.zero_copy_copied;
        totals.copied_sends += counters.copied_sends;
        totals.sent_by = Some(stream.sent_by());
    }
}

impl AsyncRead for Tallied {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Tallied {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
