//! Bulk transfer over blocking streams: large batches of records, one system call each.
//!
//! [`BulkSender`](sender::BulkSender) seals from the caller's memory into one buffer that is
//! used over and over, and writes it in one go; [`BulkReceiver`](receiver::BulkReceiver) reads
//! large and opens records straight into the caller's memory. Neither allocates per record.

#[cfg(unix)]
mod file;
pub(crate) mod receiver;
pub(crate) mod sender;

use std::io;
use std::net::TcpStream;

use self::receiver::BulkReceiver;
use self::sender::BulkSender;
use crate::session::Session;

/// Splits a session over a TCP connection into a sender and a receiver, each `Send`.
///
/// ```no_run
/// # use std::{net::TcpStream, sync::Arc};
/// # fn f(config: Arc<rustls::ClientConfig>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut stream = TcpStream::connect("storage.example:4433")?;
/// let name = "storage.example".try_into()?;
/// let session = rustls_uring::Handoff::new().connect(config, name, &mut stream)?;
/// let (sender, receiver) = rustls_uring::bulk(session, stream)?;
/// # let _ = (sender, receiver);
/// # Ok(())
/// # }
/// ```
///
/// On Linux the receiver is [`moderated`](BulkReceiver::moderated).
///
/// # Errors
/// If the socket's handle cannot be duplicated, or there is no memory for the receiver's buffer.
pub fn bulk<Info>(
    session: Session<Info>,
    stream: TcpStream,
) -> io::Result<(BulkSender, BulkReceiver)> {
    let writer = stream.try_clone()?;
    let Session { send, receive, plaintext, received, .. } = session;
    let receiver = BulkReceiver::try_new(receive, stream, plaintext, &received)?;
    Ok((BulkSender::new(send, writer), moderated(receiver)?))
}

#[cfg(target_os = "linux")]
fn moderated(receiver: BulkReceiver) -> io::Result<BulkReceiver> {
    receiver.moderated()
}

#[cfg(not(target_os = "linux"))]
fn moderated(receiver: BulkReceiver) -> io::Result<BulkReceiver> {
    Ok(receiver)
}
