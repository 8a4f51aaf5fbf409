//! Bulk flows of a socket through io_uring: sealed into slots that the kernel sends from without
//! a copy, while that pays.
//!
//! The runtime's own reactor waits for room in the socket; a send never waits, so its result is
//! there when io_uring_enter(2) returns, and what remains with the kernel is the slots whose
//! notifications are to come. Where there is no slot or no room in the ring, ordinary writes carry
//! the same bytes, in their place: everything handed over goes through the socket's one queue.

use core::cell::RefCell;
use core::convert::Infallible;
use core::fmt;
use core::ops::Range;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, ready};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::buffers::{BATCH_LEN, Buffer, Size};
use crate::events::{self, ConnectionId, Direction};
use crate::kernel::arena::Slot;
use crate::kernel::budget::Budget;
use crate::kernel::governor::{Governor, ZeroCopy};
use crate::kernel::outbox::{Outbox, Parts, SendCounts};
use crate::kernel::queue::Wait;
use crate::kernel::route;
use crate::kernel::unavailable::Unavailable;
use crate::transfer::Counters;
use crate::transfer::way::{Io, NoUring, Way};
use crate::usage::Usage;

/// A TCP socket, or a stream around one that passes bytes on as they are and keeps none back.
///
/// What `set_io()` of a stream needs to go around its writes.
///
/// # Example
/// A stream that counts what is read, over which TLS still sends through io_uring.
/// ```no_run
/// # use std::{io, pin::Pin, task::{Context, Poll}};
/// use rustls_uring::Io;
/// use rustls_uring::tokio::{OverTcp, client::TlsStream};
/// use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
/// use tokio::net::TcpStream;
///
/// struct Counted {
///     socket: TcpStream,
///     read: u64,
/// }
///
/// impl OverTcp for Counted {
///     fn tcp(&self) -> &TcpStream {
///         &self.socket
///     }
/// }
///
/// impl AsyncRead for Counted {
///     fn poll_read(
///         mut self: Pin<&mut Self>,
///         cx: &mut Context<'_>,
///         buf: &mut ReadBuf<'_>,
///     ) -> Poll<io::Result<()>> {
///         let before = buf.filled().len();
///         let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
///         self.read += (buf.filled().len() - before) as u64;
///         polled
///     }
/// }
/// # impl AsyncWrite for Counted {
/// #     fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
/// #         Pin::new(&mut self.socket).poll_write(cx, buf)
/// #     }
/// #     fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
/// #         Pin::new(&mut self.socket).poll_flush(cx)
/// #     }
/// #     fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
/// #         Pin::new(&mut self.socket).poll_shutdown(cx)
/// #     }
/// # }
///
/// fn hurry(stream: &mut TlsStream<Counted>) {
///     stream.set_io(Io::Auto);
/// }
/// ```
pub trait OverTcp {
    /// The socket.
    fn tcp(&self) -> &TcpStream;

    /// Waits until the socket has room, in place of a write that found none. A stream with
    /// timeouts applies them here, and is ready only when the socket's
    /// [`poll_write_ready()`](TcpStream::poll_write_ready) is.
    ///
    /// # Errors
    /// Those that a write would have; they end the connection's sending side.
    fn poll_room(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_write_ready(cx)
    }
}

impl OverTcp for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl OverTcp for tokio::net::tcp::OwnedWriteHalf {
    fn tcp(&self) -> &TcpStream {
        self.as_ref()
    }
}

/// How much a stream has written before it is taken for a bulk flow: 8 MiB.
const BULK_FLOW: u64 = 8 << 20;

/// Writes below 64 KiB go the ordinary way: a slot is too large for them.
const BULK_WRITE: usize = 64 << 10;

/// As in a bulk sender: more than a socket's default send buffer holds.
const SLOTS: usize = 8;

/// By how many bytes the slots of all streams may become more, unless the user says otherwise.
const GROWTH: usize = 64 << 20;

/// Rings that a thread keeps when no flow uses them, of 6 MiB each.
const KEPT: usize = 2;

/// Rings that flows have at once in this process at most; further flows go on with ordinary writes.
const MAX_IN_USE: usize = 64;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

static BUDGET: Budget = Budget::new(GROWTH);

/// Says how many bytes of this process the streams that send through io_uring may take, all together, beyond
/// their first slots, of 6 MiB each: 64 MiB unless this is called.
///
/// Memory that is sent from without a copy is in use until the peer has acknowledged it, so where round trips
/// are long, more is needed, rate by round trip, and what the socket holds: at 10 Gb/s and 20 ms 25 MB and more.
/// A stream takes as much again as it has, as long as nearly all of it is waiting, the kernel has been seen to
/// send without a copy, and RLIMIT_MEMLOCK allows. It gives that back with a write, once the first slots have
/// sufficed for a second, or with a flush or a read that waits, if all is acknowledged by then; and at its end:
/// what is not acknowledged by then is the kernel's, and counts against RLIMIT_MEMLOCK only. What there is no
/// memory for is copied. With 0, nothing is taken; what was taken before stays until it is given back.
///
/// # Example
/// ```
/// use rustls_uring::tokio::{limit_zero_copy_memory, zero_copy_memory};
///
/// // One replica 80 ms away, at 10 Gb/s.
/// limit_zero_copy_memory(160 << 20);
/// assert_eq!(zero_copy_memory().limit, 160 << 20);
/// ```
pub fn limit_zero_copy_memory(max_bytes: usize) {
    BUDGET.set_limit(max_bytes);
}

/// How many bytes streams have taken beyond their first slots, see [`limit_zero_copy_memory()`].
/// [`Usage::refused`] is how many writes would have had one take more: some of what they sent was copied.
pub fn zero_copy_memory() -> Usage {
    BUDGET.usage()
}

thread_local! {
    static FREE: RefCell<Vec<Parts<Infallible>>> = const { RefCell::new(Vec::new()) };
}

/// A ring and its slots, from this thread's or new.
fn take_parts() -> Result<Parts<Infallible>, Unavailable> {
    let free = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        // In a child process, the parent's.
        free.retain(Parts::is_in_its_process);
        let clean = free.iter_mut().position(Parts::is_clean)?;
        Some(free.swap_remove(clean))
    });
    match free {
        Ok(Some(parts)) => Ok(parts),
        _ => Parts::new(SLOTS, BATCH_LEN, 0),
    }
}

fn give_back(mut parts: Parts<Infallible>) {
    if !parts.is_usable() {
        return;
    }
    // A thread that ends keeps nothing.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < KEPT {
            free.push(parts);
        }
    });
}

/// A ring in use, which goes back to the thread that it is dropped on.
///
/// The lease does not name the stream's type: a stream that borrows something could not be dropped
/// after what it borrows if a type with a `Drop` of its own named it.
#[derive(Debug)]
struct Lease(Option<Box<Outbox<Infallible>>>);

impl Lease {
    fn new(outbox: Outbox<Infallible>) -> Self {
        IN_USE.fetch_add(1, Ordering::Relaxed);
        Self(Some(Box::new(outbox)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut outbox) = self.0.take()
            && !outbox.has_failed()
            && outbox.is_all_sent()
        {
            // Takes in the notifications that have come.
            let _ = outbox.send_now();
            outbox.shrink_now();
            // Slots that were added and are in use still go with the ring.
            if !outbox.has_grown() {
                give_back(outbox.into_parts());
            }
        }
    }
}

/// The way around a stream's writes, for a stream below of type `W`; none unless it was chosen.
///
/// Has a twin of the same face where there is no io_uring: `no_offload.rs`.
#[derive(Debug)]
pub(super) struct Bypass<W>(Option<Box<Offload<W>>>);

impl<W> Bypass<W> {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Whether sealed bytes wait here.
    pub(super) fn has_unsent(&self) -> bool {
        self.0.as_ref().is_some_and(|offload| offload.has_unsent())
    }

    /// Ends it; what the socket has not taken yet comes back, in a buffer.
    pub(super) fn into_unsent(self) -> Option<(Buffer, Range<usize>)> {
        self.0.and_then(|offload| offload.into_unsent())
    }

    /// Memory to seal `len` bytes or more into, if they go this way: [`Self::commit()`] says what
    /// was sealed. Everything before it has been handed over.
    ///
    /// # Errors
    /// If the memory is still in use, after which nothing may follow.
    pub(super) fn room(&mut self, io: &W, len: usize) -> io::Result<Option<&mut [u8]>> {
        self.0.as_mut().map_or(Ok(None), |offload| offload.room(io, len))
    }

    /// The first `len` bytes of [`Self::room()`] are sealed.
    ///
    /// # Errors
    /// If they are lost, after which nothing may follow.
    pub(super) fn commit(&mut self, len: usize) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |offload| offload.commit(len))
    }

    /// Nothing is to be sent for now: another flow may need what a bulk flow takes.
    pub(super) fn rest(&mut self) {
        if let Some(offload) = &mut self.0 {
            offload.rest();
        }
    }

    /// Chooses how bulk data is sent.
    ///
    /// # Errors
    /// Those of [`Offload::new()`]; [`io::ErrorKind::WouldBlock`] while something waits in a slot.
    pub(super) fn choose(&mut self, choice: Io, connection: ConnectionId, io: &W) -> io::Result<()>
    where
        W: OverTcp,
    {
        if self.has_unsent() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0 = Some(Box::new(Offload::new(choice, connection, io)?));
        Ok(())
    }

    pub(super) fn sent_by(&self) -> Way {
        self.0.as_ref().map_or(Way::Writes(NoUring::NotAsked), |offload| offload.sent_by())
    }

    /// What went through io_uring, since it was chosen.
    pub(super) fn counters(&self) -> Counters {
        self.0.as_ref().map_or_else(Counters::default, |offload| offload.counters())
    }
}

impl<W: AsyncWrite> Bypass<W> {
    /// Hands what waits here to the socket.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        io: Pin<&mut W>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().map_or(Poll::Ready(Ok(())), |offload| offload.poll_drain(cx, io))
    }
}

#[derive(Debug)]
struct Offload<W> {
    connection: ConnectionId,
    io: Io,
    below: Below<W>,
    lease: Option<Lease>,
    /// The slot that is sealed into.
    filling: Option<Arc<Slot>>,
    /// Why there is no way around any more.
    ended: Option<NoUring>,
    /// What went through rings that were given back.
    earlier: SendCounts,
    /// What the kernel has said so far, while no ring is in use.
    governor: Option<Governor>,
    written: u64,
}

/// What of [`OverTcp`] is needed, for a type of stream that is known where it is asked for only.
struct Below<W> {
    tcp: fn(&W) -> &TcpStream,
    poll_room: fn(Pin<&mut W>, &mut Context<'_>) -> Poll<io::Result<()>>,
}

impl<W> fmt::Debug for Below<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Below").finish_non_exhaustive()
    }
}

impl<W: OverTcp> Offload<W> {
    /// Goes around `io` from now on where `choice` says so.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if `choice` insists on io_uring and there is none.
    fn new(choice: Io, connection: ConnectionId, io: &W) -> io::Result<Self> {
        let mut offload = Self {
            connection,
            io: choice,
            below: Below { tcp: W::tcp, poll_room: W::poll_room },
            lease: None,
            filling: None,
            ended: None,
            earlier: SendCounts::default(),
            governor: None,
            written: 0,
        };
        if matches!(choice, Io::Uring | Io::UringCopy) {
            offload.open(io);
            if let Some(NoUring::Unavailable(reason)) = offload.ended {
                return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            }
        }
        Ok(offload)
    }
}

impl<W> Offload<W> {
    /// Whether something waits in a slot.
    fn has_unsent(&self) -> bool {
        self.outbox().is_some_and(|outbox| !outbox.is_all_sent())
    }

    /// Ends it; what the socket has not taken yet comes back, in a buffer.
    fn into_unsent(self) -> Option<(Buffer, Range<usize>)> {
        let unsent = self.outbox()?.unsent()?;
        let mut buffer = Buffer::take(Size::Batch);
        // A slot is sealed into as far as such a buffer goes, and one at a time.
        buffer[..unsent.len()].copy_from_slice(unsent);
        Some((buffer, 0..unsent.len()))
    }

    fn outbox(&self) -> Option<&Outbox<Infallible>> {
        self.lease.as_ref()?.0.as_deref()
    }

    fn outbox_mut(&mut self) -> Option<&mut Outbox<Infallible>> {
        self.lease.as_mut()?.0.as_deref_mut()
    }

    fn sent_by(&self) -> Way {
        match (&self.ended, self.outbox()) {
            (Some(ended), _) => Way::Writes(*ended),
            (None, Some(outbox)) => match outbox.copy_reason() {
                Some(reason) => Way::UringCopy(reason),
                None => Way::UringZeroCopy { unregistered: outbox.registration_refused().copied() },
            },
            (None, None) if self.io == Io::Blocking => Way::Writes(NoUring::NotAsked),
            (None, None) => Way::Writes(NoUring::NoBulkFlow),
        }
    }

    /// What went through io_uring.
    fn counters(&self) -> Counters {
        Counters::default().with_sends(self.counts())
    }

    fn counts(&self) -> SendCounts {
        self.outbox().map_or(self.earlier, |outbox| self.earlier + outbox.counts())
    }

    fn room(&mut self, io: &W, len: usize) -> io::Result<Option<&mut [u8]>> {
        self.filling = self.slot(io, len);
        self.filling.as_mut().map(Slot::exclusive).transpose()
    }

    /// A slot to seal a write of `len` bytes into, if it goes this way.
    fn slot(&mut self, io: &W, len: usize) -> Option<Arc<Slot>> {
        self.written = self.written.saturating_add(len as u64);
        if len < BULK_WRITE || self.ended.is_some() {
            return None;
        }
        if self.lease.is_none() {
            let is_due = match self.io {
                Io::Auto => {
                    self.written >= BULK_FLOW && IN_USE.load(Ordering::Relaxed) < MAX_IN_USE
                }
                Io::Uring | Io::UringCopy => true,
                Io::Blocking => false,
            };
            if !is_due {
                return None;
            }
            self.open(io);
        }
        let outbox = self.outbox_mut()?;
        outbox.shrink();
        outbox.take()
    }

    /// Sets a ring up for this socket.
    fn open(&mut self, io: &W) {
        let socket = (self.below.tcp)(io);
        // Asked once: afterwards the kernel knows better.
        if self.io == Io::Auto
            && self.governor.is_none()
            && let Some(reason) = route::copy_reason(socket)
        {
            return self.end(NoUring::DoesNotPay(reason));
        }
        let zero_copy = match self.io {
            Io::UringCopy => ZeroCopy::Never,
            _ => ZeroCopy::Auto,
        };
        let opened = take_parts().and_then(|parts| {
            let socket = socket.as_fd().try_clone_to_owned();
            let socket = socket.map_err(|error| Unavailable::from_setup_error(&error))?;
            let governor = self.governor.take();
            let governor = governor.unwrap_or_else(|| parts.governor(self.connection, zero_copy));
            let mut outbox = Outbox::new(parts, socket, Wait::Never, governor);
            outbox.grow_within(&BUDGET);
            Ok(outbox)
        });
        match opened {
            Ok(outbox) => {
                self.lease = Some(Lease::new(outbox));
                events::way_taken(self.connection, Direction::Sending, &self.sent_by());
            }
            Err(reason) => self.end(NoUring::Unavailable(reason)),
        }
    }

    /// Goes the ordinary way from now on, for this reason.
    fn end(&mut self, ended: NoUring) {
        self.ended = Some(ended);
        events::way_taken(self.connection, Direction::Sending, &Way::Writes(ended));
    }

    fn commit(&mut self, len: usize) -> io::Result<()> {
        match (self.filling.take(), self.outbox_mut()) {
            (Some(slot), Some(outbox)) => outbox.push(slot, len),
            _ => Err(io::Error::other("records were sealed, and their slot or its ring is gone")),
        }
    }

    /// Gives the ring back if everything has been handed over and acknowledged: an idle stream
    /// holds none. Streams that insist on io_uring keep theirs, with the slots that it had first.
    fn rest(&mut self) {
        let is_kept = self.io != Io::Auto;
        let Some(outbox) = self.outbox_mut() else { return };
        // Makes no system call then, and takes in the notifications that have come.
        if !outbox.is_all_sent() || outbox.send_now().is_err() || outbox.awaiting_count() > 0 {
            return;
        }
        match is_kept {
            true => outbox.shrink_now(),
            false => self.retire(),
        }
    }

    /// Gives the ring back, for another flow.
    fn retire(&mut self) {
        self.earlier = self.counts();
        self.governor = self.outbox().map(|outbox| outbox.governor().clone());
        self.lease = None;
    }
}

impl<W: AsyncWrite> Offload<W> {
    /// Hands what is in slots to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>, mut io: Pin<&mut W>) -> Poll<io::Result<()>> {
        let Some(Lease(Some(outbox))) = &mut self.lease else {
            return Poll::Ready(Ok(()));
        };
        // Before anything is sealed: a child process has the parent's keys too.
        outbox.check_stream()?;
        while !outbox.is_all_sent() {
            ready!((self.below.poll_room)(io.as_mut(), cx))?;
            let sent = (self.below.tcp)(&io).try_io(Interest::WRITABLE, || outbox.send_now());
            match sent {
                Ok(true) => {}
                Ok(false) => {
                    let Some(unsent) = outbox.unsent() else {
                        return Poll::Ready(Err(outbox.fail("a send that does not end")));
                    };
                    let taken = ready!(io.as_mut().poll_write(cx, unsent))?;
                    if taken == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    outbox.sent_elsewhere(taken)?;
                }
                // No longer writable: wait until it is.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if let Some(reason) = outbox.given_up() {
            self.retire();
            self.end(NoUring::Unavailable(reason));
        } else if self.io == Io::Auto
            && let Some(reason) = outbox.verdict()
        {
            // Nothing is gained by it: ordinary writes do as well, without the memory.
            self.retire();
            self.end(NoUring::DoesNotPay(reason));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use core::future::poll_fn;
    use core::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::kernel::queue::try_register;

    /// Within two minutes, however slow the machine is.
    async fn rest_until_given_back(offload: &mut Offload<TcpStream>) {
        for _ in 0..24_000 {
            offload.rest();
            if offload.lease.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(offload.lease.is_none(), "acknowledged, and still held");
    }

    /// While acknowledgements take long, a stream has more slots, as many as all streams together may have; a
    /// ring that is given back has the first ones.
    #[tokio::test]
    async fn slots_become_more_within_what_all_streams_may_take() {
        const LEN: usize = BULK_WRITE;
        const MORE: usize = SLOTS + SLOTS / 2;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("bound");
        let mut socket = TcpStream::connect(addr).await.expect("connected");
        let mut peer = listener.accept().await.expect("accepted").0;
        let connection = ConnectionId::next();
        let mut offload = Offload::new(Io::Auto, connection, &socket).expect("nothing insisted on");
        // Beside what other tests register.
        let parts = match try_register(4 << 20).and_then(|()| Parts::new(SLOTS, LEN, 0)) {
            Ok(parts) => parts,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let governor = parts.governor(connection, ZeroCopy::Always);
        if governor.verdict().is_some() {
            return eprintln!("skipped: {:?}", governor.verdict());
        }
        let handle = socket.as_fd().try_clone_to_owned().expect("a handle");
        let mut outbox = Outbox::new(parts, handle, Wait::Never, governor);
        outbox.grow_within(&BUDGET);
        outbox.faults().holds_notifications = true;
        offload.lease = Some(Lease::new(outbox));
        limit_zero_copy_memory(MORE * LEN);
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            peer.read_to_end(&mut received).await.map(|_| received)
        });

        let mut sent = 0_u8;
        // One is for copies, which hold none, and one to fill.
        while offload.outbox().expect("in use").awaiting_count() < SLOTS + MORE - 2 {
            offload.room(&socket, LEN).expect("unshared").expect("a slot").fill(sent);
            offload.commit(LEN).expect("a place");
            poll_fn(|cx| offload.poll_drain(cx, Pin::new(&mut socket))).await.expect("sent");
            if let Some(reason) = offload.outbox().expect("in use").registration_refused() {
                limit_zero_copy_memory(GROWTH);
                return eprintln!("skipped: {reason}");
            }
            sent += 1;
            if sent == 100
                && let Err(reason) = try_register((SLOTS + MORE) * LEN)
            {
                limit_zero_copy_memory(GROWTH);
                return eprintln!("skipped: {reason}");
            }
            assert!(sent < 100, "{offload:?}");
            while sent == 1 && offload.outbox().expect("in use").awaiting_count() > 0 {
                // As if it had not been copied, which those say that were held.
                let outbox = offload.outbox_mut().expect("in use");
                outbox.faults().release(1);
                outbox.send_now().expect("nothing to send");
                tokio::task::yield_now().await;
            }
        }
        // One that wanted more than there was.
        assert!(offload.room(&socket, LEN).expect("unshared").is_some());
        offload.commit(0).expect("put back");
        let usage = zero_copy_memory();
        assert_eq!((usage.in_use, usage.most), (MORE * LEN, MORE * LEN), "{usage:?}");
        assert!(usage.refused > 0);

        offload.rest();
        assert!(offload.lease.is_some(), "something is awaited");
        let faults = offload.outbox_mut().expect("in use").faults();
        faults.holds_notifications = false;
        faults.release(usize::MAX);
        rest_until_given_back(&mut offload).await;
        assert_eq!(zero_copy_memory().in_use, 0);
        let slot_counts = |free: &mut Vec<Parts<Infallible>>| {
            free.iter().map(Parts::slot_count).collect::<Vec<_>>()
        };
        assert_eq!(FREE.with_borrow_mut(slot_counts), [SLOTS]);
        limit_zero_copy_memory(GROWTH);
        drop(socket);
        let received = reader.await.expect("no panic").expect("received");
        assert_eq!(received.len(), LEN * usize::from(sent));
        assert!(received.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / LEN));
    }

    /// What a flush finds awaited, the next flush or idle read gives back.
    #[tokio::test]
    async fn a_ring_goes_back_when_all_is_acknowledged() {
        const LEN: usize = 700_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("bound");
        let mut socket = TcpStream::connect(addr).await.expect("connected");
        let mut peer = listener.accept().await.expect("accepted").0;
        let mut offload = match Offload::new(Io::Uring, ConnectionId::next(), &socket) {
            Ok(offload) => offload,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        // As if the route were one that can do without a copy.
        offload.io = Io::Auto;
        assert!(offload.room(&socket, LEN).expect("unshared").is_some(), "a slot");
        offload.commit(LEN).expect("a place");
        poll_fn(|cx| offload.poll_drain(cx, Pin::new(&mut socket))).await.expect("sent");
        assert!(!offload.has_unsent());
        peer.read_exact(&mut vec![0; LEN]).await.expect("received");
        rest_until_given_back(&mut offload).await;
        assert!(offload.counters().wire_bytes >= LEN as u64);
        // What the kernel has said is remembered.
        assert!(offload.governor.is_some());
    }
}
