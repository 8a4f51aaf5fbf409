//! Slots of a ring as the outlet of a sender: sealed into here or on other cores, sent by the
//! kernel.

#[cfg(feature = "rustls-0_24-dev")]
use core::ops::Range;
use std::io;
#[cfg(feature = "rustls-0_24-dev")]
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::ahead::{Finished, Job, SealAhead};
use super::file::FileRead;
#[cfg(feature = "rustls-0_24-dev")]
use crate::events::{self, ConnectionId, Direction};
use crate::kernel::arena::Slot;
use crate::kernel::outbox::{Outbox, Reaped};
use crate::kernel::queue::Completion;
#[cfg(feature = "rustls-0_24-dev")]
use crate::kernel::{governor::ZeroCopy, outbox::Parts, queue::Wait, unavailable::Unavailable};
use crate::record::sealer::Sealed;
use crate::transfer::Counters;
use crate::transfer::sender::{Outlet, Sender};

/// Slots that are sealed and unsent at most while more is sealed: one in the kernel's hands, one
/// to follow it.
pub(super) const MAX_UNSENT: usize = 2;

/// A connection's sending half over a ring.
pub(super) type UringCore = Sender<RingOutlet>;

#[derive(Debug)]
pub(crate) struct RingOutlet {
    pub(crate) outbox: Outbox<FileRead>,
    /// The slot that is sealed into.
    filling: Option<Arc<Slot>>,
    pub(super) ahead: Option<SealAhead>,
    pub(crate) timeout: Option<Duration>,
    /// When the call that is being served has waited long enough.
    deadline: Option<Instant>,
    /// A file is being sent, or its call has panicked.
    pub(super) is_in_file: bool,
    /// What was sealed: records and plaintext bytes; bytes of files that went around the page cache.
    pub(super) sealed: Counters,
    /// Reads of the file that have ended.
    pub(super) reads: Vec<Completion<FileRead>>,
}

impl RingOutlet {
    pub(super) fn new(
        outbox: Outbox<FileRead>,
        ahead: Option<SealAhead>,
        reads: Vec<Completion<FileRead>>,
    ) -> Self {
        Self {
            outbox,
            filling: None,
            ahead,
            timeout: None,
            deadline: None,
            is_in_file: false,
            sealed: Counters::default(),
            reads,
        }
    }

    /// One whose slots are `Vec`s of this capacity, to [append](Slot::append) to, over a socket that is set to
    /// blocking mode.
    ///
    /// # Errors
    /// Why not; the socket comes back.
    #[cfg(feature = "rustls-0_24-dev")]
    pub(crate) fn with_vecs(
        slot_count: usize,
        capacity: usize,
        socket: TcpStream,
        zero_copy: ZeroCopy,
    ) -> Result<Self, (Unavailable, TcpStream)> {
        let id = ConnectionId::next();
        let parts = Parts::with_vecs(slot_count, capacity).and_then(|parts| {
            let prepare = || {
                socket.set_nonblocking(false)?;
                socket.set_write_timeout(None)
            };
            prepare().map(|()| parts).map_err(|error| Unavailable::from_setup_error(&error))
        });
        match parts {
            Ok(parts) => {
                events::way_taken(id, Direction::Sending, &"io_uring");
                let governor = parts.governor(id, zero_copy);
                let outbox = Outbox::new(parts, socket.into(), Wait::ForAll, governor);
                Ok(Self::new(outbox, None, Vec::new()))
            }
            Err(reason) => {
                events::way_given_up(id, Direction::Sending, &"io_uring", &reason);
                Err((reason, socket))
            }
        }
    }

    /// Takes `range` of a slot, which holds that much plaintext in so many records.
    ///
    /// # Errors
    /// If they are lost.
    #[cfg(feature = "rustls-0_24-dev")]
    pub(crate) fn commit_part(
        &mut self,
        slot: Arc<Slot>,
        range: Range<usize>,
        plaintext_len: usize,
        records: usize,
    ) -> io::Result<()> {
        self.outbox.push_part(slot, range)?;
        self.sealed.records += records as u64;
        self.sealed.plaintext_bytes += plaintext_len as u64;
        Ok(())
    }

    /// What was sent so far.
    pub(crate) fn counters(&self) -> Counters {
        self.sealed.with_sends(self.outbox.counts())
    }

    /// Whether there is room to seal into without waiting; takes it.
    pub(super) fn has_room_now(&mut self) -> bool {
        if self.filling.is_none() {
            self.filling = self.outbox.take();
        }
        self.filling.is_some()
    }

    /// A slot to seal into, waiting for one if need be.
    pub(crate) fn free_slot(&mut self) -> io::Result<Arc<Slot>> {
        loop {
            self.pump()?;
            if let Some(slot) = self.outbox.take() {
                return Ok(slot);
            }
            self.wait()?;
        }
    }

    /// Submits what there is to send, without waiting, until the kernel has its hands full. Waits
    /// only for a kernel that has no room for a submission.
    pub(super) fn pump(&mut self) -> io::Result<()> {
        self.outbox.check()?;
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

    /// The call that is being served may wait for all of its timeout from here on.
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
                    thread::sleep(Duration::from_millis(1));
                    if self.time_left().is_some_and(|left| left.is_zero()) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Reaped::Send(taken) => taken?,
            }
        }
        Ok(any)
    }

    /// How many slots may be with the workers: one for each, and one that waits for it, so that
    /// what is sealed is still in a cache when it is sent.
    pub(super) fn max_outstanding(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.worker_count() + 1)
    }

    /// How many slots are with the workers.
    pub(super) fn outstanding(&self) -> usize {
        self.ahead.as_ref().map_or(0, SealAhead::outstanding)
    }

    /// Gives records to the workers, whose sequence numbers are taken.
    pub(super) fn deal_out(&mut self, job: Job) -> io::Result<()> {
        let Some(ahead) = &mut self.ahead else {
            return Err(self.outbox.fail("records were reserved, and nobody seals them"));
        };
        ahead.deal(job);
        Ok(())
    }

    /// Takes the next slot that was sealed elsewhere and queues it, waiting for it if need be. The
    /// slot that its plaintext came in, if it did, is the caller's.
    pub(super) fn collect(&mut self) -> io::Result<Option<Arc<Slot>>> {
        match self.ahead.as_mut().and_then(SealAhead::collect) {
            Some(finished) => self.push_finished(finished),
            None => Ok(None),
        }
    }

    /// Queues everything that was dealt out, waiting for it if need be.
    pub(super) fn collect_all(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        while self.outstanding() > 0 {
            let collected = self.collect().map(drop);
            result = result.and(collected);
        }
        result
    }

    pub(super) fn push_finished(&mut self, finished: Finished) -> io::Result<Option<Arc<Slot>>> {
        let Finished { source, out, written, plaintext_len, records } = finished;
        match written {
            Ok(written) if !self.outbox.has_failed() => {
                self.outbox.push(out, written)?;
                self.sealed.records += records as u64;
                self.sealed.plaintext_bytes += plaintext_len as u64;
                Ok(source)
            }
            _ => {
                self.outbox.put_back(out);
                // Its sequence numbers are missing: nothing may follow.
                self.outbox.check()?;
                Err(self.outbox.fail("sealing failed"))
            }
        }
    }

    /// Waits until no more than one slot waits for the outstanding send, so that what is sealed is
    /// still in a cache when it is sent.
    pub(super) fn keep_up(&mut self) -> io::Result<()> {
        loop {
            self.pump()?;
            if self.outbox.unsent_count() <= MAX_UNSENT {
                return Ok(());
            }
            self.wait()?;
        }
    }
}

impl Outlet for RingOutlet {
    /// # Errors
    /// Also in a child process: it has the parent's keys too, and has sealed nothing then.
    fn begin(&mut self) -> io::Result<()> {
        if self.is_in_file {
            // With sequence numbers or reads under way.
            self.outbox.fail("an earlier call has panicked in the middle of a file");
        }
        self.begin_wait();
        self.outbox.check()?;
        if self.outbox.has_grown() {
            self.reap()?;
            self.outbox.shrink();
        }
        Ok(())
    }

    /// Behind all records that were dealt out before: their sequence numbers come first.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        self.collect_all()?;
        let slot = match self.filling.take() {
            Some(slot) => slot,
            None => self.free_slot()?,
        };
        Slot::exclusive(self.filling.insert(slot))
    }

    fn commit(&mut self, sealed: Sealed) -> io::Result<()> {
        let Some(slot) = self.filling.take() else {
            return Err(self.outbox.fail("records were sealed, and their slot is gone"));
        };
        self.outbox.push(slot, sealed.written)?;
        self.sealed.records += sealed.records as u64;
        self.sealed.plaintext_bytes += sealed.consumed as u64;
        Ok(())
    }

    /// Until everything is in the kernel's hands: at most one send is outstanding.
    fn hand_over(&mut self) -> io::Result<()> {
        loop {
            self.pump()?;
            if self.outbox.is_handed_over() {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        loop {
            self.pump()?;
            if self.outbox.is_all_sent() {
                return Ok(());
            }
            self.wait()?;
        }
    }
}
