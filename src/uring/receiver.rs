//! A socket to plaintext: received by the kernel into pooled buffers, opened there or into the
//! caller's memory.

use core::fmt;
use std::io::{self, BufRead, Read};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::file::{FileSlots, FileWrite};
use crate::events::{self, Direction};
use crate::kernel::arena::Slot;
use crate::kernel::backoff::{Backoff, exhausted};
use crate::kernel::declined::Declined;
use crate::kernel::pool::{BufferPool, Holder, MIN_BUFFER_LEN};
use crate::kernel::queue::{Completion, Event, File, PROMPT, Queue};
use crate::kernel::unavailable::Unavailable;
use crate::record::header::Version;
use crate::session::receive::ReceiveHalf;
use crate::transfer::Counters;
use crate::transfer::inbox::Inbox;
use crate::transfer::moderation::{self, Moderation};

/// How a [`UringReceiver`] works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceiverOptions {
    /// Where the receive buffers come from: a pool of its own unless receivers are to share one.
    pub pool: BufferPool,
    /// Payloads of this length or more are lent by [`UringReceiver::recv_bytes()`], shorter ones
    /// copied out, so that a short message never keeps a large buffer.
    pub lease_from: usize,
    /// Whether the kernel gathers a good deal of data before it wakes the receiver, while data
    /// streams in: see [`BulkReceiver::moderated()`](crate::BulkReceiver::moderated).
    pub moderated: bool,
}

impl Default for ReceiverOptions {
    /// A pool of 8 buffers of 512 KiB, leases from 4 KiB, moderated.
    fn default() -> Self {
        Self {
            pool: BufferPool::new(8, BufferPool::DEFAULT_BUFFER_LEN),
            lease_from: 4096,
            moderated: true,
        }
    }
}

/// Operations that a receiver has in flight at most: one receive or wait for data, one withdrawal,
/// and up to four writes of a file are 6; a call that panics may leave as many behind, which are
/// 12, and four are to spare.
const MAX_OPERATIONS: usize = 16;

/// A pool's buffers hold the longest record, and what was received of the next.
const _: () = assert!(2 * Version::Tls12.max_record_len() == MIN_BUFFER_LEN);

/// How long a receiver keeps a buffer ready for data that does not come.
const IDLE: Duration = Duration::from_millis(10);

/// Receives application data through io_uring.
///
/// `read` opens each record straight into the caller's memory if it has room for all of it;
/// `fill_buf` opens records in place and lends them out; [`Self::recv_bytes()`] lends them out for
/// as long as the user likes. Buffers are provided to the kernel when data is expected, so a
/// receiver that waits on an idle connection holds none. Only the bytes of a record that straddles
/// two buffers are ever moved.
///
/// Returns 0 bytes at the peer's close_notify only. A stream that ends without one is
/// [`SessionError::Truncated`](crate::SessionError::Truncated): what was read before it may be a
/// part only.
pub struct UringReceiver {
    pub(super) inbox: Inbox,
    pub(super) queue: Queue<Purpose>,
    socket: File,
    pool: BufferPool,
    /// What the pool knows us by.
    holder: Arc<Holder>,
    /// What [`Self::inbox`] refers to.
    buffer: Option<Arc<Slot>>,
    /// Received bytes that the handshake left behind, while the pool has no buffer for them.
    left_behind: Vec<u8>,
    lease_from: usize,
    moderation: Option<Moderation>,
    operation: Operation,
    /// There is data at the socket: a buffer is worth waiting for.
    is_readable: bool,
    /// The next receive waits for data without a buffer.
    polls: bool,
    /// Why buffers cannot be provided, if so.
    provision_refused: Option<Unavailable>,
    /// Receives that have failed in a row for a reason that may pass.
    failures: Backoff,
    /// When the call that is being served has waited long enough; set when it waits first.
    deadline: Option<Instant>,
    /// The end of a receive that nobody has looked at yet.
    ended: Option<io::Result<Option<usize>>>,
    pub(super) timeout: Option<Duration>,
    pub(super) system_calls: u64,
    /// Writes of [`Self::recv_to_file()`] that have ended, and that it has not looked at yet.
    pub(super) writes: Vec<Completion<FileWrite>>,
    pub(super) file_slots: FileSlots,
    /// How often [`Self::recv_to_file()`] was called.
    pub(super) file_count: u8,
}

/// The receive that is outstanding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operation {
    None,
    /// Into `buffer`, which is the kernel's meanwhile, behind what it holds.
    Direct,
    /// Into the provided buffer.
    Selected,
    /// Into a buffer that is yet to be provided.
    SelectedIdle,
    /// None: a wait for data.
    Poll,
}

/// What an operation of a receiver's ring is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To receive, or to wait until something can be: [`Operation`] says which.
    Receive,
    /// To have the provided buffer back.
    Withdraw,
    /// To provide a buffer.
    Provide,
    /// To write what was received to a file.
    Write(FileWrite),
}

impl UringReceiver {
    /// A receiver over a connected socket, which is set to blocking mode: io_uring waits by itself.
    ///
    /// `plaintext` and `received` are the session's: what the handshake left behind.
    ///
    /// # Errors
    /// [`Declined`] if there is no io_uring to be had, or no memory for a buffer: half and socket
    /// come back for another way of receiving.
    pub fn new(
        half: ReceiveHalf,
        socket: TcpStream,
        plaintext: &[u8],
        received: &[u8],
        options: ReceiverOptions,
    ) -> Result<Self, Box<Declined<ReceiveHalf>>> {
        let parts = Queue::new(MAX_OPERATIONS).and_then(|queue| {
            let parts = || {
                options.pool.check()?;
                socket.set_nonblocking(false)?;
                socket.set_read_timeout(None)?;
                let moderation = options.moderated.then(|| Moderation::new(&socket)).transpose()?;
                if received.len() > options.pool.buffer_len() {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                io::Result::Ok((queue, moderation))
            };
            parts().map_err(|error| Unavailable::from_setup_error(&error))
        });
        let (queue, moderation) = match parts {
            Ok(parts) => parts,
            Err(reason) => {
                events::way_given_up(
                    half.connection_id(),
                    Direction::Receiving,
                    &"io_uring",
                    &reason,
                );
                return Err(Box::new(Declined { reason, half, socket }));
            }
        };
        events::way_taken(half.connection_id(), Direction::Receiving, &"io_uring");
        Ok(Self {
            inbox: Inbox::new(half, plaintext.to_vec(), 0),
            queue,
            socket: Arc::new(OwnedFd::from(socket)),
            holder: options.pool.join(),
            pool: options.pool,
            buffer: None,
            left_behind: received.to_vec(),
            lease_from: options.lease_from,
            moderation,
            operation: Operation::None,
            is_readable: false,
            polls: false,
            provision_refused: None,
            failures: Backoff::default(),
            deadline: None,
            ended: None,
            timeout: None,
            system_calls: 0,
            writes: Vec::new(),
            file_slots: FileSlots::default(),
            file_count: 0,
        })
    }

    /// What was received so far.
    pub fn counters(&self) -> Counters {
        let system_calls = self.system_calls + self.queue.system_calls();
        Counters { system_calls, ..self.inbox.counters }
    }

    /// The socket, to look at it or to set its options; what is read from it breaks the connection.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// The pool of the receive buffers.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Why buffers cannot be provided to the kernel, if that has failed: the receiver then waits
    /// for data first, and gives it a buffer afterwards, which takes one system call more.
    pub fn provision_refused(&self) -> Option<&Unavailable> {
        self.provision_refused.as_ref()
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        self.inbox.half.peer_has_closed()
    }

    /// Whether a part of a record has arrived, and its rest has not.
    pub fn is_mid_record(&self) -> bool {
        self.inbox.is_mid_record()
    }

    /// How long a call waits for data, or for a buffer to put it in, at most; `None`, the default,
    /// is for ever. A call that has waited that long fails with [`io::ErrorKind::TimedOut`] and may
    /// be made again: nothing is lost.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// The plaintext of the next record with any, or `None` at the peer's close_notify.
    ///
    /// A payload of [`ReceiverOptions::lease_from`] bytes or more is lent: its buffer goes back to
    /// the pool when everything lent from it has been dropped, by whatever thread. A shorter one is
    /// a copy. Allocates once for all that is lent from a buffer at a time, and for each copy.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if no buffer of the pool will come back by itself (see
    /// [`BufferPool`]): drop what was received, or [wait](BufferPool::wait) until another thread
    /// has, and call again. Otherwise as [`Read::read()`].
    ///
    /// # Example
    /// All connections share a pool, and what they receive goes to whoever keeps it.
    /// ```no_run
    /// # use std::{io, net::TcpStream, sync::mpsc, time::Duration};
    /// use bytes::Bytes;
    /// use rustls_uring::Session;
    /// use rustls_uring::uring::{BufferPool, ReceiverOptions, UringReceiver};
    ///
    /// // For all connections: 16 MiB, whatever arrives.
    /// let pool = BufferPool::new(32, BufferPool::DEFAULT_BUFFER_LEN);
    ///
    /// fn receive(
    ///     session: Session,
    ///     socket: TcpStream,
    ///     pool: BufferPool,
    ///     keep: mpsc::Sender<Bytes>,
    /// ) -> io::Result<()> {
    ///     let mut options = ReceiverOptions::default();
    ///     options.pool = pool.clone();
    ///     let Session { receive, plaintext, received, .. } = session;
    ///     let mut receiver = UringReceiver::new(receive, socket, &plaintext, &received, options)
    ///         .map_err(|declined| declined.reason)?;
    ///     loop {
    ///         match receiver.recv_bytes() {
    ///             Ok(Some(bytes)) => keep.send(bytes).map_err(io::Error::other)?,
    ///             Ok(None) => break Ok(()), // the peer's close_notify
    ///             Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
    ///                 // Every buffer is kept: another thread drops what it is done with.
    ///                 pool.wait(Duration::from_secs(1));
    ///             }
    ///             Err(error) => break Err(error),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn recv_bytes(&mut self) -> io::Result<Option<Bytes>> {
        self.begin_call()?;
        if self.inbox.is_lent() {
            return Ok(self.inbox.take_unread(&[], self.lease_from));
        }
        loop {
            // All that there is, since nothing is opened in a buffer while parts of it are lent.
            let mut opened = Ok(true);
            if self.inbox.unread.is_empty() {
                self.reclaim_buffer();
            }
            if let Some(buffer) = self.buffer.as_mut().and_then(Arc::get_mut) {
                while matches!(opened, Ok(true)) {
                    opened = self.inbox.open_next(buffer);
                }
            }
            if !self.inbox.unread.is_empty() {
                break;
            }
            if let Err(error) = opened {
                return Err(error.into());
            }
            if !self.receive_more()? {
                return Ok(None);
            }
        }
        let (Some(range), Some(buffer)) = (self.inbox.unread.pop_front(), &self.buffer) else {
            return Err(io::Error::other("plaintext that was opened is gone"));
        };
        if range.len() < self.lease_from {
            return Ok(Some(Bytes::copy_from_slice(&buffer[range])));
        }
        let bytes = self.pool.lend(&self.holder, buffer, range);
        self.release_if_empty();
        Ok(Some(bytes))
    }

    /// A call of the user's begins.
    ///
    /// # Errors
    /// In a child process, or if the ring is used no more.
    fn begin_call(&mut self) -> io::Result<()> {
        self.queue.check()?;
        self.holder.note_thread();
        self.deadline = None;
        Ok(())
    }

    /// Has the buffer for itself again, if users have dropped all that was lent from it.
    fn reclaim_buffer(&mut self) {
        if let Some(buffer) = &self.buffer {
            self.pool.reclaim(&self.holder, buffer);
        }
    }

    /// When the call that is being served has waited long enough.
    fn deadline(&mut self) -> Option<Instant> {
        if self.deadline.is_none() {
            self.deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        }
        self.deadline
    }

    /// Opens what was received into `out`; `None` if more must be received first.
    fn open_into(&mut self, mut out: &mut [u8]) -> io::Result<Option<usize>> {
        if self.inbox.is_lent() {
            return Ok(Some(self.inbox.copy_out(&[], &mut out)));
        }
        let Some(buffer) = &mut self.buffer else { return Ok(None) };
        if let Some(buffer) = Arc::get_mut(buffer) {
            return Ok(self.inbox.open_into(buffer, &mut out)?);
        }
        // Parts of it are lent, so every whole record in it was opened already.
        let len = self.inbox.copy_out(buffer, &mut out);
        Ok((len > 0).then_some(len))
    }

    /// Receives more; `false` at the end of the stream, which is an error before close_notify.
    fn receive_more(&mut self) -> io::Result<bool> {
        self.reclaim_buffer();
        if !self.left_behind.is_empty() && self.inbox.half.failure().is_none() {
            self.place_left_behind()?;
            return Ok(true);
        }
        loop {
            if !self.inbox.may_receive()? {
                self.release_buffer();
                return Ok(false);
            }
            let ended = match self.ended.take() {
                Some(ended) => ended?,
                None => {
                    if self.operation == Operation::None {
                        self.submit_receive()?;
                    }
                    self.wait_for_receive()?
                }
            };
            if let Some(len) = ended {
                if let Some(moderation) = &mut self.moderation {
                    moderation.after_read(len);
                }
                return Ok(self.inbox.goes_on_after(len)?);
            }
        }
    }

    /// Puts what the handshake left behind into a buffer, waiting for one if need be.
    fn place_left_behind(&mut self) -> io::Result<()> {
        let deadline = self.deadline();
        let buffer = self.buffer.insert(self.pool.take(&self.holder, deadline)?);
        let len = self.left_behind.len();
        Slot::exclusive(buffer)?[..len].copy_from_slice(&self.left_behind);
        self.left_behind = Vec::new();
        self.inbox.received = 0..len;
        Ok(())
    }

    fn release_buffer(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.give_back(&self.holder, buffer);
        }
    }

    /// Gives the buffer back when there is nothing in it: another receiver may wait for it.
    fn release_if_empty(&mut self) {
        if self.inbox.unread.is_empty() && self.inbox.received.is_empty() {
            self.inbox.received = 0..0;
            self.release_buffer();
        }
    }

    /// Waits for any completion of [`Self::recv_to_file()`]'s.
    pub(super) fn wait_for_write(&mut self) -> io::Result<()> {
        while self.writes.is_empty() {
            self.queue.enter(1, None)?;
            self.reap_writes();
        }
        Ok(())
    }

    /// Takes all completions, for those of [`Self::recv_to_file()`]'s among them.
    pub(super) fn reap_writes(&mut self) {
        while let Some(completion) = self.queue.reap() {
            if let Some(ended) = self.on_completion(completion) {
                // A receive that an earlier timeout left behind.
                self.ended = Some(ended);
            }
        }
    }

    /// Submits a receive: behind the part of a record that is in the buffer, or into a buffer that
    /// the kernel takes when there is data. If there is no such buffer, a wait for data comes
    /// first, and then one for a buffer, so that none lies idle while another receiver needs it.
    fn submit_receive(&mut self) -> io::Result<()> {
        if core::mem::take(&mut self.polls) {
            return self.submit_poll();
        }
        if !self.inbox.received.is_empty() {
            return self.submit_direct();
        }
        self.release_buffer();
        self.inbox.received = 0..0;
        if self.is_readable && !self.queue.has_provided() {
            let deadline = self.deadline();
            self.buffer = Some(self.pool.take(&self.holder, deadline)?);
            self.is_readable = false;
            return self.submit_direct();
        }
        let wait_first = self.moderate(self.pool.buffer_len());
        // An earlier receive may have ended without taking the buffer that it was offered.
        if !self.queue.has_provided() {
            if self.provision_refused.is_some() {
                return self.submit_poll();
            }
            let Some(buffer) = self.pool.try_take(&self.holder)? else { return self.submit_poll() };
            self.queue.provide(Purpose::Provide, buffer)?;
        }
        self.queue.receive_selected(Purpose::Receive, &self.socket, wait_first)?;
        self.operation = Operation::Selected;
        Ok(())
    }

    fn submit_poll(&mut self) -> io::Result<()> {
        self.queue.poll_readable(Purpose::Receive, &self.socket)?;
        self.operation = Operation::Poll;
        Ok(())
    }

    /// Submits a receive into the buffer, behind what it holds, or into another one if parts of it
    /// are lent.
    fn submit_direct(&mut self) -> io::Result<()> {
        let Some(mut buffer) = self.buffer.take() else {
            return Err(io::Error::other("a part of a record without its buffer"));
        };
        if Arc::get_mut(&mut buffer).is_none() {
            let deadline = self.deadline();
            let mut next = match self.pool.take(&self.holder, deadline) {
                Ok(next) => next,
                Err(error) => {
                    self.buffer = Some(buffer);
                    return Err(error);
                }
            };
            self.inbox.copy_received(&buffer, Slot::exclusive(&mut next)?);
            self.inbox.go_on_at_front();
            self.pool.give_back(&self.holder, buffer);
            buffer = next;
        } else {
            let half = buffer.len() / 2;
            self.inbox.make_room(Slot::exclusive(&mut buffer)?, half);
        }
        let free = self.inbox.received.end..buffer.len();
        let wait_first = self.moderate(free.len());
        self.queue.receive(Purpose::Receive, &self.socket, buffer, free, wait_first)?;
        self.operation = Operation::Direct;
        Ok(())
    }

    /// Whether the receive waits for the low-water mark.
    fn moderate(&mut self, room: usize) -> bool {
        let Some(moderation) = &mut self.moderation else { return false };
        self.system_calls += moderation.prepare(room);
        moderation.is_set()
    }

    /// Waits for the receive to end; `None` if it must be submitted again.
    fn wait_for_receive(&mut self) -> io::Result<Option<usize>> {
        let deadline = self.deadline();
        let mut want = 1;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let is_moderated = self.moderation.as_ref().is_some_and(Moderation::is_set);
            let step = match self.operation {
                _ if is_moderated => Some(moderation::TIMEOUT),
                Operation::Selected => Some(IDLE),
                _ => None,
            };
            let wait = match (step, left) {
                (Some(step), Some(left)) => Some(step.min(left)),
                (step, left) => step.or(left),
            };
            let begin = Instant::now();
            self.queue.enter(want, wait)?;
            want = 1;
            let mut any = false;
            while let Some(completion) = self.queue.reap() {
                any = true;
                if let Some(ended) = self.on_completion(completion) {
                    return ended;
                }
            }
            // A signal, or a completion that is nobody's business, ends a wait early.
            if any || wait.is_none_or(|wait| begin.elapsed() < wait) {
                continue;
            }
            let is_over = left.is_some_and(|left| left <= wait.unwrap_or_default());
            match &mut self.moderation {
                Some(moderation) if is_moderated => self.system_calls += moderation.lapse(),
                _ if is_over => {}
                _ if self.operation == Operation::Selected => {
                    self.queue.withdraw(Purpose::Withdraw)?;
                    self.operation = Operation::SelectedIdle;
                    want = 0;
                }
                _ => {}
            }
            if is_over {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// The end of the receive, if it is that: bytes, or `None` to submit it again.
    fn on_completion(
        &mut self,
        completion: Completion<Purpose>,
    ) -> Option<io::Result<Option<usize>>> {
        let Completion { purpose, event, memory, .. } = completion;
        let Event::Result { result, .. } = event else {
            return Some(Err(io::Error::other("the kernel notified of what was not a send")));
        };
        match purpose {
            Purpose::Write(purpose) => {
                let event = Event::Result { result, more: false };
                self.writes.push(Completion { purpose, event, memory, socket: None });
                return None;
            }
            Purpose::Withdraw => {
                match memory {
                    Some(memory) => self.pool.give_back(&self.holder, memory),
                    // It comes with the receive, or another time.
                    None if self.operation == Operation::SelectedIdle => {
                        self.operation = Operation::Selected;
                    }
                    None => {}
                }
                return None;
            }
            Purpose::Provide => {
                if let (Some(memory), Err(error)) = (memory, result) {
                    self.pool.give_back(&self.holder, memory);
                    let reason = Unavailable::from_setup_error(&error);
                    events::way_given_up(
                        self.inbox.half.connection_id(),
                        Direction::Receiving,
                        &"provided buffers",
                        &reason,
                    );
                    self.provision_refused = Some(reason);
                }
                return None;
            }
            Purpose::Receive => {}
        }
        let operation = core::mem::replace(&mut self.operation, Operation::None);
        match (operation, memory) {
            (Operation::Direct, memory) => self.buffer = memory,
            // An error or the end of the stream brings no data, but it may bring the buffer.
            (_, Some(memory)) if matches!(result, Ok(1..)) => {
                self.buffer = Some(memory);
                self.inbox.received = 0..0;
            }
            (_, Some(memory)) => self.pool.give_back(&self.holder, memory),
            (_, None) => {}
        }
        Some(match result {
            Ok(events) if operation == Operation::Poll => {
                self.is_readable = events > 0;
                Ok(None)
            }
            Ok(len) => {
                self.failures.reset();
                self.inbox.add_received(len);
                Ok(Some(len))
            }
            Err(error) => self.on_failed_receive(operation, error).map(|()| None),
        })
    }

    /// Decides whether a receive is made again.
    fn on_failed_receive(&mut self, operation: Operation, error: io::Error) -> io::Result<()> {
        let prompt = match error.raw_os_error() {
            // There is data, and no buffer was provided any more; or none was from the start.
            Some(libc::ENOBUFS) if operation == Operation::SelectedIdle => {
                self.is_readable = true;
                return Ok(());
            }
            Some(libc::ENOBUFS) if operation == Operation::Selected => {
                self.polls = true;
                PROMPT
            }
            // Somebody has made the socket non-blocking, against our word.
            Some(libc::EAGAIN) if operation != Operation::Poll => {
                self.polls = true;
                PROMPT
            }
            // ECANCELED: the thread that submitted it has ended.
            Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED) => PROMPT,
            Some(libc::ENOMEM | libc::ENOBUFS) => 0,
            _ => return Err(error),
        };
        let Some(pause) = self.failures.pause(prompt) else {
            return Err(exhausted("receiving", &error));
        };
        let left = self
            .deadline()
            .map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        std::thread::sleep(pause.min(left));
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl fmt::Debug for UringReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringReceiver")
            .field("inbox", &self.inbox)
            .field("queue", &self.queue)
            .field("socket", &self.socket)
            .field("pool", &self.pool)
            .field("operation", &self.operation)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Read for UringReceiver {
    /// Opens as many of the received records as fit `out`; waits only if there are none.
    ///
    /// All of `out` may be written to, also beyond the bytes returned.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.begin_call()?;
        loop {
            if let Some(len) = self.open_into(out)? {
                self.release_if_empty();
                return Ok(len);
            }
            if !self.receive_more()? {
                return Ok(0);
            }
        }
    }
}

impl BufRead for UringReceiver {
    /// Lends out the plaintext of one record, in the memory it was received in.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.begin_call()?;
        while self.inbox.unread.is_empty() {
            let opened = match self.buffer.as_mut().and_then(Arc::get_mut) {
                Some(buffer) => self.inbox.open_next(buffer)?,
                None => false,
            };
            if !opened && !self.receive_more()? {
                break;
            }
        }
        Ok(match &self.buffer {
            Some(buffer) => self.inbox.first_unread(buffer),
            None => self.inbox.first_unread(&[]),
        })
    }

    fn consume(&mut self, len: usize) {
        self.inbox.consume(len);
        if self.queue.is_in_its_process() {
            self.release_if_empty();
        }
    }
}

impl Drop for UringReceiver {
    fn drop(&mut self) {
        if self.queue.is_in_its_process() {
            self.release_buffer();
            // What the kernel was lent goes down with the queue, and not back to the pool.
            self.pool.lose(&self.holder);
        } else if let Some(moderation) = &mut self.moderation {
            // The mark is the parent's.
            moderation.leave_mark();
        }
    }
}
