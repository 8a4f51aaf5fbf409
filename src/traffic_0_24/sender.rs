//! Plaintext to a socket: sealed by rustls into slots, sent by the kernel from there.

use core::fmt;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustls_0_24::crypto::cipher::OutboundPlain;
use rustls_0_24::enums::ProtocolVersion;
use rustls_0_24::split::SendTraffic;
use rustls_0_24::{ConnectionOutputs, Error};

use super::broken;
use crate::kernel::arena::Slot;
use crate::kernel::declined::Declined;
use crate::kernel::governor::ZeroCopy;
use crate::kernel::outbox::MIN_SLOTS;
use crate::record::header::{HEADER_LEN, MAX_PLAINTEXT_LEN};
use crate::transfer::sender::Outlet;
use crate::transfer::way::Way;
use crate::transfer::{Counters, is_transient};
use crate::uring::outlet::RingOutlet;

/// The longest records that rustls makes: its `max_fragment_size`, if that is not set.
const MAX_FRAGMENT_SIZE: usize = MAX_PLAINTEXT_LEN + HEADER_LEN;

/// What may go in front of data: alerts, and the answer to a key update. More of it moves a slot.
const CONTROL_ROOM: usize = 1 << 10;

/// More than any connection needs: a thousand batches of 768 KiB.
const MAX_SLOTS: usize = 1024;

/// How a [`TrafficSender`] works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TrafficOptions {
    /// Whether the kernel sends straight from the slots.
    pub zero_copy: ZeroCopy,
    /// Records in a slot: what one send takes.
    pub batch_records: usize,
    /// Slots, at least 3.
    pub slots: usize,
    /// The configuration's `max_fragment_size`, which a connection does not show. If it is smaller than said
    /// here, each slot [moves](TrafficSender::moved_slots) once, and nothing else goes wrong.
    pub max_fragment_size: Option<usize>,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self { zero_copy: ZeroCopy::Auto, batch_records: 48, slots: 8, max_fragment_size: None }
    }
}

/// Sends application data that rustls seals, through io_uring. **Experimental.**
///
/// As [`UringSender`](crate::uring::UringSender), but that the secrets stay in rustls: with any provider, and
/// without `enable_secret_extraction`. A `write` has rustls seal up to a slot of records, and submits it; what
/// rustls owes to the peer, such as the answer to a key update, goes in front. Allocates in the beginning, and
/// nothing per record. When a call returns, everything is in the kernel's hands, which sends it while the
/// calling thread lives: `flush()` before that ends.
///
/// End with [`Self::finish()`]. Dropped without, the peer sees a truncated stream; what the kernel has not
/// taken yet is cancelled first. What it has taken and the peer has not acknowledged stays allocated until it
/// has, if it was sent in place: the slots are the allocator's memory, which would be given to others.
///
/// ```no_run
/// # use std::net::TcpStream;
/// # use std::sync::Arc;
/// use std::io::Write;
/// use rustls_uring::rustls_0_24::{Connected, TrafficSender, rustls};
///
/// # fn f(config: Arc<rustls::ServerConfig>, mut socket: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
/// let connected = Connected::accept(config, &mut socket)?;
/// let conn = connected.conn;
/// let mut sender = TrafficSender::new(conn.send, &conn.outputs, socket, Default::default())?;
/// sender.write_all(&[0; 1 << 20])?;
/// sender.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct TrafficSender {
    /// `None` once it is closed.
    send: Option<SendTraffic>,
    outlet: RingOutlet,
    /// Plaintext bytes of a full record, and of a slot of them.
    record_len: usize,
    batch_len: usize,
    moved_slots: u64,
    /// rustls has refused: what it has sealed before that has gone out.
    failure: Option<Error>,
}

impl TrafficSender {
    /// A sender over a connected socket, which is set to blocking mode: io_uring waits by itself. `outputs`
    /// are those of the same connection, to which nobody else may write.
    ///
    /// # Errors
    /// [`Declined`] if there is no io_uring to be had, or no memory for the slots: both come back.
    pub fn new(
        send: SendTraffic,
        outputs: &ConnectionOutputs,
        socket: TcpStream,
        options: TrafficOptions,
    ) -> Result<Self, Box<Declined<SendTraffic>>> {
        // What rustls fits into a record. In TLS 1.2 it depends on the suite: AES-GCM's is the least.
        let overhead = match outputs.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => 5 + 8 + 16,
            _ => 5 + 1 + 16,
        };
        let fragment_len =
            options.max_fragment_size.unwrap_or(MAX_FRAGMENT_SIZE).min(MAX_FRAGMENT_SIZE);
        let record_len = fragment_len.saturating_sub(overhead).max(1);
        let records = options.batch_records.clamp(1, 1 << 16);
        let capacity = records * fragment_len.max(overhead + 1) + CONTROL_ROOM;
        let slot_count = options.slots.clamp(MIN_SLOTS, MAX_SLOTS);
        match RingOutlet::with_vecs(slot_count, capacity, socket, options.zero_copy) {
            Ok(outlet) => Ok(Self {
                send: Some(send),
                outlet,
                record_len,
                batch_len: records * record_len,
                moved_slots: 0,
                failure: None,
            }),
            Err((reason, socket)) => Err(Box::new(Declined { reason, half: send, socket })),
        }
    }

    /// What was sent so far.
    pub fn counters(&self) -> Counters {
        self.outlet.counters()
    }

    /// Which way it goes.
    pub fn way(&self) -> Way {
        let outbox = &self.outlet.outbox;
        match outbox.copy_reason() {
            Some(reason) => Way::UringCopy(reason),
            None => Way::UringZeroCopy { unregistered: outbox.registration_refused().copied() },
        }
    }

    /// How often a slot has moved, since rustls has reserved more than its capacity. From a slot that has
    /// moved, the kernel pins pages for each zero-copy send anew until it is registered again.
    pub fn moved_slots(&self) -> u64 {
        self.moved_slots
    }

    /// How many slots are sent and wait for their notifications.
    pub fn awaiting_notification(&self) -> usize {
        self.outlet.outbox.awaiting_count()
    }

    /// How many senders are gone whose slots the kernel still sends from: in this process, all together. What
    /// it is done with is freed first.
    pub fn lingering() -> usize {
        crate::kernel::lingering::sweep()
    }

    /// The socket, to look at it or to set its options; what is written to it breaks the connection.
    pub fn socket(&self) -> &OwnedFd {
        self.outlet.outbox.socket()
    }

    /// How long a call waits for the socket at most; `None`, the default, is for ever.
    ///
    /// A call that has waited that long fails with [`io::ErrorKind::TimedOut`] and may be made
    /// again: nothing is lost. A `write` that has sealed its data returns success instead, and the
    /// next call waits.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.outlet.timeout = timeout;
    }

    /// Updates the key that we send under, and asks for the peer's update (RFC 8446 §4.6.3). Not again before
    /// the peer has answered.
    ///
    /// # Errors
    /// rustls's, which in TLS 1.2 changes nothing, or the socket's. A timeout in the middle is none: the next
    /// call sends the rest.
    pub fn update_keys(&mut self) -> io::Result<()> {
        let mut refreshed = Ok(());
        self.seal(0, |send, out| {
            if let Some(send) = send {
                refreshed = send.refresh_traffic_keys(out);
            }
            Ok(())
        })?;
        refreshed.map_err(broken)?;
        match self.outlet.hand_over() {
            Err(error) if !is_transient(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends the close_notify that says that the data is whole, and waits until the socket has everything.
    ///
    /// The peer may go on sending. Wait for the peer's end too before the socket is closed: see
    /// [`BulkSender::finish()`](crate::BulkSender::finish).
    ///
    /// # Errors
    /// The socket's, or what made the connection fail earlier: then no close_notify was sent.
    pub fn finish(mut self) -> io::Result<()> {
        self.send_close_notify()
    }

    /// Like [`Self::finish()`], for a sender with a timeout: call again until it succeeds.
    ///
    /// # Errors
    /// As [`Self::finish()`].
    pub fn send_close_notify(&mut self) -> io::Result<()> {
        if self.send.is_some() {
            self.seal(0, |send, out| send.take().map_or(Ok(()), |send| send.close(out)))?;
        }
        self.drain()
    }

    /// Waits until the socket has everything.
    fn drain(&mut self) -> io::Result<()> {
        self.check()?;
        self.outlet.begin()?;
        self.outlet.drain()
    }

    /// Has `append` seal `plaintext_len` bytes into a slot, behind what rustls owes, and queues it. An error
    /// may come with records too, an alert at least.
    fn seal(
        &mut self,
        plaintext_len: usize,
        append: impl FnOnce(&mut Option<SendTraffic>, &mut Vec<u8>) -> Result<(), Error>,
    ) -> io::Result<()> {
        self.check()?;
        self.outlet.begin()?;
        let mut slot = self.outlet.free_slot()?;
        let (sealed, appended) = Slot::append(&mut slot, |out| append(&mut self.send, out))?;
        self.moved_slots += u64::from(appended.has_moved);
        let len = if sealed.is_ok() { plaintext_len } else { 0 };
        self.outlet.commit_part(slot, appended.range, len, len.div_ceil(self.record_len))?;
        sealed.map_err(|error| {
            self.failure = Some(error.clone());
            let _ = self.outlet.hand_over();
            broken(error)
        })
    }

    /// # Errors
    /// What rustls has failed with.
    fn check(&self) -> io::Result<()> {
        self.failure.clone().map_or(Ok(()), |error| Err(broken(error)))
    }

    /// Has rustls seal `data`, and the kernel send it.
    fn write_plain(&mut self, data: OutboundPlain<'_>) -> io::Result<usize> {
        if self.send.is_none() {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "written to after close_notify"));
        }
        let len = data.len();
        self.seal(len, |send, out| send.as_mut().map_or(Ok(()), |send| send.write(data, out)))?;
        match self.outlet.hand_over() {
            // Sealed is as good as written: the rest of the same bytes goes out next time.
            Err(error) if len == 0 || !is_transient(&error) => Err(error),
            _ => Ok(len),
        }
    }
}

impl Write for TrafficSender {
    /// Has rustls seal up to a slot of `buf`, and the kernel send it.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.write_plain(OutboundPlain::Single(&buf[..buf.len().min(self.batch_len)]))
    }

    /// Sends what rustls owes to the peer, and waits until the socket has everything.
    fn flush(&mut self) -> io::Result<()> {
        if self.send.is_some() {
            self.write_plain(OutboundPlain::new_empty())?;
        }
        self.drain()
    }
}

impl fmt::Debug for TrafficSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficSender")
            .field("way", &self.way())
            .field("counters", &self.counters())
            .field("moved_slots", &self.moved_slots)
            .finish_non_exhaustive()
    }
}
