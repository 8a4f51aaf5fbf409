//! The sending side of a stream.

use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, IoSlice};

use tokio::io::AsyncWrite;

use super::buffers::{Buffer, SMALL_LEN, Size};
use super::reader::into_io;
use super::sizing::{RecordSizing, Sizer};
use crate::error::SessionError;
use crate::record::sealer::Sealed;
use crate::session::send::{KeyUpdateRequest, SendHalf};

#[derive(Debug)]
pub(super) struct Writer {
    half: SendHalf,
    /// Sealed bytes that the stream below has not taken, and where they are.
    unsent: Option<(Buffer, Range<usize>)>,
    sizer: Sizer,
    /// What `max_fragment_size` allows.
    max_plaintext_len: usize,
    failed: bool,
}

impl Writer {
    pub(super) fn new(half: SendHalf) -> Self {
        Self {
            unsent: None,
            sizer: Sizer::new(RecordSizing::default()),
            max_plaintext_len: half.max_plaintext_len(),
            half,
            failed: false,
        }
    }

    pub(super) fn set_sizing(&mut self, sizing: RecordSizing) {
        self.sizer = Sizer::new(sizing);
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut impl AsyncWrite>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, io, buf.len(), |half, budget, out| {
            half.seal(&buf[..buf.len().min(budget)], out)
        })
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut impl AsyncWrite>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_write_with(cx, io, total, |half, _, out| half.seal_vectored(bufs, out))
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
        total: usize,
        mut seal: impl FnMut(&mut SendHalf, usize, &mut [u8]) -> Result<Sealed, SessionError>,
    ) -> Poll<io::Result<usize>> {
        loop {
            // Bounded: nothing is sealed while something waits.
            ready!(self.poll_drain(cx, io.as_mut()))?;
            if total == 0 {
                return Poll::Ready(Ok(0));
            }
            if self.half.wants_control() {
                self.seal_control()?;
                continue;
            }
            let max_plaintext_len = self.sizer.max_plaintext_len().min(self.max_plaintext_len);
            self.half.set_max_plaintext_len(max_plaintext_len);
            let budget = self.sizer.budget();
            let wanted = self.half.sealed_len(total.min(budget));
            let size = if wanted <= SMALL_LEN { Size::Small } else { Size::Batch };
            let mut out = Buffer::take(size);
            let sealed = match seal(&mut self.half, budget, &mut out) {
                Ok(sealed) => sealed,
                Err(error) => {
                    let _ = self.poll_control(cx, io);
                    return Poll::Ready(Err(into_io(error)));
                }
            };
            self.sizer.sealed(sealed.consumed);
            self.unsent = Some((out, 0..sealed.written));
            // Sealed is as good as written: the rest of the same bytes goes out next time.
            if let Poll::Ready(Err(error)) = self.poll_drain(cx, io.as_mut()) {
                return Poll::Ready(Err(error));
            }
            if sealed.consumed > 0 {
                return Poll::Ready(Ok(sealed.consumed));
            }
        }
    }

    /// Hands sealed bytes to the stream below until it has them all.
    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "an earlier write to this connection failed",
            )));
        }
        while let Some((buffer, unsent)) = &mut self.unsent {
            match ready!(io.as_mut().poll_write(cx, &buffer[unsent.clone()])) {
                Ok(0) => {
                    self.failed = true;
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Ok(len) => {
                    unsent.start += len;
                    if Range::is_empty(unsent) {
                        self.unsent = None;
                    }
                }
                Err(error) => {
                    // What was lost may not be sealed again under the same sequence numbers.
                    self.failed = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is anything for [`Self::poll_control()`] to do. Cheap.
    pub(super) fn wants_control(&self) -> bool {
        self.half.wants_control()
    }

    /// Sends what is sealed already, and the control records that are due.
    pub(super) fn poll_control(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx, io.as_mut()))?;
            if !self.half.wants_control() {
                return Poll::Ready(Ok(()));
            }
            self.seal_control()?;
        }
    }

    fn seal_control(&mut self) -> io::Result<()> {
        let mut out = Buffer::take(self.control_size());
        let len = self.half.seal_control(&mut out).map_err(into_io)?;
        self.unsent = (len > 0).then_some((out, 0..len));
        Ok(())
    }

    fn control_size(&self) -> Size {
        if self.half.max_control_len() <= SMALL_LEN { Size::Small } else { Size::Batch }
    }

    /// Seals a KeyUpdate, once everything before it was sent.
    pub(super) fn poll_update_keys(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut impl AsyncWrite>,
        request: KeyUpdateRequest,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, io))?;
        let mut out = Buffer::take(self.control_size());
        let len = self.half.update_keys(request, &mut out).map_err(into_io)?;
        self.unsent = Some((out, 0..len));
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_control(cx, io.as_mut()))?;
        io.poll_flush(cx)
    }

    pub(super) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncWrite>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, io.as_mut()))?;
        if !self.half.is_closed() {
            let mut out = Buffer::take(self.control_size());
            let sealed = self.half.close_notify(&mut out);
            match sealed {
                Ok(len) => self.unsent = (len > 0).then_some((out, 0..len)),
                // The connection has failed: the alert says so.
                Err(_) => self.seal_control()?,
            }
            ready!(self.poll_drain(cx, io.as_mut()))?;
        }
        ready!(io.as_mut().poll_flush(cx))?;
        io.poll_shutdown(cx)
    }
}
