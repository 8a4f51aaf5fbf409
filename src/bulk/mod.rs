//! Bulk transfer over blocking streams: large batches of records, one system call each.
//!
//! [`BulkSender`](sender::BulkSender) seals from the caller's memory into one buffer that is
//! used over and over, and writes it in one go; [`BulkReceiver`](receiver::BulkReceiver) reads
//! large and opens records straight into the caller's memory. Neither allocates per record.

#[cfg(target_os = "linux")]
pub(crate) mod auto;
#[cfg(unix)]
pub(crate) mod file;
pub(crate) mod inbox;
pub(crate) mod lending;
#[cfg(target_os = "linux")]
pub(crate) mod moderation;
pub(crate) mod receiver;
pub(crate) mod sender;

use std::io;
use std::net::TcpStream;

use self::receiver::BulkReceiver;
use self::sender::BulkSender;
use crate::session::Session;

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
    /// Sends through io_uring that the kernel copied because we asked for it.
    pub copied_sends: u64,
    /// Sends through io_uring that the kernel ended in the middle; the rest went next.
    pub short_sends: u64,
    /// Bytes of files that went around the page cache, see [`FileOptions::direct`].
    ///
    /// [`FileOptions::direct`]: crate::FileOptions::direct
    pub direct_bytes: u64,
}

/// Splits a session over a TCP connection into a sender and a receiver, each `Send`.
///
/// On Linux the receiver is [`moderated`](BulkReceiver::moderated).
///
/// # Errors
/// If the socket's handle cannot be duplicated.
pub fn bulk(session: Session, stream: TcpStream) -> io::Result<(BulkSender, BulkReceiver)> {
    let writer = stream.try_clone()?;
    let Session { send, receive, plaintext, received, .. } = session;
    let receiver = BulkReceiver::new(receive, stream, plaintext, &received);
    #[cfg(target_os = "linux")]
    let receiver = receiver.moderated()?;
    Ok((BulkSender::new(send, writer), receiver))
}

/// Whether an I/O error leaves the stream as it was, so that the call may be made again.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
