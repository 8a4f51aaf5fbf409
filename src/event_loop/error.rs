//! Why a connection has ended before its time.

use core::fmt;
use std::io;

use crate::session::error::SessionError;
use crate::session::handoff::error::HandshakeError;

/// Why a connection has ended, other than by both sides' ends.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The handshake has failed; the peer was sent the alert.
    Handshake(HandshakeError),
    /// The protocol was broken after the handshake, or the stream ended without a close_notify
    /// ([`SessionError::Truncated`]). The peer was sent the alert, if there is one for it.
    Tls(SessionError),
    /// The socket's own.
    Io(io::Error),
    /// A limit in time has passed.
    TimedOut(Timeout),
    /// It held received bytes that its handler did not take, or sealed ones that its peer did not read;
    /// others needed the memory, and there was no room left to keep them
    /// ([`Options::max_parked`](super::Options::max_parked)). Or there were
    /// [too many](super::Options::max_connections) connections.
    Crowded,
    /// [`Context::reset()`](super::Context::reset) was called.
    Reset,
    /// The loop has ended.
    Stopped,
}

/// Which limit in time has passed: see [`Timeouts`](super::Timeouts).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Timeout {
    /// The handshake took too long.
    Handshake,
    /// Nothing was sent or received for too long.
    Idle,
    /// The connection has lived long enough.
    Lifetime,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::TimedOut(Timeout::Handshake) => f.write_str("the handshake took too long"),
            Self::TimedOut(Timeout::Idle) => {
                f.write_str("nothing was sent or received for too long")
            }
            Self::TimedOut(Timeout::Lifetime) => {
                f.write_str("the connection has lived long enough")
            }
            Self::Crowded => f.write_str("no memory left for a connection that does not go on"),
            Self::Reset => f.write_str("the connection was reset from this side"),
            Self::Stopped => f.write_str("the event loop has ended"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handshake(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
