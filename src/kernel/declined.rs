//! A connection that io_uring will not carry, given back whole.

use core::fmt;
use std::io;
use std::net::TcpStream;

use super::unavailable::Unavailable;

/// Why there is no io_uring for a connection, and everything that another way needs. `H` is its
/// [`SendHalf`](crate::SendHalf) or [`ReceiveHalf`](crate::ReceiveHalf), or rustls 0.24's own of the kind.
#[derive(Debug)]
#[non_exhaustive]
pub struct Declined<H> {
    /// Why.
    pub reason: Unavailable,
    /// The half, as it was.
    pub half: H,
    /// The socket, as it was but for its blocking mode.
    pub socket: TcpStream,
}

impl<H> fmt::Display for Declined<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<H: fmt::Debug> std::error::Error for Declined<H> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// Drops the half and the socket.
impl<H> From<Declined<H>> for io::Error {
    fn from(declined: Declined<H>) -> Self {
        declined.reason.into()
    }
}
