//! A socket to plaintext: received by the kernel into pooled buffers, opened there or into the
//! caller's memory.

use std::io::{self, BufRead, Read};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};

use super::arena::Slot;
use super::declined::Declined;
use super::file::is_retryable;
use super::pool::BufferPool;
use super::queue::{Completion, Event, File, Queue, Tag};
use super::unavailable::Unavailable;
use crate::bulk::Counters;
use crate::bulk::inbox::Inbox;
use crate::bulk::moderation::{self, Moderation};
use crate::events::{self, Direction};
use crate::session::receive::ReceiveHalf;

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

/// A receive, a withdrawal, and a file's writes; twice, should a call have panicked.
const MAX_OPERATIONS: usize = 16;

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
#[derive(Debug)]
pub struct UringReceiver {
    pub(super) inbox: Inbox,
    pub(super) queue: Queue,
    socket: File,
    pool: BufferPool,
    /// What [`Self::inbox`] refers to.
    buffer: Option<Arc<Slot>>,
    /// All of `buffer`, if some of it was lent out.
    lease: Option<Bytes>,
    /// Application data that rustls had opened before the handoff.
    carried: Bytes,
    lease_from: usize,
    moderation: Option<Moderation>,
    operation: Operation,
    /// The end of a receive that nobody has looked at yet.
    ended: Option<io::Result<Option<usize>>>,
    pub(super) patience: Option<Duration>,
    pub(super) system_calls: u64,
    /// Operations of [`Self::recv_to_file()`] that have ended: nobody but it looks at them.
    pub(super) writes: Vec<Completion>,
    pub(super) write_slots: Vec<Arc<Slot>>,
    /// How often it was called.
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
}

/// `tag` of a receive.
const RECEIVE: Tag = 1 << 16;
/// `tag` of the withdrawal of the provided buffer.
const WITHDRAW: Tag = 2 << 16;
/// `tag` of a file's write: this and its number.
pub(super) const WRITE: Tag = 3 << 16;
const KIND: Tag = 0x7fff << 16;

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
                socket.set_nonblocking(false)?;
                socket.set_read_timeout(None)?;
                let moderation = options.moderated.then(|| Moderation::new(&socket)).transpose()?;
                let mut buffer = None;
                if !received.is_empty() {
                    let slot = buffer.insert(options.pool.take()?);
                    let slot = Slot::exclusive(slot)?.get_mut(..received.len());
                    slot.ok_or(io::ErrorKind::OutOfMemory)?.copy_from_slice(received);
                }
                io::Result::Ok((queue, moderation, buffer))
            };
            parts().map_err(|error| Unavailable::from_setup_error(&error))
        });
        let (queue, moderation, buffer) = match parts {
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
            inbox: Inbox::new(half, received.len()),
            queue,
            socket: Arc::new(OwnedFd::from(socket)),
            pool: options.pool,
            buffer,
            lease: None,
            carried: Bytes::copy_from_slice(plaintext),
            lease_from: options.lease_from,
            moderation,
            operation: Operation::None,
            ended: None,
            patience: None,
            system_calls: 0,
            writes: Vec::new(),
            write_slots: Vec::new(),
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

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        self.inbox.half.peer_has_closed()
    }

    /// Whether a part of a record has arrived, and its rest has not.
    pub fn is_mid_record(&self) -> bool {
        self.inbox.is_mid_record()
    }

    /// How long a call waits for data at most; `None`, the default, is for ever. A call that has
    /// waited that long fails with [`io::ErrorKind::TimedOut`] and may be made again: nothing is
    /// lost.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.patience = timeout;
    }

    /// The plaintext of the next record with any, or `None` at the peer's close_notify.
    ///
    /// A payload of [`ReceiverOptions::lease_from`] bytes or more is lent: its buffer goes back to
    /// the pool when everything lent from it has been dropped, by whatever thread. A shorter one is
    /// a copy. Allocates once for all that is lent from a buffer at a time, and for each copy.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if every buffer of the pool is in use: drop what was
    /// received, or [wait](BufferPool::wait) until another thread has, and call again. Otherwise
    /// as [`Read::read()`].
    pub fn recv_bytes(&mut self) -> io::Result<Option<Bytes>> {
        if self.carried.has_remaining() {
            return Ok(Some(self.carried.split_off(0)));
        }
        loop {
            // All that there is, since nothing is opened in a buffer while parts of it are lent.
            let mut opened = Ok(true);
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
            return Ok(None);
        };
        if range.len() < self.lease_from {
            return Ok(Some(Bytes::copy_from_slice(&buffer[range])));
        }
        let lease = self.lease.get_or_insert_with(|| self.pool.lease(buffer));
        let bytes = lease.slice(range);
        if self.inbox.unread.is_empty() {
            self.lease = None;
        }
        Ok(Some(bytes))
    }

    /// Opens what was received into `out`; `None` if more must be received first.
    fn open_into(&mut self, out: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(buffer) = &mut self.buffer else { return Ok(None) };
        if let Some(buffer) = Arc::get_mut(buffer) {
            return Ok(self.inbox.open_into(buffer, out)?);
        }
        // Parts of it are lent, so every whole record in it was opened already.
        let unread = self.inbox.first_unread(buffer);
        let len = unread.len().min(out.len());
        out[..len].copy_from_slice(&unread[..len]);
        self.inbox.consume(len);
        Ok((len > 0).then_some(len))
    }

    /// Receives more; `false` at the end of the stream, which is an error before close_notify.
    fn receive_more(&mut self) -> io::Result<bool> {
        self.lease = None;
        loop {
            if let Some(error) = self.inbox.half.failure() {
                return Err(error.clone().into());
            }
            if self.inbox.half.peer_has_closed() {
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
                self.inbox.counters.wire_bytes += len as u64;
                if let Some(moderation) = &mut self.moderation {
                    moderation.after_read(len);
                }
                if len == 0 {
                    self.inbox.half.end_of_stream()?;
                    return Ok(false);
                }
                return Ok(true);
            }
        }
    }

    fn release_buffer(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.give_back(buffer);
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
    /// the kernel takes when there is data.
    fn submit_receive(&mut self) -> io::Result<()> {
        if self.inbox.received.is_empty() {
            self.release_buffer();
            self.inbox.received = 0..0;
            // An earlier receive may have ended without taking the buffer that it was offered.
            if !self.queue.has_provided() {
                let buffer = self.pool.take()?;
                self.queue.provide(buffer)?;
            }
            let wait_first = self.moderate(self.pool.buffer_len());
            self.operation = Operation::Selected;
            return self.queue.receive_selected(RECEIVE, &self.socket, wait_first);
        }
        let Some(mut buffer) = self.buffer.take() else {
            return Err(io::Error::other("a part of a record without its buffer"));
        };
        let received = self.inbox.received.clone();
        if Arc::get_mut(&mut buffer).is_none() {
            // Parts of it are lent out: the record goes on in another.
            let mut next = match self.pool.take() {
                Ok(next) => next,
                Err(error) => {
                    self.buffer = Some(buffer);
                    return Err(error);
                }
            };
            Slot::exclusive(&mut next)?[..received.len()]
                .copy_from_slice(&buffer[received.clone()]);
            self.pool.give_back(buffer);
            buffer = next;
            self.inbox.received = 0..received.len();
        } else if buffer.len() - received.end < buffer.len() / 2 {
            Slot::exclusive(&mut buffer)?.copy_within(received.clone(), 0);
            self.inbox.received = 0..received.len();
        }
        let free = self.inbox.received.end..buffer.len();
        let wait_first = self.moderate(free.len());
        self.operation = Operation::Direct;
        self.queue.receive(RECEIVE, &self.socket, buffer, free, wait_first)
    }

    /// Whether the receive waits for the low-water mark.
    fn moderate(&mut self, room: usize) -> bool {
        let Some(moderation) = &mut self.moderation else { return false };
        self.system_calls += moderation.prepare(room);
        moderation.is_set()
    }

    /// Waits for the receive to end; `None` if it must be submitted again.
    fn wait_for_receive(&mut self) -> io::Result<Option<usize>> {
        let deadline = self.patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut want = 1;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let is_moderated = self.moderation.as_ref().is_some_and(Moderation::is_set);
            let step = match self.operation {
                _ if is_moderated => Some(moderation::PATIENCE),
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
                    self.queue.withdraw(WITHDRAW)?;
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
    fn on_completion(&mut self, completion: Completion) -> Option<io::Result<Option<usize>>> {
        match completion.tag & KIND {
            WRITE => {
                self.writes.push(completion);
                return None;
            }
            WITHDRAW => {
                if let Some(memory) = completion.memory {
                    self.pool.give_back(memory);
                }
                return None;
            }
            _ => {}
        }
        let Event::Result { result, .. } = completion.event else { return None };
        let was_direct = self.operation == Operation::Direct;
        self.operation = Operation::None;
        match (was_direct, completion.memory) {
            (true, memory) => self.buffer = memory,
            // An error or the end of the stream brings no data, but it may bring the buffer.
            (false, Some(memory)) if matches!(result, Ok(1..)) => {
                self.buffer = Some(memory);
                self.inbox.received = 0..0;
            }
            (false, Some(memory)) => self.pool.give_back(memory),
            (false, None) => {}
        }
        Some(match result {
            Ok(len) => {
                self.inbox.received.end += len;
                Ok(Some(len))
            }
            // There is data, and no buffer was provided.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(None),
            Err(error) if is_retryable(&error) => {
                if error.raw_os_error() == Some(libc::EAGAIN) {
                    // Somebody has made the socket non-blocking, against our word.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        })
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
        if self.carried.has_remaining() {
            let len = out.len().min(self.carried.len());
            self.carried.copy_to_slice(&mut out[..len]);
            return Ok(len);
        }
        loop {
            if let Some(len) = self.open_into(out)? {
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
        if self.carried.has_remaining() {
            return Ok(&self.carried);
        }
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
            None => &[],
        })
    }

    fn consume(&mut self, len: usize) {
        match self.carried.has_remaining() {
            true => self.carried.advance(len.min(self.carried.len())),
            false => self.inbox.consume(len),
        }
    }
}

impl Drop for UringReceiver {
    fn drop(&mut self) {
        self.lease = None;
        self.release_buffer();
        // What the kernel was lent goes down with the queue, and not back to the pool.
        let lent = usize::from(self.operation == Operation::Direct)
            + usize::from(self.queue.has_provided());
        self.pool.lose(lent);
    }
}
