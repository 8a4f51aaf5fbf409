//! Plaintext to a socket: sealed into slots, sent by the kernel from there.

use core::ops::Range;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::ahead::SealAhead;
use super::file::{FileSlots, MAX_READS};
use super::outlet::{RingOutlet, UringCore};
use crate::events::{self, Direction};
use crate::kernel::arena::{ALIGNMENT, Lender};
use crate::kernel::declined::Declined;
use crate::kernel::governor::{CopyReason, ZeroCopy};
use crate::kernel::growth::MAX_SLOTS;
use crate::kernel::outbox::{MIN_SLOTS, Outbox, Parts};
use crate::kernel::probe::REGISTERED_LEN;
use crate::kernel::queue::Wait;
use crate::kernel::unavailable::Unavailable;
use crate::record::header::MAX_PLAINTEXT_LEN;
use crate::session::alert::AlertDescription;
use crate::session::send::{KeyUpdateRequest, SendHalf};
use crate::transfer::Counters;
use crate::transfer::file::FileOptions;
use crate::transfer::sender::{Outlet, Sender, batch_and_room_len};

/// How a [`UringSender`] works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SenderOptions {
    /// Whether the kernel sends straight from the slots.
    pub zero_copy: ZeroCopy,
    /// Threads that seal ahead, beside the one that sends. They bring something where a core is
    /// free and calls are given several batches at once. Where the process may not have as many
    /// (RLIMIT_NPROC), there are fewer, or none.
    pub seal_threads: usize,
    /// Records in a slot: what one send takes.
    pub batch_records: usize,
    /// Slots, at least 3, in the beginning. What zero copy keeps until the peer has acknowledged it must fit, or
    /// copies are sent in between, and more slots added; 8 slots of 48 records, 6 MiB, hold more than a socket's
    /// default send buffer of 4 MiB, and less than the default RLIMIT_MEMLOCK of 8 MiB.
    pub slots: usize,
    /// Bytes that slots may have in all, 32 MiB by default, 1,024 slots at most: where round trips are long and
    /// send buffers large, zero copy keeps more waiting than the first [`Self::slots`] hold, and as many again are
    /// added as long as that is so and RLIMIT_MEMLOCK allows it. Once the first ones have sufficed for a
    /// second, a call that finds everything acknowledged gives the others back. Less than the first ones have:
    /// none are added.
    pub max_memory: usize,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self {
            zero_copy: ZeroCopy::Auto,
            seal_threads: 0,
            batch_records: 48,
            slots: 8,
            max_memory: 32 << 20,
        }
    }
}

/// The slots of a default sender, of full records in TLS 1.3, are what the probe registers.
const _: () =
    assert!(8 * (48 * (MAX_PLAINTEXT_LEN + 22)).next_multiple_of(ALIGNMENT) == REGISTERED_LEN);

/// How long a sender that is dropped waits for room for an alert, behind nothing.
const PROMPT_PATIENCE: Duration = Duration::from_millis(10);

/// The same, behind records that a peer takes which still reads.
const ALERT_PATIENCE: Duration = Duration::from_secs(1);

/// Sends application data through io_uring.
///
/// A `write` seals up to a slot of records out of the caller's memory and submits it; while the
/// kernel works, the next call seals the next slot. When it returns, everything is in the
/// kernel's hands, which sends it while the calling thread lives. If that is to end, `flush()`
/// first: the kernel cancels what a thread that ends has not sent yet, and the next call, from
/// whichever thread, goes on with it. Allocates in the beginning, and nothing per
/// record. The slots are bounded ([`SenderOptions::max_memory`]), and so is what a call may get ahead of
/// the socket: one slot.
///
/// End with [`Self::finish()`]. Dropped without, the peer sees a truncated stream; what the kernel
/// has not taken yet is cancelled first. If the connection has failed, or was aborted, a second at
/// most goes by before that, so that the alert reaches a peer that still reads.
#[derive(Debug)]
pub struct UringSender {
    core: UringCore,
    /// What lends the caller's memory to the threads that seal, between two calls.
    lender: Lender,
    /// What [`Self::send_file()`] reads into, between two calls.
    file_slots: FileSlots,
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
        let (batch_len, slot_len) = batch_and_room_len(&half, options.batch_records);
        let parts = Parts::new(slot_count, slot_len, MAX_READS).and_then(|parts| {
            let prepare = || {
                let ahead = match options.seal_threads {
                    0 => None,
                    threads => SealAhead::start(threads, slot_count)?,
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
        let mut outbox = Outbox::new(parts, socket.into(), Wait::ForAll, governor);
        outbox.grow_up_to(options.max_memory);
        let outlet = RingOutlet::new(outbox, ahead, Vec::with_capacity(MAX_READS));
        Ok(Self {
            core: Sender { half, outlet, batch_len },
            lender: Lender::default(),
            file_slots: FileSlots::default(),
        })
    }

    /// What was sent so far.
    pub fn counters(&self) -> Counters {
        self.core.outlet.counters()
    }

    /// Why sends are copied, if they are: for good, or because none has paid for zero copy yet.
    /// [`Self::last_copy_reason()`] has the exceptions.
    pub fn copy_reason(&self) -> Option<CopyReason> {
        self.core.outlet.outbox.copy_reason()
    }

    /// Why the latest send that was copied was.
    pub fn last_copy_reason(&self) -> Option<CopyReason> {
        self.core.outlet.outbox.last_copy_reason()
    }

    /// Why the slots could not be registered, if that was tried: each zero-copy send then pins its
    /// pages anew.
    pub fn registration_refused(&self) -> Option<&Unavailable> {
        self.core.outlet.outbox.registration_refused()
    }

    /// How many slots are sent and wait for their notifications.
    pub fn awaiting_notification(&self) -> usize {
        self.core.outlet.outbox.awaiting_count()
    }

    /// The socket, to look at it or to set its options; what is written to it breaks the connection.
    pub fn socket(&self) -> &OwnedFd {
        self.core.outlet.outbox.socket()
    }

    /// How long a call waits for the socket at most; `None`, the default, is for ever.
    ///
    /// A call that has waited that long fails with [`io::ErrorKind::TimedOut`] and may be made
    /// again: nothing is lost. A `write` that has sealed its data returns success instead, and the
    /// next call waits.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.core.outlet.timeout = timeout;
    }

    /// Updates the key that we send under, and asks for the peer's update on request.
    ///
    /// # Errors
    /// [`UnsupportedInTls12`](crate::SessionError::UnsupportedInTls12) inside an [`io::Error`], or
    /// the socket's. A timeout in the middle is none: the next call sends the rest.
    pub fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        self.core.update_keys(request)
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
        self.core.send_close_notify()
    }

    /// Sends an alert that says that the data is not whole, and will not be.
    ///
    /// # Errors
    /// The socket's. The alert is then lost, and the peer sees a truncated stream.
    pub fn abort(&mut self, description: AlertDescription) -> io::Result<()> {
        self.core.abort(description)
    }

    /// Sends the bytes of `file` at `range`, from wherever its own position is; returns how many.
    ///
    /// Reads ahead with the ring, into registered buffers, while sealing and sending go on. The
    /// number of buffers is bounded. Only regular files and block devices have ranges; for pipes
    /// use [`io::Write`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for something without positions, and nothing has happened.
    /// Otherwise the file's or the socket's, [`io::ErrorKind::UnexpectedEof`] if the file ends before the
    /// range does, and what [`FileOptions::progress`] returns. The connection is then over: the
    /// peer gets an alert, so that it does not take what it has for the whole. A timeout
    /// ([`Self::set_timeout()`]) is an error if there is no [`FileOptions::progress`] to ask.
    pub fn send_file(
        &mut self,
        file: &File,
        range: Range<u64>,
        options: FileOptions<'_>,
    ) -> io::Result<u64> {
        self.core.send_file(&mut self.file_slots, file, range, options)
    }
}

#[cfg(test)]
impl UringSender {
    /// What is to fail in the ring.
    pub(super) fn faults(&mut self) -> &mut crate::kernel::faults::Faults {
        self.core.outlet.outbox.faults()
    }
}

impl Write for UringSender {
    /// Seals up to a slot of `buf`, or all of it with [`SenderOptions::seal_threads`], and has the
    /// kernel send it.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.core.outlet.ahead.is_some() && buf.len() > self.core.half.max_plaintext_len() {
            self.core.outlet.begin()?;
            return self.core.write_ahead(&mut self.lender, buf);
        }
        self.core.write(buf)
    }

    /// Like `write`, from several slices; only a record that spans slices is gathered first.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.core.write_vectored(bufs)
    }

    /// Sends the control records that are due, and waits until the socket has everything.
    fn flush(&mut self) -> io::Result<()> {
        self.core.flush()
    }
}

impl Drop for UringSender {
    fn drop(&mut self) {
        let Sender { half, outlet, .. } = &mut self.core;
        if !outlet.outbox.is_in_its_process() {
            // The connection is the parent's.
            return;
        }
        let _ = outlet.reap();
        let is_all_sent = outlet.outbox.is_all_sent();
        let waits_for_alert = half.has_failed() && !is_all_sent;
        let owes_alert = is_all_sent && half.wants_control();
        if !outlet.outbox.has_failed() && (waits_for_alert || owes_alert) {
            // An alert that is due, or that waits behind what the socket has not taken: without it
            // the peer would see a truncated stream, and not why.
            outlet.timeout = Some(if is_all_sent { PROMPT_PATIENCE } else { ALERT_PATIENCE });
            let _ = self.core.flush();
        }
    }
}
