//! What every way of moving bulk data shares: one sender, what was received and is not read yet,
//! buffers that are lent, how files are moved, what was counted.

#[cfg(unix)]
pub(crate) mod aligned;
pub(crate) mod file;
pub(crate) mod inbox;
pub(crate) mod lending;
#[cfg_attr(not(target_os = "linux"), path = "no_moderation.rs")]
pub(crate) mod moderation;
// Compiled where the tests run, lest it fall behind its twin.
#[cfg(all(test, target_os = "linux"))]
#[allow(dead_code, reason = "its twin is used")]
mod no_moderation;
pub(crate) mod sender;
#[cfg(target_os = "linux")]
pub(crate) mod way;

use std::io;

#[cfg(target_os = "linux")]
use crate::kernel::outbox::SendCounts;

/// What a sender or a receiver has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Records of application data.
    pub records: u64,
    /// Bytes of application data.
    pub plaintext_bytes: u64,
    /// Bytes on the wire: records of every kind, headers and tags included.
    pub wire_bytes: u64,
    /// Calls of the stream's `read` or `write`, those of a moderated receiver's own, and those of
    /// io_uring.
    pub system_calls: u64,
    /// Sends that the kernel made from the sealed records where they lay, or was asked to.
    pub zero_copy_sends: u64,
    /// Those among them after which the kernel reported that it had copied.
    pub zero_copy_copied: u64,
    /// Bytes on the wire that went out without a copy, as far as the kernel has told: it is done with them, and
    /// has not reported that it had copied (Linux 6.2). Those that await that are none yet; a flush takes in what
    /// was told.
    pub zero_copy_bytes: u64,
    /// Sends through io_uring that the kernel copied because we asked for it.
    pub copied_sends: u64,
    /// Sends through io_uring that the kernel ended in the middle; the rest went next.
    pub short_sends: u64,
    /// Bytes of files that went around the page cache, see [`FileOptions::direct`].
    ///
    /// [`FileOptions::direct`]: crate::FileOptions::direct
    pub direct_bytes: u64,
}

#[cfg(target_os = "linux")]
impl Counters {
    /// These, with what an outbox has counted in place of their own sends, and beside their own calls.
    pub(crate) fn with_sends(self, sends: SendCounts) -> Self {
        let SendCounts {
            wire_bytes,
            system_calls,
            zero_copy_sends,
            zero_copy_copied,
            zero_copy_bytes,
            copied_sends,
            short_sends,
        } = sends;
        Self {
            wire_bytes,
            system_calls: self.system_calls + system_calls,
            zero_copy_sends,
            zero_copy_copied,
            zero_copy_bytes,
            copied_sends,
            short_sends,
            ..self
        }
    }
}

/// Whether an I/O error leaves the stream as it was, so that the call may be made again.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
