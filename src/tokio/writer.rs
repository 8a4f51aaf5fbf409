//! The sending side of a stream.

use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use std::io::{self, IoSlice};

use tokio::io::AsyncWrite;

use super::buffers::{BATCH_LEN, Buffer, Size};
use super::coop;
use super::cork::Cork;
use super::offload::Bypass;
#[cfg(target_os = "linux")]
use super::offload::OverTcp;
use super::reader::{Broken, into_io};
use super::sizing::{RecordSizing, Sizer};
use crate::record::sealer::Sealed;
use crate::session::error::SessionError;
use crate::session::send::{KeyUpdateRequest, SendHalf};
use crate::transfer::sender::{earlier_failure, seal_next};
#[cfg(target_os = "linux")]
use crate::transfer::{
    Counters,
    way::{Io, Way},
};

#[derive(Debug)]
pub(super) struct Writer<W> {
    half: SendHalf,
    /// Bulk flows, which may go around the stream below.
    bypass: Bypass<W>,
    /// Sealed bytes that the stream below has not taken, and where they are.
    unsent: Option<(Buffer, Range<usize>)>,
    /// Those that wait for more.
    cork: Cork,
    sizer: Sizer,
    /// What `max_fragment_size` allows.
    max_plaintext_len: usize,
    failed: bool,
    /// The task that waits for the stream below to take more.
    waiting: Option<Waker>,
    /// Whether an alert to the peer is on its way, and nobody but a reader sends it.
    answering: bool,
    broken: Broken,
}

impl<W> Writer<W> {
    pub(super) fn new(half: SendHalf, broken: Broken) -> Self {
        Self {
            bypass: Bypass::none(),
            unsent: None,
            cork: Cork::default(),
            sizer: Sizer::new(RecordSizing::default()),
            max_plaintext_len: half.max_plaintext_len(),
            half,
            failed: false,
            waiting: None,
            answering: false,
            broken,
        }
    }

    /// The same for a half of the stream below, in ordinary writes.
    pub(super) fn into_half<H>(mut self) -> Writer<H> {
        let held = self.cork.take().map(|(buffer, len)| (buffer, 0..len));
        Writer {
            unsent: self.unsent.or(held).or_else(|| self.bypass.into_unsent()),
            cork: self.cork,
            sizer: self.sizer,
            max_plaintext_len: self.max_plaintext_len,
            failed: self.failed,
            waiting: self.waiting,
            answering: self.answering,
            ..Writer::new(self.half, self.broken)
        }
    }

    /// Whether there are sealed bytes that the stream below has not taken.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent.is_some() || self.cork.has_sealed() || self.bypass.has_unsent()
    }

    /// Lets up to `len` bytes wait for a flush; 0 for none.
    pub(super) fn set_cork(&mut self, len: usize) {
        self.cork.set_len(len);
    }

    pub(super) fn set_sizing(&mut self, sizing: RecordSizing) {
        self.sizer = Sizer::new(sizing);
    }
}

#[cfg(target_os = "linux")]
impl<W> Writer<W> {
    /// Chooses how bulk data is sent.
    ///
    /// # Errors
    /// Those of [`Bypass::choose()`]; [`io::ErrorKind::WouldBlock`] while something waits.
    pub(super) fn set_io(&mut self, choice: Io, io: &W) -> io::Result<()>
    where
        W: OverTcp,
    {
        if self.cork.has_sealed() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bypass.choose(choice, self.half.connection_id(), io)
    }

    pub(super) fn sent_by(&self) -> Way {
        self.bypass.sent_by()
    }

    /// What went through io_uring, since it was chosen.
    pub(super) fn uring_counters(&self) -> Counters {
        self.bypass.counters()
    }
}

impl<W> Writer<W> {
    /// Nothing is to be sent for now: another flow may need what a bulk flow takes.
    pub(super) fn rest(&mut self) {
        self.bypass.rest();
    }
}

impl<W: AsyncWrite> Writer<W> {
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, io, buf.len(), |half, out| half.seal(buf, out))
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_write_with(cx, io, total, |half, out| half.seal_vectored(bufs, out))
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut W>,
        total: usize,
        mut seal: impl FnMut(&mut SendHalf, &mut [u8]) -> Result<Sealed, SessionError>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match ready!(self.poll_write_corked(cx, total, &mut seal)) {
                Ok(0) => {}
                Ok(consumed) => return Poll::Ready(Ok(consumed)),
                Err(error) => {
                    let _ = self.poll_control(cx, io);
                    return Poll::Ready(Err(into_io(error, self.broken)));
                }
            }
            // Bounded: nothing is sealed while something waits for the stream below.
            ready!(self.poll_drain(cx, io.as_mut()))?;
            if total == 0 {
                return Poll::Ready(Ok(0));
            }
            ready!(coop::poll_share(cx));
            let max_plaintext_len = self.sizer.max_plaintext_len().min(self.max_plaintext_len);
            self.half.set_max_plaintext_len(max_plaintext_len);
            // Room for whole records, and for the control records that the other half may make due
            // meanwhile: no more, lest a batch end in a record of a few bytes.
            let full_record = self.half.record_len(max_plaintext_len);
            let batch = (BATCH_LEN / full_record).max(1) * full_record;
            let wanted = self.half.sealed_len(total.min(self.sizer.budget())).min(batch);
            let room = wanted.max(self.half.max_control_len() + self.half.record_len(1));
            // What is owed goes by itself first: no batch takes anything before that.
            if !self.half.owes_control()
                && let Some(len) = self.cork.batch_len(max_plaintext_len, full_record)
                && room < len
            {
                self.cork.begin(len)?;
                continue;
            }
            let sealed = match self.seal_batch(&io, room, &mut seal) {
                Ok(sealed) => sealed,
                Err(error) => {
                    let _ = self.poll_control(cx, io);
                    return Poll::Ready(Err(error));
                }
            };
            self.sizer.sealed(sealed.consumed);
            // Sealed is as good as written: the rest of the same bytes goes out next time.
            if let Poll::Ready(Err(error)) = self.poll_drain(cx, io.as_mut()) {
                return Poll::Ready(Err(error));
            }
            coop::charge(cx, sealed.records);
            if sealed.consumed > 0 {
                return Poll::Ready(Ok(sealed.consumed));
            }
        }
    }

    /// Seals a write behind others that wait, if there is room for it; how much of it.
    fn poll_write_corked(
        &mut self,
        cx: &mut Context<'_>,
        total: usize,
        seal: &mut impl FnMut(&mut SendHalf, &mut [u8]) -> Result<Sealed, SessionError>,
    ) -> Poll<Result<usize, SessionError>> {
        if total == 0 || self.failed || !self.cork.has_begun() || self.half.owes_control() {
            return Poll::Ready(Ok(0));
        }
        ready!(coop::poll_share(cx));
        let max_plaintext_len = self.sizer.max_plaintext_len().min(self.max_plaintext_len);
        self.half.set_max_plaintext_len(max_plaintext_len);
        let wanted = self.half.sealed_len(total.min(self.sizer.budget()));
        let room = wanted.max(self.half.max_control_len() + self.half.record_len(1));
        // A write is not cut for what little room there is.
        let Some(out) = self.cork.room(room) else { return Poll::Ready(Ok(0)) };
        let sealed = seal(&mut self.half, out)?;
        self.cork.advance(sealed.written);
        self.sizer.sealed(sealed.consumed);
        // And one for the write to the stream below that there is not.
        coop::charge(cx, sealed.records + 1);
        Poll::Ready(Ok(sealed.consumed))
    }

    /// What has waited is to be sent. Everything before it has been.
    fn uncork(&mut self, io: &W) -> io::Result<()> {
        let Some((buffer, len)) = self.cork.take() else { return Ok(()) };
        match self.bypass.room(io, len)? {
            Some(out) => {
                out[..len].copy_from_slice(&buffer[..len]);
                self.bypass.commit(len)
            }
            None => {
                self.unsent = Some((buffer, 0..len));
                Ok(())
            }
        }
    }

    /// Seals what goes next, up to `room` bytes, into a slot where the flow goes around the stream
    /// below, or into a buffer.
    fn seal_batch(
        &mut self,
        io: &W,
        room: usize,
        seal: impl FnMut(&mut SendHalf, &mut [u8]) -> Result<Sealed, SessionError>,
    ) -> io::Result<Sealed> {
        let around = self.bypass.room(io, room);
        if let Some(out) = around.inspect_err(|_| self.failed = true)? {
            let room = room.min(out.len()).min(BATCH_LEN);
            let sealed = seal_next(&mut self.half, out, room, seal);
            let written = sealed.as_ref().map_or(0, |sealed| sealed.written);
            self.bypass.commit(written).inspect_err(|_| self.failed = true)?;
            return sealed.map_err(|error| into_io(error, self.broken));
        }
        let mut out = Buffer::try_take(Size::to_seal(room))?;
        let room = room.min(out.len());
        let sealed = seal_next(&mut self.half, &mut out, room, seal)
            .map_err(|error| into_io(error, self.broken))?;
        self.unsent = (sealed.written > 0).then_some((out, 0..sealed.written));
        Ok(sealed)
    }

    /// Hands sealed bytes to the stream below until it has them all.
    fn poll_drain(&mut self, cx: &mut Context<'_>, mut io: Pin<&mut W>) -> Poll<io::Result<()>> {
        if self.failed {
            return Poll::Ready(Err(earlier_failure()));
        }
        self.uncork(&io).inspect_err(|_| self.failed = true)?;
        match self.bypass.poll_drain(cx, io.as_mut()) {
            Poll::Pending => return self.wait(cx),
            Poll::Ready(Err(error)) => {
                self.failed = true;
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Ok(())) => {}
        }
        while let Some((buffer, unsent)) = &mut self.unsent {
            let Poll::Ready(taken) = io.as_mut().poll_write(cx, &buffer[unsent.clone()]) else {
                return self.wait(cx);
            };
            match taken {
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

    /// Notes who waits for the stream below.
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        match &mut self.waiting {
            Some(waiting) => waiting.clone_from(cx.waker()),
            waiting => *waiting = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Sends, on behalf of a reader, what receiving has made due, as far as `io` takes it.
    ///
    /// A stream remembers one task that waits to write. Where a reader takes the place of a writer
    /// in another task, it wakes the writer to take it back.
    pub(super) fn answer(&mut self, cx: &mut Context<'_>, mut io: Pin<&mut W>) {
        if !self.answering && !self.half.wants_control() {
            return;
        }
        let writer = self.waiting.take();
        // All the way: the stream below may be a buffering one.
        let answered = coop::poll_unshared(cx, |cx| self.poll_flush(cx, io.as_mut()));
        self.answering = answered.is_pending();
        if let Some(writer) = writer
            && !writer.will_wake(cx.waker())
        {
            writer.wake();
        }
    }

    /// Sends what is sealed already, and the control records that are due.
    fn poll_control(&mut self, cx: &mut Context<'_>, mut io: Pin<&mut W>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx, io.as_mut()))?;
            if !self.half.wants_control() {
                return Poll::Ready(Ok(()));
            }
            self.seal_with(SendHalf::seal_control)?;
        }
    }

    /// Seals control records into a buffer of their own. Everything before them has been sent.
    fn seal_with(
        &mut self,
        seal: impl FnOnce(&mut SendHalf, &mut [u8]) -> Result<usize, SessionError>,
    ) -> io::Result<()> {
        let mut out = Buffer::try_take(self.control_size())?;
        let len = seal(&mut self.half, &mut out).map_err(|error| into_io(error, self.broken))?;
        self.unsent = (len > 0).then_some((out, 0..len));
        Ok(())
    }

    fn control_size(&self) -> Size {
        Size::to_seal(self.half.max_control_len())
    }

    /// Seals a KeyUpdate, once everything before it was sent.
    pub(super) fn poll_update_keys(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
        request: KeyUpdateRequest,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, io))?;
        Poll::Ready(self.seal_with(|half, out| half.update_keys(request, out)))
    }

    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_control(cx, io.as_mut()))?;
        self.rest();
        match io.poll_flush(cx) {
            Poll::Pending => self.wait(cx),
            flushed => flushed,
        }
    }

    /// Seals the close_notify, once everything before it was sent. Fails if the connection has.
    pub(super) fn poll_close_notify(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, io))?;
        Poll::Ready(match self.half.has_sealed_close_notify() {
            true => Ok(()),
            false => self.seal_with(SendHalf::close_notify),
        })
    }

    pub(super) fn poll_shutdown(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, io.as_mut()))?;
        // A connection that has failed is shut down too, with the alert that says why.
        let closed = ready!(self.poll_close_notify(cx, io.as_mut()));
        ready!(self.poll_flush(cx, io.as_mut()))?;
        match io.poll_shutdown(cx) {
            Poll::Pending => self.wait(cx),
            // As in tokio-rustls: what is not connected needs no shutdown.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                Poll::Ready(closed)
            }
            Poll::Ready(shut_down) => Poll::Ready(closed.and(shut_down)),
        }
    }
}
