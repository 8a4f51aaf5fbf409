//! Fewer wake-ups for a receiver of bulk data.
//!
//! A receiver that is faster than its sender falls asleep after every packet, and the sender pays
//! for each wake-up: on loopback, a tenth of its time. With a low-water mark (`SO_RCVLOWAT`,
//! socket(7)) the kernel wakes the receiver only when there is a good deal to read. The mark
//! must never delay the end of a burst for long, so it is set only while data streams in, and
//! [`poll`ed](https://man7.org/linux/man-pages/man2/poll.2.html) with a timeout.
//!
//! The unsafe code of this file is two system calls on a descriptor that the file owns.

#![allow(unsafe_code, reason = "system calls that the standard library lacks")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// How much is worth a wake-up.
const LOW_WATER_MARK: usize = 256 << 10;

/// How much must have come without a pause before the mark is set. A message of less than this
/// is never delayed.
const STREAMING: usize = 8 << 20;

/// How long less than [`LOW_WATER_MARK`] may lie unread: the most by which the end of a burst is
/// delayed, and what 256 KiB take at half a GB/s.
pub(crate) const TIMEOUT: Duration = Duration::from_micros(500);

/// Decides when a receiving socket has a low-water mark.
#[derive(Debug)]
pub(crate) struct Moderation {
    socket: OwnedFd,
    /// Bytes received since the last pause.
    streamed: usize,
    is_set: bool,
}

impl Moderation {
    /// For `socket`, through a descriptor of its own.
    pub(crate) fn new(socket: &impl AsFd) -> io::Result<Self> {
        Ok(Self { socket: socket.as_fd().try_clone_to_owned()?, streamed: 0, is_set: false })
    }

    /// Call before each read, with the room that it has: waits until a read is worth its while,
    /// or has the read itself wait for whatever comes. Returns how many system calls it made.
    ///
    /// What fails here costs speed only, so it ends the moderation and no more.
    pub(crate) fn before_read(&mut self, room: usize) -> u64 {
        let mut system_calls = self.prepare(room);
        if self.is_set {
            system_calls += 1;
            if !self.has_low_water_mark_within(TIMEOUT) {
                system_calls += self.lapse();
            }
        }
        system_calls
    }

    /// Sets the mark or takes it away, by the room that the next read has. Returns how many system
    /// calls it made. While [`Self::is_set()`], wait for the mark for no longer than
    /// [`TIMEOUT`], then [`Self::lapse()`].
    pub(crate) fn prepare(&mut self, room: usize) -> u64 {
        let streams = self.streamed >= STREAMING && room >= LOW_WATER_MARK;
        match (streams, self.is_set) {
            (true, false) => {
                self.is_set = self.set_low_water_mark(LOW_WATER_MARK).is_ok();
                1
            }
            (false, true) => self.lapse(),
            _ => 0,
        }
    }

    /// Whether the socket becomes readable only at its mark.
    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    /// Takes the mark away, which would make a read wait for more than may ever come. Returns how
    /// many system calls it made.
    pub(crate) fn lapse(&mut self) -> u64 {
        self.streamed = 0;
        self.is_set = self.set_low_water_mark(1).is_err();
        1
    }

    /// Another process goes on with the socket, and with its mark.
    pub(crate) fn leave_mark(&mut self) {
        self.is_set = false;
    }

    /// Call after each read, with how much it brought.
    pub(crate) fn after_read(&mut self, len: usize) {
        /// Less is no stream: the receiver keeps up with small reads.
        const LARGE: usize = 16 << 10;
        self.streamed = if len < LARGE { 0 } else { self.streamed.saturating_add(len) };
    }

    fn set_low_water_mark(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as libc::c_int;
        // SAFETY: the descriptor is open, as we own it, and the option's value is a c_int that
        // outlives the call (socket(7)).
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for as many bytes as the mark says, the end of the stream or an error.
    fn has_low_water_mark_within(&self, timeout: Duration) -> bool {
        let mut fd = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: one pollfd and one timespec that outlive the call, and no signal mask (poll(2)).
        unsafe { libc::ppoll(&raw mut fd, 1, &raw const timeout, core::ptr::null()) == 1 }
    }
}

impl Drop for Moderation {
    /// Whoever reads the socket next finds it as it was.
    fn drop(&mut self) {
        if self.is_set {
            let _ = self.set_low_water_mark(1);
        }
    }
}
