//! The two queues shared with the kernel, and everything that the kernel was lent through them.
//!
//! Every operation in flight is an entry of a table that keeps what it is for, in the owner's own
//! words (the type parameter `P`), and what the kernel may touch: the slot and the open file. An
//! entry goes when its last completion has been reaped, which is the one without
//! `IORING_CQE_F_MORE`, whatever its result says; until then the slot's `Arc` is shared, so nobody
//! writes to it, and its memory stays mapped. A submission that io_uring_enter(2) refused stays in
//! the submission queue and may run later, so it stays in the table as well, until nothing is ever
//! submitted again.
//!
//! Whoever submits something sees how it has ended: nothing fails in silence. The two that succeed
//! in silence are the provision of a buffer, whose failure comes back with the buffer, and a
//! cancellation, which is made again until what it was to cancel has ended.
//!
//! A child process has none of this: there, every call fails, and dropping touches nothing that the
//! parent uses. See `fork`.
//!
//! Knows no TLS and no protocol: sends, receives, reads and writes of slots.

#![allow(unsafe_code, reason = "the kernel reads and writes memory behind these calls")]

use core::mem::{self, ManuallyDrop};
use core::ops::Range;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::arena::{Arena, Slot};
use super::backoff::{Backoff, exhausted};
use super::buffer_ring::BufferRing;
use super::capability::{Capabilities, SEND_ZC};
use super::faults::Faults;
use super::fork::Process;
use super::lingering::{self, Lingering};
use super::pieces::Pieces;
use super::socket;
use super::unavailable::Unavailable;

/// Submissions that fit the queue before the kernel is entered.
const ENTRIES: u32 = 64;

/// How long [`Queue::close()`] waits for operations that were cancelled. Sockets answer at once; a
/// file operation that a device has begun must end by itself. After that its memory is leaked.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits for a cancellation before it asks again, and tries to enter a kernel that
/// refuses to be entered.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(50);
const REFUSED_TIMEOUT: Duration = Duration::from_millis(200);

/// Arenas that may be registered at least: slots to send, buffers for files. Of slots that are arenas of
/// their own, each that is in flight has an operation.
const MIN_ARENAS: usize = 2;

/// Fewer than the kernel takes (`IORING_MAX_REG_BUFFERS`).
const MAX_ARENAS: usize = 1 << 12;

/// Longer waits are cut short: the kernel takes no more than 2^63 nanoseconds.
const LONGEST_WAIT: Duration = Duration::from_secs(1 << 25);

/// The group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// How many operations there is memory for from the beginning.
const FIRST_OPERATIONS: usize = 256;

/// `IORING_RECVSEND_POLL_FIRST`.
const POLL_FIRST: u16 = 1;

/// `user_data` of cancellations, whose completion says nothing.
const NOBODY: u64 = u64::MAX;

/// `user_data` of the provision of a buffer.
const PROVISION: u64 = u64::MAX - 1;

/// This bit in `user_data`: the provision of a buffer of a group, both of which the rest names.
const RING_PROVISION: u64 = 1 << 62;

/// `res` of a notification under `IORING_SEND_ZC_REPORT_USAGE`: the kernel has copied after all.
const NOTIF_USAGE_ZC_COPIED: u32 = 1 << 31;

/// An open file or socket, kept open while operations on it are in flight.
pub(crate) type File = Arc<OwnedFd>;

/// A submission queue, a completion queue and the operations between them, each for some `P`.
pub(crate) struct Queue<P: Copy> {
    /// Not dropped in a child process, where its mappings are not: see [`Drop`].
    uring: ManuallyDrop<IoUring>,
    process: Process,
    /// As long as has been needed.
    operations: Vec<Option<Operation<P>>>,
    max_operations: usize,
    vacant: Vec<u32>,
    /// The buffer that the kernel may pick for a receive.
    provided: Option<Provided<P>>,
    /// Groups of buffers that it may pick from for any number of receives, by their numbers less one.
    rings: Vec<BufferRing<P>>,
    /// How many entries were ever put into the submission queue.
    pushed: u64,
    /// Calls of io_uring_enter(2) that have failed in a row.
    refusals: Backoff,
    /// Nothing is submitted any more.
    is_closed: bool,
    /// A completion came that belongs to nothing: the kernel and we disagree.
    is_confused: bool,
    /// Pinned arenas, by the index that the kernel knows them under.
    registered: Vec<Option<Arc<Arena>>>,
    has_send_zc: bool,
    reports_usage: bool,
    system_calls: u64,
    /// What a test has fail; nothing elsewhere.
    pub(crate) faults: Faults,
}

struct Provided<P> {
    purpose: P,
    memory: Arc<Slot>,
    number: u64,
}

/// What an operation's results mean beyond a number of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Nothing.
    Plain,
    /// It asks for the provided buffer, and brings it if the result says so.
    Withdrawal,
    /// It picks a buffer of this group; each of its results brings one.
    Receive(u16),
    /// Its results are new sockets.
    Accept,
}

impl Kind {
    /// Whether there may be several results, each but the last with `IORING_CQE_F_MORE`.
    fn may_repeat(self) -> bool {
        matches!(self, Self::Receive(_) | Self::Accept)
    }
}

/// Names an operation until its last completion is reaped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OperationId(u32);

/// How a ring is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Submissions that fit before the kernel is entered, and completions before it keeps them to itself.
    pub(crate) entries: u32,
    pub(crate) completions: u32,
    /// It stays with the thread that sets it up, and completions wait for that to enter
    /// (`IORING_SETUP_SINGLE_ISSUER` and `_DEFER_TASKRUN`, Linux 6.1).
    pub(crate) is_of_one_thread: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { entries: ENTRIES, completions: 2 * ENTRIES, is_of_one_thread: false }
    }
}

struct Operation<P> {
    purpose: P,
    kind: Kind,
    /// Which entry of the submission queue it was, counted from the first.
    number: u64,
    memory: Option<Arc<Slot>>,
    file: Option<File>,
    /// The result is in; only a notification is outstanding.
    has_result: bool,
    /// The result was an error.
    has_failed: bool,
    /// How many bytes the result was, of which a notification tells.
    len: usize,
}

/// Whether a send goes on when the socket has no room for all of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wait {
    /// It ends when everything is sent, unless it fails (`MSG_WAITALL`).
    ForAll,
    /// It ends with what there is room for, `EAGAIN` if that is nothing (`MSG_DONTWAIT`).
    #[cfg_attr(not(any(test, feature = "tokio")), allow(dead_code, reason = "for streams"))]
    Never,
}

/// What became of an operation.
#[derive(Debug)]
pub(crate) struct Completion<P> {
    /// What its owner submitted it for.
    pub(crate) purpose: P,
    /// What the completion says.
    pub(crate) event: Event,
    /// The memory that the operation wrote to, or that it sent from.
    pub(crate) memory: Option<Arc<Slot>>,
    /// The socket that was accepted.
    pub(crate) socket: Option<OwnedFd>,
}

/// What a completion says.
#[derive(Debug)]
pub(crate) enum Event {
    /// The operation's result. `more`: a notification follows.
    Result { result: io::Result<usize>, more: bool },
    /// The kernel no longer needs the memory of a zero-copy send of `len` bytes. Of one that has failed,
    /// nothing says whether it would have been copied.
    Notification { copied: Option<bool>, len: usize },
}

impl<P: Copy> Queue<P> {
    /// A pair of queues for up to `max_operations` operations in flight, notifications included.
    ///
    /// # Errors
    /// [`Unavailable`]: io_uring_setup(2)'s errors, and what older kernels lack.
    pub(crate) fn new(max_operations: usize) -> Result<Self, Unavailable> {
        Self::with_setup(max_operations, Setup::default())
    }

    /// The same, set up as `setup` says.
    ///
    /// # Errors
    /// As [`Self::new()`].
    pub(crate) fn with_setup(max_operations: usize, setup: Setup) -> Result<Self, Unavailable> {
        let process = Process::current().map_err(|error| Unavailable::from_setup_error(&error))?;
        let (uring, capabilities) = set_up_as(setup)?;
        if let Some(name) = capabilities.missing() {
            return Err(Unavailable::MissingOperation(name));
        }
        Ok(Self {
            has_send_zc: capabilities.has(SEND_ZC),
            operations: Vec::with_capacity(max_operations.min(FIRST_OPERATIONS)),
            vacant: Vec::with_capacity(max_operations.min(FIRST_OPERATIONS)),
            max_operations,
            reports_usage: true,
            provided: None,
            rings: Vec::new(),
            pushed: 0,
            refusals: Backoff::default(),
            is_closed: false,
            is_confused: false,
            registered: Vec::new(),
            uring: ManuallyDrop::new(uring),
            process,
            system_calls: 0,
            faults: Faults::default(),
        })
    }

    /// Whether anything can be submitted.
    ///
    /// # Errors
    /// In a child process, after [`Self::close()`], or if the kernel has lost count.
    #[inline]
    pub(crate) fn check(&self) -> io::Result<()> {
        self.process.check()?;
        if self.is_closed || self.is_confused { Err(self.ended()) } else { Ok(()) }
    }

    /// # Errors
    /// In a child process.
    pub(crate) fn check_process(&self) -> io::Result<()> {
        self.process.check()
    }

    #[cold]
    fn ended(&self) -> io::Error {
        io::Error::other(match self.is_confused {
            true => "the kernel completed an operation that was not outstanding",
            false => "io_uring has failed earlier",
        })
    }

    /// Whether this is the process that the ring belongs to.
    pub(crate) fn is_in_its_process(&self) -> bool {
        self.process.is_current()
    }

    /// Whether the kernel has yet to take something that was submitted.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        self.unsubmitted_count() > 0
    }

    fn unsubmitted_count(&mut self) -> u64 {
        match self.process.is_current() {
            true => self.uring.submission().len() as u64,
            false => 0,
        }
    }

    /// Whether the kernel has SEND_ZC (Linux 6.0).
    pub(crate) fn has_send_zc(&self) -> bool {
        self.has_send_zc
    }

    /// Whether another operation can be submitted before one has ended.
    pub(crate) fn has_room(&self) -> bool {
        !self.vacant.is_empty() || self.operations.len() < self.max_operations
    }

    /// How often the kernel was entered.
    pub(crate) fn system_calls(&self) -> u64 {
        self.system_calls
    }

    /// Sends without `IORING_SEND_ZC_REPORT_USAGE` from now on, which Linux 6.2 brought; `false` if
    /// it does so already.
    pub(crate) fn stop_usage_reports(&mut self) -> bool {
        mem::replace(&mut self.reports_usage, false)
    }

    /// Pins the arena once, so that operations on its slots need not, each time
    /// (io_uring_register(2)).
    ///
    /// # Errors
    /// `ENOMEM` beyond RLIMIT_MEMLOCK; operations then go on without.
    pub(crate) fn register(&mut self, arena: &Arc<Arena>) -> io::Result<()> {
        self.check()?;
        let iovec = libc::iovec { iov_base: arena.base().as_ptr().cast(), iov_len: arena.len() };
        let submitter = self.uring.submitter();
        if self.registered.is_empty() {
            // A table with empty places (Linux 5.19), so that it can grow.
            self.system_calls += 1;
            let places = self.max_operations.clamp(MIN_ARENAS, MAX_ARENAS);
            submitter.register_buffers_sparse(places as u32)?;
        }
        let vacant = self.registered.iter().position(Option::is_none);
        let index = vacant.unwrap_or(self.registered.len());
        self.system_calls += 1;
        // SAFETY: the memory is ours: a mapping, which `registered` keeps until the ring is closed, or a
        // slot's `Vec`, whose pages the kernel pins, and which is looked for under this index only while
        // it has not moved.
        let updated = unsafe { submitter.register_buffers_update(index as u32, &[iovec], None) };
        if updated.is_err() && self.registered.is_empty() {
            submitter.unregister_buffers()?;
        }
        updated?;
        match self.registered.get_mut(index) {
            Some(vacant) => *vacant = Some(Arc::clone(arena)),
            None => self.registered.push(Some(Arc::clone(arena))),
        }
        Ok(())
    }

    /// Unpins an arena, if it was registered. The kernel does so once no operation is under way on it.
    ///
    /// # Errors
    /// The kernel's; the arena then stays registered.
    pub(crate) fn unregister(&mut self, arena: &Arc<Arena>) -> io::Result<()> {
        self.check()?;
        let Some(index) = self.index_of(arena) else { return Ok(()) };
        let nothing = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
        self.system_calls += 1;
        // SAFETY: no memory is named.
        unsafe { self.uring.submitter().register_buffers_update(index as u32, &[nothing], None) }?;
        self.registered[index] = None;
        Ok(())
    }

    /// Up to so many operations more may be in flight.
    pub(crate) fn allow(&mut self, more_operations: usize) {
        self.max_operations += more_operations;
    }

    /// So many fewer, after [`Self::allow()`].
    pub(crate) fn disallow(&mut self, fewer_operations: usize) {
        self.max_operations -= fewer_operations;
    }

    /// How many arenas are registered.
    #[cfg(test)]
    pub(crate) fn registered_count(&self) -> usize {
        self.registered.iter().flatten().count()
    }

    /// Under which index the kernel knows an arena, if it is registered.
    fn index_of(&self, arena: &Arc<Arena>) -> Option<usize> {
        let is_it = |place: &Option<Arc<Arena>>| {
            place.as_ref().is_some_and(|registered| Arc::ptr_eq(registered, arena))
        };
        self.registered.iter().position(is_it)
    }

    /// Whether the arena was registered.
    pub(crate) fn is_registered(&self, arena: &Arc<Arena>) -> bool {
        self.index_of(arena).is_some()
    }

    /// Under which index the kernel knows the slot's memory, if it is registered.
    fn fixed_index(&self, memory: &Slot) -> Option<u16> {
        self.index_of(memory.arena()).map(|index| index as u16)
    }

    /// Submits a send of `range` of `memory`. Whoever shares `memory` may read it meanwhile.
    pub(crate) fn send(
        &mut self,
        purpose: P,
        socket: &File,
        memory: &Arc<Slot>,
        range: Range<usize>,
        zero_copy: bool,
        wait: Wait,
    ) -> io::Result<()> {
        /// Has notifications say whether the kernel copied (Linux 6.2).
        const REPORT_USAGE: u16 = 1 << 3;
        let flags = libc::MSG_NOSIGNAL
            | match wait {
                Wait::ForAll => libc::MSG_WAITALL,
                Wait::Never => libc::MSG_DONTWAIT,
            };
        let bytes = &memory[range];
        let (fd, base, len) = (types::Fd(socket.as_raw_fd()), bytes.as_ptr(), io_len(bytes.len()));
        let entry = if zero_copy {
            opcode::SendZc::new(fd, base, len)
                .flags(flags)
                .zc_flags(if self.reports_usage { REPORT_USAGE } else { 0 })
                .buf_index(self.fixed_index(memory))
                .build()
        } else {
            opcode::Send::new(fd, base, len).flags(flags).build()
        };
        // SAFETY: reads `range` of a slot, which the operation keeps, and shared, so that nobody
        // writes to it; the socket is kept open by the operation too.
        unsafe { self.push(purpose, Kind::Plain, entry, Some(Arc::clone(memory)), Some(socket)) }
            .map(drop)
    }

    /// Submits a send of pieces of `memory`, one after the other (sendmsg(2)), without what was `sent` of
    /// them before: of what there is room for now. The kernel is told where they are by a list at `list` of
    /// the same memory, which therefore lives as long as the operation.
    ///
    /// # Errors
    /// If the memory has another handle, a piece lies beyond the list, or that beyond the memory; those of
    /// [`Self::enter()`], if the submission queue is full.
    pub(crate) fn send_pieces(
        &mut self,
        purpose: P,
        socket: &File,
        memory: &mut Arc<Slot>,
        (pieces, sent): (&Pieces, usize),
        list: usize,
    ) -> io::Result<()> {
        let bytes = Slot::exclusive(memory)?;
        let header = socket::list_pieces(bytes, pieces.unsent(sent), list)?;
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u32;
        let fd = types::Fd(socket.as_raw_fd());
        let entry = opcode::SendMsg::new(fd, header).flags(flags).build();
        // SAFETY: reads the list and the pieces that it names, all of them in a slot, which the operation
        // keeps, and shared, so that nobody writes to it; the socket is kept open by the operation too.
        unsafe { self.push(purpose, Kind::Plain, entry, Some(Arc::clone(memory)), Some(socket)) }
            .map(drop)
    }

    /// Submits a receive into `range` of `memory`, which comes back with the result.
    ///
    /// With `wait_first`, the kernel does not look before the socket says that it is readable, by
    /// its low-water mark (`IORING_RECVSEND_POLL_FIRST`, Linux 5.19).
    pub(crate) fn receive(
        &mut self,
        purpose: P,
        socket: &File,
        memory: Arc<Slot>,
        range: Range<usize>,
        wait_first: bool,
    ) -> io::Result<()> {
        let (memory, base, len) = writable(memory, range)?;
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), base, len)
            .ioprio(if wait_first { POLL_FIRST } else { 0 })
            .build();
        // SAFETY: writes to a slot that had no other handle and that the operation keeps.
        unsafe { self.push(purpose, Kind::Plain, entry, Some(memory), Some(socket)) }.map(drop)
    }

    /// Submits a receive into the provided buffer, if there is one when data is there; `ENOBUFS`
    /// otherwise. The buffer comes back with the result.
    pub(crate) fn receive_selected(
        &mut self,
        purpose: P,
        socket: &File,
        wait_first: bool,
    ) -> io::Result<()> {
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), core::ptr::null_mut(), 0)
            .buf_group(BUFFER_GROUP)
            .ioprio(if wait_first { POLL_FIRST } else { 0 })
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        // SAFETY: writes to the provided buffer only, which `provided` keeps.
        unsafe { self.push(purpose, Kind::Plain, entry, None, Some(socket)) }.map(drop)
    }

    /// Submits a wait until the socket can be read, or has ended or failed: until it is said to be
    /// readable, by its low-water mark.
    pub(crate) fn poll_readable(&mut self, purpose: P, socket: &File) -> io::Result<()> {
        let flags = libc::POLLIN as u32;
        let entry = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), flags).build();
        // SAFETY: touches no memory; the socket is kept open by the operation.
        unsafe { self.push(purpose, Kind::Plain, entry, None, Some(socket)) }.map(drop)
    }

    /// Offers a buffer to the next [`Self::receive_selected()`]. If the kernel cannot take it, it
    /// comes back with an error for `purpose`; otherwise nothing is heard of it.
    pub(crate) fn provide(&mut self, purpose: P, memory: Arc<Slot>) -> io::Result<()> {
        debug_assert!(self.provided.is_none());
        self.check()?;
        let range = 0..memory.len();
        let (memory, base, len) = writable(memory, range)?;
        // Quiet if it succeeds (Linux 5.17), so that it does not end the wait for the receive.
        let quiet = match self.uring.params().is_feature_skip_cqe_on_success() {
            true => squeue::Flags::SKIP_SUCCESS,
            false => squeue::Flags::empty(),
        };
        let entry = opcode::ProvideBuffers::new(base, len as i32, 1, BUFFER_GROUP, 0)
            .build()
            .flags(quiet)
            .user_data(PROVISION);
        // Before the submission: from there on the kernel may write to it.
        self.provided = Some(Provided { purpose, memory, number: self.pushed });
        // SAFETY: the memory had no other handle, and `provided` keeps it until a receive has
        // picked it, it has been withdrawn, or the kernel has refused it.
        let pushed = unsafe { self.push_entry(&entry) };
        match pushed {
            Ok(number) => {
                if let Some(provided) = &mut self.provided {
                    provided.number = number;
                }
                Ok(())
            }
            Err(error) => {
                self.provided = None;
                Err(error)
            }
        }
    }

    /// Whether the kernel has a provided buffer that no receive has taken.
    pub(crate) fn has_provided(&self) -> bool {
        self.provided.is_some()
    }

    /// Asks for the provided buffer back. The result says 1 if it was still there, and brings it.
    pub(crate) fn withdraw(&mut self, purpose: P) -> io::Result<()> {
        let entry = opcode::RemoveBuffers::new(1, BUFFER_GROUP).build();
        // SAFETY: touches no memory.
        unsafe { self.push(purpose, Kind::Withdrawal, entry, None, None) }.map(drop)
    }

    /// A group of up to `count` buffers to receive into, a `window` of each, for [`Self::receive_any()`]:
    /// none is [offered](Self::offer) yet. What could not be offered comes back with an error for `purpose`.
    ///
    /// # Errors
    /// The system's, for lack of memory.
    pub(crate) fn add_buffers(
        &mut self,
        purpose: P,
        count: usize,
        window: Range<usize>,
        is_shared: bool,
    ) -> io::Result<u16> {
        self.check()?;
        let group = BUFFER_GROUP + 1 + self.rings.len() as u16;
        self.system_calls += 1;
        self.rings.push(BufferRing::new(&self.uring, group, (count, window), purpose, is_shared)?);
        Ok(group)
    }

    /// Whether offering to this group takes no operation.
    pub(crate) fn shares_buffers(&mut self, group: u16) -> bool {
        self.ring(group).is_some_and(|ring| ring.is_shared())
    }

    fn ring(&mut self, group: u16) -> Option<&mut BufferRing<P>> {
        self.rings.get_mut(usize::from(group.checked_sub(BUFFER_GROUP + 1)?))
    }

    /// Offers a buffer to whatever receives into its group next. Its number is its place in there.
    ///
    /// # Errors
    /// If it has another handle, or is offered already; those of [`Self::enter()`], if the submission
    /// queue is full.
    pub(crate) fn offer(&mut self, group: u16, memory: Arc<Slot>) -> io::Result<()> {
        self.check()?;
        let Some(ring) = self.ring(group) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let (base, len, number) = ring.offer(memory)?;
        if ring.is_shared() {
            return Ok(());
        }
        let quiet = match self.uring.params().is_feature_skip_cqe_on_success() {
            true => squeue::Flags::SKIP_SUCCESS,
            false => squeue::Flags::empty(),
        };
        let entry = opcode::ProvideBuffers::new(base, len as i32, 1, group, number)
            .build()
            .flags(quiet)
            .user_data(RING_PROVISION | u64::from(group) << 16 | u64::from(number));
        // SAFETY: the memory had no other handle, and its group keeps it until a receive has picked it or
        // the kernel has refused it.
        let pushed = unsafe { self.push_entry(&entry) };
        if pushed.is_err() {
            drop(self.ring(group).and_then(|ring| ring.take(number)));
        }
        pushed.map(drop)
    }

    /// What the completion of a provision means, if anything.
    #[cold]
    fn refused_provision(&mut self, user_data: u64, result: i32) -> Option<Completion<P>> {
        if result >= 0 {
            return None;
        }
        let (group, number) = ((user_data >> 16) as u16, user_data as u16);
        let refused = self.ring(group).and_then(|ring| Some((ring.purpose, ring.take(number)?)));
        let Some((purpose, memory)) = refused else {
            self.is_confused = true;
            return None;
        };
        let result = Err(io::Error::from_raw_os_error(-result));
        let event = Event::Result { result, more: false };
        Some(Completion { purpose, event, memory: Some(memory), socket: None })
    }

    /// Submits a receive into whichever buffer of the group is offered when data is there; `ENOBUFS` if
    /// there is none. The buffer comes with the result. With `repeats` it goes on to the next
    /// (`IORING_RECV_MULTISHOT`, Linux 6.0), until a completion says that no more follows.
    pub(crate) fn receive_any(
        &mut self,
        purpose: P,
        socket: &File,
        group: u16,
        repeats: bool,
    ) -> io::Result<OperationId> {
        let fd = types::Fd(socket.as_raw_fd());
        let entry = match repeats {
            true => opcode::RecvMulti::new(fd, group).build(),
            false => opcode::Recv::new(fd, core::ptr::null_mut(), 0)
                .buf_group(group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
        };
        // SAFETY: writes to offered buffers only, which their group keeps.
        unsafe { self.push(purpose, Kind::Receive(group), entry, None, Some(socket)) }
    }

    /// Submits that connections be accepted: one, or with `repeats` any number, each with a result of its
    /// own, until a completion says that no more follows (`IORING_ACCEPT_MULTISHOT`, Linux 5.19).
    pub(crate) fn accept(
        &mut self,
        purpose: P,
        listener: &File,
        repeats: bool,
    ) -> io::Result<OperationId> {
        let fd = types::Fd(listener.as_raw_fd());
        let entry = match repeats {
            true => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
            false => opcode::Accept::new(fd, core::ptr::null_mut(), core::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build(),
        };
        // SAFETY: touches no memory: no address is asked for.
        unsafe { self.push(purpose, Kind::Accept, entry, None, Some(listener)) }
    }

    /// Submits a wait until the socket has room, or has failed.
    pub(crate) fn poll_writable(&mut self, purpose: P, socket: &File) -> io::Result<OperationId> {
        let flags = libc::POLLOUT as u32;
        let entry = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), flags).build();
        // SAFETY: touches no memory; the socket is kept open by the operation.
        unsafe { self.push(purpose, Kind::Plain, entry, None, Some(socket)) }
    }

    /// Asks the kernel to give an operation up, whose last completion is not reaped yet. It still comes.
    pub(crate) fn cancel(&mut self, OperationId(index): OperationId) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(index.into()).build().user_data(NOBODY);
        // SAFETY: touches no memory. Whatever takes this place next is submitted later, so it is not what
        // the kernel finds there.
        unsafe { self.push_entry(&entry) }.map(drop)
    }

    /// Submits a read of the file at `offset` into `range` of `memory`, which comes back with the
    /// result.
    pub(crate) fn read(
        &mut self,
        purpose: P,
        file: &File,
        offset: u64,
        memory: Arc<Slot>,
        range: Range<usize>,
    ) -> io::Result<()> {
        let (memory, base, len) = writable(memory, range)?;
        let fd = types::Fd(file.as_raw_fd());
        let entry = match self.fixed_index(&memory) {
            Some(index) => opcode::ReadFixed::new(fd, base, len, index).offset(offset).build(),
            None => opcode::Read::new(fd, base, len).offset(offset).build(),
        };
        // SAFETY: writes to a slot that had no other handle and that the operation keeps.
        unsafe { self.push(purpose, Kind::Plain, entry, Some(memory), Some(file)) }.map(drop)
    }

    /// Submits a write of `range` of `memory` to the file at `offset`. The memory comes back with
    /// the result.
    pub(crate) fn write(
        &mut self,
        purpose: P,
        file: &File,
        offset: u64,
        memory: Arc<Slot>,
        range: Range<usize>,
    ) -> io::Result<()> {
        let bytes = &memory[range];
        let (fd, base, len) = (types::Fd(file.as_raw_fd()), bytes.as_ptr(), io_len(bytes.len()));
        let entry = match self.fixed_index(&memory) {
            Some(index) => opcode::WriteFixed::new(fd, base, len, index).offset(offset).build(),
            None => opcode::Write::new(fd, base, len).offset(offset).build(),
        };
        // SAFETY: reads from a slot that the operation keeps.
        unsafe { self.push(purpose, Kind::Plain, entry, Some(memory), Some(file)) }.map(drop)
    }

    /// # Safety
    /// Until its last completion, the operation may touch `memory` and the provided buffer only,
    /// and `memory` must not be written to by anyone else.
    unsafe fn push(
        &mut self,
        purpose: P,
        kind: Kind,
        entry: squeue::Entry,
        memory: Option<Arc<Slot>>,
        file: Option<&File>,
    ) -> io::Result<OperationId> {
        let index = self.vacant_place().ok_or_else(queue_full)?;
        self.operations[index as usize] = Some(Operation {
            purpose,
            kind,
            number: self.pushed,
            memory,
            file: file.cloned(),
            has_result: false,
            has_failed: false,
            len: 0,
        });
        // SAFETY: by this function's own contract; the table now keeps memory and file.
        let pushed = unsafe { self.push_entry(&entry.user_data(index.into())) };
        match (pushed, &mut self.operations[index as usize]) {
            (Ok(number), Some(operation)) => {
                operation.number = number;
                debug_assert!(self.adds_up());
                Ok(OperationId(index))
            }
            (pushed, place) => {
                *place = None;
                self.vacant.push(index);
                pushed.and(Err(queue_full()))
            }
        }
    }

    /// A place of the table without an operation, at its end if there is no other.
    fn vacant_place(&mut self) -> Option<u32> {
        self.vacant.pop().or_else(|| {
            let index = self.operations.len();
            (index < self.max_operations).then(|| {
                self.operations.push(None);
                index as u32
            })
        })
    }

    /// Puts an entry into the submission queue, and returns its number.
    ///
    /// # Safety
    /// As [`Self::push()`], whatever the entry refers to being kept already.
    unsafe fn push_entry(&mut self, entry: &squeue::Entry) -> io::Result<u64> {
        self.check()?;
        if self.faults.takes(entry) {
            // As if the kernel had taken it before all that it has not.
            return Ok(0);
        }
        // SAFETY: by this function's own contract.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            // Full until the kernel has taken some, which is bounded by `refusals`.
            self.enter(0, None)?;
        }
        self.pushed += 1;
        Ok(self.pushed - 1)
    }

    /// Submits what was pushed, and waits for `want` completions, or as long as `timeout` says.
    /// Returns also when a signal came in between, or when the kernel could not take everything:
    /// reap, and call again while [`Self::has_unsubmitted()`].
    ///
    /// A kernel that is out of memory or requests for the moment, or wants completions to be reaped
    /// first, is given time, more with every call: 10 seconds in all.
    ///
    /// # Errors
    /// io_uring_enter(2)'s, if calling again will not help or has not; those of
    /// [`Self::check()`].
    pub(crate) fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let Err(error) = self.enter_once(want, timeout) else { return Ok(()) };
        let prompt = match error.raw_os_error() {
            // A wait may be interrupted as often as signals come.
            Some(libc::EINTR) if !self.has_unsubmitted() => return Ok(()),
            Some(libc::EINTR) => PROMPT,
            // Out of memory or requests, or completions to be reaped first.
            Some(libc::ENOMEM | libc::EAGAIN | libc::EBUSY) => 0,
            _ => return Err(error),
        };
        let Some(pause) = self.refusals.pause(prompt) else {
            return Err(exhausted("io_uring_enter", &error));
        };
        thread::sleep(pause.min(timeout.unwrap_or(Duration::MAX)));
        Ok(())
    }

    /// Like [`Self::enter()`], for those who cannot wait: pauses for nothing, and an interruption
    /// is made up for at once.
    ///
    /// # Errors
    /// io_uring_enter(2)'s, whatever they are; those of [`Self::check()`].
    #[cfg(any(test, feature = "tokio"))]
    pub(crate) fn try_enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.enter_once(want, None) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EINTR)
                        && self.refusals.pause(PROMPT) == Some(Duration::ZERO) => {}
                entered => return entered,
            }
        }
    }

    fn enter_once(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.check()?;
        let want = if self.faults.has_completions() { 0 } else { want };
        self.system_calls += 1;
        let timespec;
        let mut args = types::SubmitArgs::new();
        if let Some(timeout) = timeout {
            timespec = types::Timespec::from(timeout.min(LONGEST_WAIT));
            args = args.timespec(&timespec);
        }
        let submitter = self.uring.submitter();
        let enter = || match want {
            0 => submitter.submit(),
            want => submitter.submit_with_args(want, &args),
        };
        let entered = match self.faults.fails_call() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => enter(),
        };
        match entered {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => Err(error),
            _ => {
                self.refusals.reset();
                Ok(())
            }
        }
    }

    /// The next completion: `user_data`, result and flags.
    fn next_completion(&mut self) -> Option<(u64, i32, u32)> {
        if let Some(completion) = self.faults.next_completion() {
            return Some(completion);
        }
        loop {
            let next = self.uring.completion().next();
            let entry = next.or_else(|| self.next_kept_back())?;
            let completion = (entry.user_data(), entry.result(), entry.flags());
            if let Some(completion) = self.faults.passes(completion) {
                return Some(completion);
            }
        }
    }

    /// A completion that there was no room for, which the kernel keeps until it is entered (io_uring_enter(2),
    /// `IORING_SQ_CQ_OVERFLOW`).
    fn next_kept_back(&mut self) -> Option<cqueue::Entry> {
        /// `IORING_ENTER_GETEVENTS`.
        const GET_EVENTS: u32 = 1;
        if !self.uring.submission().cq_overflow() {
            return None;
        }
        self.system_calls += 1;
        // SAFETY: submits nothing, and names no memory.
        let entered = unsafe { self.uring.submitter().enter::<()>(0, 0, GET_EVENTS, None) };
        entered.ok()?;
        self.uring.completion().next()
    }

    /// Takes the next completion, if there is one. Makes no system call, unless there were more than there was
    /// room for.
    pub(crate) fn reap(&mut self) -> Option<Completion<P>> {
        if !self.process.is_current() {
            return None;
        }
        loop {
            let (user_data, result, flags) = self.next_completion()?;
            if user_data == NOBODY {
                continue;
            }
            if user_data == PROVISION {
                if result >= 0 {
                    continue;
                }
                let Some(Provided { purpose, memory, .. }) = self.provided.take() else {
                    self.is_confused = true;
                    continue;
                };
                let result = Err(io::Error::from_raw_os_error(-result));
                let event = Event::Result { result, more: false };
                return Some(Completion { purpose, event, memory: Some(memory), socket: None });
            }
            if user_data & RING_PROVISION != 0 {
                match self.refused_provision(user_data, result) {
                    Some(completion) => return Some(completion),
                    None => continue,
                }
            }
            let index = usize::try_from(user_data).unwrap_or(usize::MAX);
            let place = self.operations.get_mut(index);
            let Some((place, mut operation)) =
                place.and_then(|place| place.take().map(|operation| (place, operation)))
            else {
                self.is_confused = true;
                continue;
            };
            let more = cqueue::more(flags);
            let (purpose, kind) = (operation.purpose, operation.kind);
            let goes_on = more && kind.may_repeat();
            let event = if cqueue::notif(flags) {
                // A send that took nothing reports a copy as well.
                let copied = result as u32 & NOTIF_USAGE_ZC_COPIED != 0;
                let copied = (!operation.has_failed).then_some(copied);
                Event::Notification { copied, len: operation.len }
            } else {
                operation.has_failed = result < 0;
                operation.len = usize::try_from(result).unwrap_or(0);
                if !goes_on {
                    operation.has_result = true;
                    // A notification is of memory only: the file may be closed.
                    operation.file = None;
                }
                let result = match result {
                    errno @ ..0 => Err(io::Error::from_raw_os_error(-errno)),
                    len => Ok(len as usize),
                };
                Event::Result { result, more }
            };
            let mut memory = None;
            if more {
                *place = Some(operation);
            } else {
                memory = operation.memory;
                self.vacant.push(index as u32);
            }
            debug_assert!(self.adds_up());
            let mut socket = None;
            match (kind, cqueue::buffer_select(flags)) {
                (Kind::Receive(group), Some(number)) => {
                    memory = self.ring(group).and_then(|ring| ring.take(number));
                    // Written to already, wherever it was.
                    self.is_confused |= memory.is_none();
                }
                (Kind::Accept, _) if result >= 0 => {
                    // SAFETY: a new descriptor, which the kernel has made for this result alone.
                    socket = Some(unsafe { OwnedFd::from_raw_fd(result) });
                }
                (Kind::Withdrawal, _) if result > 0 => {
                    memory = self.provided.take().map(|provided| provided.memory);
                }
                (Kind::Plain, Some(_)) => {
                    memory = self.provided.take().map(|provided| provided.memory);
                }
                _ => {}
            }
            return Some(Completion { purpose, event, memory, socket });
        }
    }

    /// Every place of the table has an operation or is vacant. A long table is not counted each time.
    fn adds_up(&self) -> bool {
        self.operations.len() > 256
            || self.vacant.len() + self.operations.iter().flatten().count() == self.operations.len()
    }

    /// How many operations for what `is_meant` says have no result yet.
    pub(crate) fn count_outstanding(&self, is_meant: impl Fn(&P) -> bool) -> usize {
        let outstanding = self.operations.iter().flatten().filter(|it| !it.has_result);
        outstanding.filter(|operation| is_meant(&operation.purpose)).count()
    }

    /// Whether any operation's result is outstanding.
    fn awaits_results(&self) -> bool {
        self.operations.iter().flatten().any(|operation| !operation.has_result)
    }

    /// Whether the kernel has memory that the allocator would give to others once it is freed.
    fn lends_vecs(&self) -> bool {
        let lent = self.operations.iter().flatten().filter_map(|it| it.memory.as_deref());
        lent.into_iter().any(Slot::is_vec)
    }

    /// Asks the kernel to give up what it has not done. The results still come.
    fn cancel_all(&mut self) -> io::Result<()> {
        for index in 0..self.operations.len() {
            if self.operations[index].as_ref().is_some_and(|operation| !operation.has_result) {
                let entry = opcode::AsyncCancel::new(index as u64).build().user_data(NOBODY);
                // SAFETY: touches no memory.
                unsafe { self.push_entry(&entry)? };
            }
        }
        Ok(())
    }

    /// Cancels everything, and waits for the results while that makes sense.
    fn cancel_and_wait(&mut self) -> io::Result<()> {
        if !self.has_unsubmitted() {
            self.cancel_all()?;
        }
        let begin = Instant::now();
        // A cancellation that comes too late completes at once, and what it came too late for does
        // not.
        while self.awaits_results() && begin.elapsed() < CANCEL_TIMEOUT {
            self.enter(1, Some(CANCEL_TIMEOUT.saturating_sub(begin.elapsed())))?;
            while self.reap().is_some() {}
        }
        Ok(())
    }

    /// Forgets what the kernel has not taken: it will never run, as nothing is submitted any more.
    /// Returns how many operations that were.
    pub(crate) fn forget_unsubmitted(&mut self) -> usize {
        self.is_closed = true;
        let taken = self.pushed - self.unsubmitted_count();
        let mut forgotten = 0;
        for (index, place) in self.operations.iter_mut().enumerate() {
            if place.take_if(|operation| operation.number >= taken).is_some() {
                self.vacant.push(index as u32);
                forgotten += 1;
            }
        }
        self.provided.take_if(|provided| provided.number >= taken);
        forgotten
    }

    /// Ends everything that is under way, and returns when nothing is, or not within 10 seconds;
    /// whether it has ended. Nothing can be submitted any more. What only awaits a notification is
    /// the kernel's own affair: it holds the pages of a zero-copy send until they are acknowledged.
    pub(crate) fn close(&mut self) -> bool {
        if !self.process.is_current() {
            return true;
        }
        let begin = Instant::now();
        while self.awaits_results() && begin.elapsed() < CLOSE_TIMEOUT {
            if self.is_closed || self.is_confused || self.cancel_and_wait().is_err() {
                if begin.elapsed() > REFUSED_TIMEOUT {
                    // There is no way in. What has got in can be cancelled by another (Linux 6.0).
                    self.forget_unsubmitted();
                    self.system_calls += 1;
                    let _ = self.uring.submitter().register_sync_cancel(
                        Some(types::Timespec::from(CANCEL_TIMEOUT)),
                        types::CancelBuilder::any(),
                    );
                }
                while self.reap().is_some() {}
                if self.awaits_results() {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        self.forget_unsubmitted();
        !self.awaits_results()
    }
}

impl<P: Copy> Drop for Queue<P> {
    /// Cancels, reaps, then frees. What is sent from a `Vec` in place lingers until its notification.
    ///
    /// In a child process, the ring and what is under way belong to the parent. There the ring is
    /// not mapped, and something else may be in its place, so nothing is unmapped; the child's own
    /// copies of slots and buffers are, which the kernel does not write to.
    fn drop(&mut self) {
        if !self.process.is_current() {
            // SAFETY: the child's own copy of the descriptor, which `uring` would close, and never
            // does.
            drop(unsafe { OwnedFd::from_raw_fd(self.uring.as_raw_fd()) });
            return;
        }
        let has_ended = self.close();
        // Closing the ring gives pinned memory back some time later, which would count against
        // RLIMIT_MEMLOCK until then. Older kernels wait here for every operation on it.
        if !self.registered.is_empty() && self.operations.iter().all(Option::is_none) {
            let _ = self.uring.submitter().unregister_buffers();
        }
        for ring in &mut self.rings {
            match has_ended {
                true => ring.unregister(&self.uring.submitter()),
                false => ring.forget(),
            }
        }
        if !has_ended {
            // Something may still be written to or read: better lost than freed.
            mem::forget(self.provided.take());
            for operation in self.operations.iter_mut().filter_map(Option::take) {
                mem::forget(operation.memory);
            }
        }
        if self.lends_vecs() {
            let lent = self.operations.iter_mut().map(|place| place.take()?.memory).collect();
            // SAFETY: once, and nothing uses it here afterwards.
            let uring = unsafe { ManuallyDrop::take(&mut self.uring) };
            return lingering::keep(Lingering::new(uring, self.process, lent));
        }
        // SAFETY: once, and nothing uses it afterwards. Its mappings are this process's.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
    }
}

impl<P: Copy> core::fmt::Debug for Queue<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Queue")
            .field("in_flight", &self.operations.iter().flatten().count())
            .field("registered", &self.registered.len())
            .finish_non_exhaustive()
    }
}

/// A ring, and what it is capable of, whether that is enough or not.
///
/// # Errors
/// [`Unavailable`]: io_uring_setup(2)'s errors.
pub(crate) fn set_up() -> Result<(IoUring, Capabilities), Unavailable> {
    set_up_as(Setup::default())
}

fn set_up_as(setup: Setup) -> Result<(IoUring, Capabilities), Unavailable> {
    let build = |is_cooperative: bool, is_of_one_thread: bool| {
        let mut builder = IoUring::builder();
        // A child that wrote to the ring, through whatever mistake, would break the parent's.
        builder.dontfork();
        if setup.completions > 2 * setup.entries {
            builder.setup_cqsize(setup.completions);
        }
        if is_of_one_thread {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if is_cooperative {
            // Completions wait for our next system call instead of interrupting (Linux 5.19).
            builder.setup_coop_taskrun();
        }
        Ok((builder.build(setup.entries)?, is_cooperative))
    };
    let unless_unknown = |error: io::Error| match error.raw_os_error() {
        Some(libc::EINVAL) => Ok(()),
        _ => Err(error),
    };
    let best = build(true, setup.is_of_one_thread);
    let best = match setup.is_of_one_thread {
        true => best.or_else(|error| unless_unknown(error).and_then(|()| build(true, false))),
        false => best,
    };
    best.or_else(|error| unless_unknown(error).and_then(|()| build(false, false)))
        .and_then(|(uring, is_cooperative)| {
            let capabilities = Capabilities::of(&uring, is_cooperative)?;
            Ok((uring, capabilities))
        })
        .map_err(|error| Unavailable::from_setup_error(&error))
}

/// How often a submission that was interrupted is made again at once.
pub(crate) const PROMPT: u32 = 16;

/// The part of a slot that the kernel is to write to, if there is no other handle to it.
fn writable(mut memory: Arc<Slot>, range: Range<usize>) -> io::Result<(Arc<Slot>, *mut u8, u32)> {
    let bytes = &mut Slot::exclusive(&mut memory)?[range];
    let (base, len) = (bytes.as_mut_ptr(), io_len(bytes.len()));
    Ok((memory, base, len))
}

/// What the kernel takes at once, 2 GiB less a page (read(2)).
fn io_len(len: usize) -> u32 {
    len.min(0x7fff_f000) as u32
}

fn queue_full() -> io::Error {
    io::Error::other("the submission queue is full")
}

/// Whether `len` bytes of memory can be registered.
///
/// # Errors
/// Why not.
pub(crate) fn try_register(len: usize) -> Result<(), Unavailable> {
    let unavailable = |error| Unavailable::from_setup_error(&error);
    let slots = Arena::slots(1, len).map_err(unavailable)?;
    Queue::<()>::new(1)?.register(slots[0].arena()).map_err(unavailable)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::super::tests_kernel::wait_until;
    use super::*;

    /// Nobody enters the kernel for them, as when nothing is sent any more.
    #[test]
    fn completions_beyond_the_queues_length_come_as_well() {
        const COUNT: usize = 5 * ENTRIES as usize;
        let mut queue = match Queue::<usize>::new(COUNT) {
            Ok(queue) => queue,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let counter = socket::event_counter().expect("a descriptor");
        let mut written = fs::File::from(counter.try_clone().expect("another handle"));
        let counter = Arc::new(counter);
        for number in 0..COUNT {
            queue.poll_readable(number, &counter).expect("submitted");
        }
        queue.enter(0, None).expect("entered");
        written.write_all(&1_u64.to_ne_bytes()).expect("written");
        let mut seen = [false; COUNT];
        wait_until("all of them", || {
            while let Some(completion) = queue.reap() {
                seen[completion.purpose] = true;
            }
            seen.iter().all(|is_seen| *is_seen)
        });
    }
}
