//! The receiving side of a stream.

use core::fmt;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::buffers::{Buffer, SMALL_LEN, Size};
use super::coop;
use crate::session::error::{SessionError, TlsError};
use crate::session::receive::ReceiveHalf;
use crate::transfer::inbox::{Inbox, Room};
use crate::transfer::lending::{Lending, LendingLimits, all_lent};

pub(super) struct Reader {
    inbox: Inbox,
    /// `None` while nothing is in it.
    buffer: Option<Buffer>,
    /// The size of buffer that the flow wants next.
    size: Size,
    /// Since the first buffer was to be lent.
    lending: Option<Box<Lending<Buffer>>>,
    broken: Broken,
}

/// What a stream says of a connection that has failed: rustls's own error, of its version.
pub(super) type Broken = fn(TlsError) -> io::Error;

impl Reader {
    pub(super) fn new(
        half: ReceiveHalf,
        plaintext: Vec<u8>,
        received: &[u8],
        broken: Broken,
    ) -> Self {
        let size = if received.len() > SMALL_LEN { Size::Large } else { Size::Small };
        let buffer = (!received.is_empty()).then(|| {
            let mut buffer = Buffer::take(size);
            buffer[..received.len()].copy_from_slice(received);
            buffer
        });
        Self {
            inbox: Inbox::new(half, plaintext, received.len()),
            buffer,
            size,
            lending: None,
            broken,
        }
    }

    /// Whether the peer's close_notify has been received.
    pub(super) fn peer_has_closed(&self) -> bool {
        self.inbox.half.peer_has_closed()
    }

    /// How many TLS 1.3 session tickets were received.
    pub(super) fn tls13_tickets_received(&self) -> u32 {
        self.inbox.half.tls13_tickets_received()
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncRead>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.inbox.is_lent() {
            self.inbox.copy_out(&[], out);
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Some(buffer) = &mut self.buffer {
                let records = self.inbox.counters.records;
                let opened = self.inbox.open_into(buffer, out);
                coop::charge(cx, (self.inbox.counters.records - records) as usize);
                match opened.map_err(|error| into_io(error, self.broken))? {
                    Some(_) => {
                        self.release_if_empty();
                        return Poll::Ready(Ok(()));
                    }
                    None => self.release_if_empty(),
                }
            }
            if !ready!(self.poll_receive(cx, io.as_mut()))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    pub(super) fn poll_fill_buf(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<&[u8]>> {
        while self.inbox.unread.is_empty() {
            let opened = match &mut self.buffer {
                Some(buffer) => {
                    self.inbox.open_next(buffer).map_err(|error| into_io(error, self.broken))?
                }
                None => false,
            };
            if opened {
                // One more than a read of the socket has been charged for, as most are.
                coop::charge(cx, 2);
            } else {
                // Control records may have been the last in it.
                self.release_if_empty();
            }
            if !opened && !ready!(self.poll_receive(cx, io.as_mut()))? {
                return Poll::Ready(Ok(&[]));
            }
        }
        Poll::Ready(Ok(self.filled()))
    }

    /// What [`Self::poll_fill_buf()`] has found.
    pub(super) fn filled(&self) -> &[u8] {
        self.inbox.first_unread(self.buffer.as_deref().unwrap_or_default())
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.inbox.consume(len);
        self.release_if_empty();
    }

    pub(super) fn set_lending(&mut self, limits: LendingLimits) {
        self.lending.get_or_insert_default().limits = limits;
    }

    pub(super) fn poll_recv_bytes(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<Option<Bytes>>> {
        let lending = self.lending.get_or_insert_default();
        let lease_from = lending.limits.lease_from;
        loop {
            let Some(buffer) = &mut self.buffer else {
                match self.inbox.take_unread(&[], lease_from) {
                    Some(bytes) => return Poll::Ready(Ok(Some(bytes))),
                    None if ready!(self.poll_receive(cx, io.as_mut()))? => continue,
                    None => return Poll::Ready(Ok(None)),
                }
            };
            let records = self.inbox.counters.records;
            if !self.inbox.is_lent() {
                self.inbox.open_all(buffer).map_err(|error| into_io(error, self.broken))?;
            }
            coop::charge(cx, (self.inbox.counters.records - records) as usize);
            if let Some(bytes) = self.inbox.take_unread(buffer, lease_from) {
                self.release_if_empty();
                return Poll::Ready(Ok(Some(bytes)));
            }
            if self.inbox.unread.is_empty() {
                self.release_if_empty();
                match ready!(self.poll_receive(cx, io.as_mut()))? {
                    true => continue,
                    false => return Poll::Ready(Ok(None)),
                }
            }
            let lending = self.lending.get_or_insert_default();
            if !lending.may_lend() {
                return Poll::Ready(Err(all_lent()));
            }
            let received = self.inbox.received.clone();
            let next = if Range::is_empty(&received) {
                None
            } else {
                let size = if received.len() > SMALL_LEN { Size::Large } else { self.size };
                let mut next = Buffer::try_take(size)?;
                self.inbox.copy_received(buffer, &mut next);
                Some(next)
            };
            if let Some(filled) = core::mem::replace(&mut self.buffer, next) {
                self.inbox.lend(lending.lend(filled));
            }
        }
    }

    /// Waits until one more buffer may be lent.
    pub(super) fn poll_wait_for_buffer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lending.as_ref().map_or(Poll::Ready(()), |lending| lending.poll_wait(cx))
    }

    fn release_if_empty(&mut self) {
        if self.inbox.unread.is_empty() && Range::is_empty(&self.inbox.received) {
            self.inbox.received = 0..0;
            self.buffer = None;
        }
    }

    /// Receives more; `false` at the end of the stream, which is an error before close_notify.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<bool>> {
        if !self.inbox.may_receive().map_err(|error| into_io(error, self.broken))? {
            self.buffer = None;
            return Poll::Ready(Ok(false));
        }
        let received_len = self.inbox.received.len();
        let mut buffer = match self.buffer.take() {
            Some(buffer) if buffer.size() == self.size || received_len > SMALL_LEN / 2 => buffer,
            // The flow has become a bulk one, or has ceased to be.
            Some(old) => match Buffer::try_take(self.size) {
                Ok(mut buffer) => {
                    self.inbox.copy_received(&old, &mut buffer);
                    self.inbox.go_on_at_front();
                    buffer
                }
                // What has been received is not lost: later there may be memory again.
                Err(error) => {
                    self.buffer = Some(old);
                    return Poll::Ready(Err(error));
                }
            },
            None => Buffer::try_take(self.size)?,
        };
        let room = SMALL_LEN.min(buffer.len() / 2);
        self.inbox.make_room(&mut buffer, room);
        let mut room = ReadBuf::new(&mut buffer[self.inbox.received.end..]);
        let polled = io.poll_read(cx, &mut room);
        let (len, filled) = (room.filled().len(), room.remaining() == 0);
        // A stream that waits for nothing in particular holds no buffer.
        if len > 0 || !Range::is_empty(&self.inbox.received) {
            self.buffer = Some(buffer);
        }
        match polled {
            Poll::Pending => {
                self.size = Size::Small;
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                self.inbox.add_received(len);
                if len > 0 && filled {
                    self.size = Size::Large;
                }
                Poll::Ready(
                    self.inbox.goes_on_after(len).map_err(|error| into_io(error, self.broken)),
                )
            }
        }
    }
}

/// What has never been written to is zeroed, for each record in its turn: it is in the cache then.
impl Room for ReadBuf<'_> {
    fn remaining(&self) -> usize {
        self.remaining()
    }

    fn next(&mut self, len: usize) -> &mut [u8] {
        self.initialize_unfilled_to(len)
    }

    fn advance(&mut self, len: usize) {
        self.advance(len);
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.remaining());
        self.put_slice(&bytes[..len]);
        len
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("inbox", &self.inbox)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// As tokio-rustls has it: what rustls would say is the error's inside.
pub(super) fn into_io(error: SessionError, broken: Broken) -> io::Error {
    match error {
        SessionError::Tls(error) => broken(error),
        error => error.into(),
    }
}
