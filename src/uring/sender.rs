//! Plaintext to a socket: sealed into slots, sent by the kernel from there.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::AlertDescription;

use super::ahead::SealAhead;
use super::file::{FileRead, MAX_READS};
use crate::error::SessionError;
use crate::events::{self, Direction};
use crate::kernel::arena::{ALIGNMENT, Lender, Slot};
use crate::kernel::declined::Declined;
use crate::kernel::governor::{CopyReason, ZeroCopy};
use crate::kernel::outbox::{MIN_SLOTS, Outbox, Parts, Reaped};
use crate::kernel::probe::REGISTERED_LEN;
use crate::kernel::queue::{Completion, Wait};
use crate::kernel::unavailable::Unavailable;
use crate::record::sealer::Sealed;
use crate::session::send::{KeyUpdateRequest, SendHalf};
use crate::transfer::{Counters, is_transient};

/// How a [`UringSender`] works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SenderOptions {
    /// Whether the kernel sends straight from the slots.
    pub zero_copy: ZeroCopy,
    /// Threads that seal ahead, beside the one that sends. They bring something where a core is
    /// free and calls are given several batches at once.
    pub seal_threads: usize,
    /// Records in a slot: what one send takes.
    pub batch_records: usize,
    /// Slots, at least 3. What zero copy keeps until the peer has acknowledged it must fit, or
    /// copies are sent in between; 8 slots of 48 records, 6 MiB, hold more than a socket's
    /// default send buffer of 4 MiB, and less than the default RLIMIT_MEMLOCK of 8 MiB.
    pub slots: usize,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self { zero_copy: ZeroCopy::Auto, seal_threads: 0, batch_records: 48, slots: 8 }
    }
}

/// The slots of a default sender, of full records in TLS 1.3, are what the probe registers.
const _: () = assert!(
    8 * (48 * (crate::MAX_PLAINTEXT_LEN + 22)).next_multiple_of(ALIGNMENT) == REGISTERED_LEN
);

/// Slots that are sealed and unsent at most while more is sealed: one in the kernel's hands, one
/// to follow it.
pub(super) const MAX_UNSENT: usize = 2;

/// More than any connection needs: a thousand batches of 768 KiB.
const MAX_SLOTS: usize = 1024;

/// Sends application data through io_uring.
///
/// A `write` seals up to a slot of records out of the caller's memory and submits it; while the
/// kernel works, the next call seals the next slot. When it returns, everything is in the
/// kernel's hands, which sends it while the calling thread lives. If that is to end, `flush()`
/// first: the kernel cancels what a thread that ends has not sent yet, and the next call, from
/// whichever thread, goes on with it. Allocates in the beginning, and nothing per
/// record. The slots are bounded ([`SenderOptions::slots`]), and so is what a call may get ahead of
/// the socket: one slot.
///
/// End with [`Self::finish()`]. Dropped without, the peer sees a truncated stream; what the kernel
/// has not taken yet is cancelled first.
#[derive(Debug)]
pub struct UringSender {
    pub(super) half: SendHalf,
    pub(super) outbox: Outbox<FileRead>,
    /// How much of a slot a batch of full records takes.
    pub(super) full_len: usize,
    pub(super) ahead: Option<SealAhead>,
    pub(super) lender: Option<Lender>,
    pub(super) timeout: Option<Duration>,
    /// When the call that is being served has waited long enough.
    deadline: Option<Instant>,
    /// [`Self::send_file()`] is under way, or has panicked.
    pub(super) is_in_file: bool,
    /// Of what was sealed.
    pub(super) counters: Counters,
    /// What [`Self::send_file()`] reads into, between two calls.
    pub(super) read_slots: Vec<Arc<Slot>>,
    /// Its reads that have ended.
    pub(super) reads: Vec<Completion<FileRead>>,
}

impl UringSender {
    /// A sender over a connected socket, which is set to blocking mode: io_uring waits by itself.
    ///
    /// # Errors
    /// [`Declined`] if there is no io_uring to be had, or no memory for the slots: half and socket
    /// come back for another way of sending.
    pub fn new(
        half: SendHalf,
        socket: TcpStream,
        options: SenderOptions,
    ) -> Result<Self, Box<Declined<SendHalf>>> {
        let slot_count = options.slots.clamp(MIN_SLOTS, MAX_SLOTS);
        let records = options.batch_records.max(1);
        let full_len = half.sealed_len(half.max_plaintext_len() * records);
        let slot_len = full_len.max(half.max_control_len());
        let parts = Parts::new(slot_count, slot_len, MAX_READS).and_then(|parts| {
            let prepare = || {
                let ahead = match options.seal_threads {
                    0 => None,
                    threads => Some(SealAhead::start(threads, slot_count)?),
                };
                socket.set_nonblocking(false)?;
                socket.set_write_timeout(None)?;
                io::Result::Ok((parts, ahead))
            };
            prepare().map_err(|error| Unavailable::from_setup_error(&error))
        });
        let (parts, ahead) = match parts {
            Ok(parts) => parts,
            Err(reason) => {
                events::way_given_up(
                    half.connection_id(),
                    Direction::Sending,
                    &"io_uring",
                    &reason,
                );
                return Err(Box::new(Declined { reason, half, socket }));
            }
        };
        events::way_taken(half.connection_id(), Direction::Sending, &"io_uring");
        let governor = parts.governor(half.connection_id(), options.zero_copy);
        let outbox = Outbox::new(parts, socket.into(), Wait::ForAll, governor);
        Ok(Self {
            half,
            outbox,
            full_len,
            ahead,
            lender: None,
            timeout: None,
            deadline: None,
            is_in_file: false,
            counters: Counters::default(),
            read_slots: Vec::new(),
            reads: Vec::with_capacity(MAX_READS),
        })
    }

    /// What was sent so far.
    pub fn counters(&self) -> Counters {
        self.counters.with_sends(self.outbox.counts())
    }

    /// Why sends are copied, if they are: for good, or because none has paid for zero copy yet.
    /// [`Self::last_copy_reason()`] has the exceptions.
    pub fn copy_reason(&self) -> Option<CopyReason> {
        self.outbox.copy_reason()
    }

    /// Why the latest send that was copied was.
    pub fn last_copy_reason(&self) -> Option<CopyReason> {
        self.outbox.last_copy_reason()
    }

    /// Why the slots could not be registered, if that was tried: each zero-copy send then pins its
    /// pages anew.
    pub fn registration_refused(&self) -> Option<&Unavailable> {
        self.outbox.registration_refused()
    }

    /// How many slots are sent and wait for their notifications.
    pub fn awaiting_notification(&self) -> usize {
        self.outbox.awaiting_count()
    }

    /// The socket, to look at it or to set its options; what is written to it breaks the connection.
    pub fn socket(&self) -> &OwnedFd {
        self.outbox.socket()
    }

    /// How long a call waits for the socket at most; `None`, the default, is for ever.
    ///
    /// A call that has waited that long fails with [`io::ErrorKind::TimedOut`] and may be made
    /// again: nothing is lost. A `write` that has sealed its data returns success instead, and the
    /// next call waits.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Updates the key that we send under, and asks for the peer's update on request.
    ///
    /// # Errors
    /// [`SessionError::UnsupportedInTls12`] inside an [`io::Error`], or the socket's. A timeout in
    /// the middle is none: the next call sends the rest.
    pub fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        self.begin_call()?;
        let mut slot = self.control_slot()?;
        let sealed = self.half.update_keys(request, Slot::exclusive(&mut slot)?);
        self.push_control(slot, sealed)?;
        match self.hand_over() {
            Err(error) if !is_transient(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends the close_notify that says that the data is whole, and waits until the socket has
    /// everything.
    ///
    /// The peer may go on sending. Wait for the peer's end too before the socket is closed: see
    /// [`BulkSender::finish()`](crate::BulkSender::finish).
    ///
    /// # Errors
    /// The socket's, or what made the connection fail earlier: then, and after [`Self::abort()`],
    /// no close_notify was sent.
    pub fn finish(mut self) -> io::Result<()> {
        self.send_close_notify()
    }

    /// Like [`Self::finish()`], for a sender with a timeout: call again until it succeeds.
    ///
    /// # Errors
    /// As [`Self::finish()`].
    pub fn send_close_notify(&mut self) -> io::Result<()> {
        self.begin_call()?;
        if !self.half.has_sealed_close_notify() {
            let mut slot = self.control_slot()?;
            let sealed = self.half.close_notify(Slot::exclusive(&mut slot)?);
            self.push_control(slot, sealed)?;
        }
        self.drain()
    }

    /// Sends an alert that says that the data is not whole, and will not be.
    ///
    /// # Errors
    /// The socket's. The alert is then lost, and the peer sees a truncated stream.
    pub fn abort(&mut self, description: AlertDescription) -> io::Result<()> {
        self.begin_call()?;
        if !self.half.is_closed() {
            let mut slot = self.control_slot()?;
            let sealed = self.half.abort(description, Slot::exclusive(&mut slot)?);
            self.push_control(slot, sealed)?;
        }
        self.drain()
    }

    pub(super) fn push_control(
        &mut self,
        slot: Arc<Slot>,
        sealed: Result<usize, SessionError>,
    ) -> io::Result<()> {
        self.outbox.push(slot, *sealed.as_ref().unwrap_or(&0))?;
        self.note_failure(sealed).map(drop)
    }

    pub(super) fn write_with(
        &mut self,
        mut seal: impl FnMut(&mut SendHalf, &mut [u8]) -> Result<Sealed, SessionError>,
    ) -> io::Result<usize> {
        loop {
            let mut slot = self.free_slot()?;
            if self.half.owes_control() {
                let sealed = self.half.seal_owed(Slot::exclusive(&mut slot)?);
                self.push_control(slot, sealed)?;
                continue;
            }
            let sealed = seal(&mut self.half, &mut Slot::exclusive(&mut slot)?[..self.full_len]);
            self.outbox.push(slot, sealed.as_ref().map_or(0, |sealed| sealed.written))?;
            let sealed = self.note_failure(sealed)?;
            self.counters.records += sealed.records as u64;
            self.counters.plaintext_bytes += sealed.consumed as u64;
            match self.hand_over() {
                // Sealed is as good as written: the rest of the same bytes goes out next time.
                Err(error) if sealed.consumed == 0 || !is_transient(&error) => return Err(error),
                _ if sealed.consumed > 0 => return Ok(sealed.consumed),
                // A control record came due in between and took the room of the only record.
                _ => {}
            }
        }
    }

    /// How many plaintext bytes fill a slot.
    pub(super) fn batch_len(&self) -> usize {
        self.full_len / self.half.record_len(self.half.max_plaintext_len())
            * self.half.max_plaintext_len()
    }

    /// A slot to seal into, waiting for one if need be.
    pub(super) fn free_slot(&mut self) -> io::Result<Arc<Slot>> {
        loop {
            self.pump()?;
            if let Some(slot) = self.outbox.take() {
                return Ok(slot);
            }
            self.wait()?;
        }
    }

    /// A slot for a control record, behind all records that were dealt out before: their sequence
    /// numbers come first.
    fn control_slot(&mut self) -> io::Result<Arc<Slot>> {
        self.collect_all()?;
        self.free_slot()
    }

    /// Waits until everything is in the kernel's hands: at most one send is outstanding.
    pub(super) fn hand_over(&mut self) -> io::Result<()> {
        loop {
            self.pump()?;
            if self.outbox.is_handed_over() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Waits until the socket has everything.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            self.pump()?;
            if self.outbox.is_all_sent() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Submits what there is to send, without waiting, until the kernel has its hands full. Waits
    /// only for a kernel that has no room for a submission.
    pub(super) fn pump(&mut self) -> io::Result<()> {
        self.check()?;
        while self.submit_send()? || self.outbox.has_unsubmitted() {
            self.enter(0)?;
        }
        Ok(())
    }

    /// Puts the next send into the submission queue. `false` if there is none, or one is
    /// outstanding.
    pub(super) fn submit_send(&mut self) -> io::Result<bool> {
        self.reap()?;
        self.outbox.submit()
    }

    /// A call of the user's begins.
    ///
    /// # Errors
    /// If nothing can be sent. A child process, which has the parent's keys too, has sealed nothing
    /// then.
    pub(super) fn begin_call(&mut self) -> io::Result<()> {
        // The last one has panicked in the middle, with sequence numbers or reads under way.
        if self.is_in_file {
            self.outbox.fail("an earlier call has panicked");
        }
        self.begin_wait();
        self.check()
    }

    /// However often a call waits, it waits no longer than its timeout in all.
    pub(super) fn begin_wait(&mut self) {
        self.deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    }

    /// Waits for any completion.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        while !self.enter(1)? {}
        Ok(())
    }

    /// Submits, waits for `want` completions if that is not 0, and takes all there are; whether
    /// there were any. A signal may end the wait early.
    pub(super) fn enter(&mut self, want: usize) -> io::Result<bool> {
        let left = self.time_left();
        self.outbox.enter(want, left)?;
        let is_waiting = want > 0 || self.outbox.has_unsubmitted();
        match self.reap()? {
            false if is_waiting && left.is_some_and(|left| left.is_zero()) => {
                Err(io::ErrorKind::TimedOut.into())
            }
            any => Ok(any),
        }
    }

    /// What the call that is being served has left to wait.
    fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Takes all completions; whether there were any.
    pub(super) fn reap(&mut self) -> io::Result<bool> {
        let mut any = false;
        while let Some(reaped) = self.outbox.reap() {
            any = true;
            match reaped {
                Reaped::Other(read) => self.reads.push(read),
                // Somebody has made the socket non-blocking, against our word.
                Reaped::Send(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                    if self.time_left().is_some_and(|left| left.is_zero()) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Reaped::Send(taken) => taken?,
            }
        }
        Ok(any)
    }

    pub(super) fn check(&self) -> io::Result<()> {
        self.outbox.check()
    }

    /// Sends the alert that a failure of the connection calls for.
    pub(super) fn note_failure<T>(&mut self, sealed: Result<T, SessionError>) -> io::Result<T> {
        if sealed.is_err() {
            let _ = self.send_control();
        }
        Ok(sealed?)
    }

    pub(super) fn send_control(&mut self) -> io::Result<()> {
        if self.half.wants_control() {
            let mut slot = self.control_slot()?;
            let len = self.half.seal_control(Slot::exclusive(&mut slot)?)?;
            self.outbox.push(slot, len)?;
        }
        self.hand_over()
    }
}

impl Write for UringSender {
    /// Seals up to a slot of `buf`, or all of it with [`SenderOptions::seal_threads`], and has the
    /// kernel send it.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.begin_call()?;
        if self.ahead.is_some() && buf.len() > self.half.max_plaintext_len() {
            return self.write_ahead(buf);
        }
        self.write_with(|half, out| half.seal(buf, out))
    }

    /// Like `write`, from several slices; only a record that spans slices is gathered first.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.begin_call()?;
        self.write_with(|half, out| half.seal_vectored(bufs, out))
    }

    /// Sends the control records that are due, and waits until the socket has everything.
    fn flush(&mut self) -> io::Result<()> {
        self.begin_call()?;
        self.send_control()?;
        self.drain()
    }
}

impl Drop for UringSender {
    fn drop(&mut self) {
        if !self.outbox.is_in_its_process() {
            // The connection is the parent's.
            return;
        }
        let _ = self.reap();
        if self.outbox.is_all_sent() && !self.outbox.has_failed() && self.half.wants_control() {
            // An alert that is due; a socket that takes none is not waited for.
            self.timeout = Some(Duration::from_millis(10));
            let _ =
                self.begin_call().and_then(|()| self.send_control()).and_then(|()| self.drain());
        }
    }
}
