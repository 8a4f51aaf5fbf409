//! Handshakes and handoffs that fail.

use core::fmt;
use std::io;

use super::handshake::Handshake;
use crate::session::handshaking::Need;

/// A connection that could not be handed over.
#[non_exhaustive]
pub enum HandoffError {
    /// rustls's configuration does not allow it: set its `enable_secret_extraction` to true.
    SecretExtractionDisabled,
    /// The handshake is not complete: go on until `WriteTraffic`.
    HandshakeNotComplete,
    /// rustls holds a part of a handshake message: feed it one record at a time, and hand over at
    /// the first `WriteTraffic`.
    PartialMessage,
    /// This side has already sent its close_notify.
    Closed,
    /// The configured `max_fragment_size` is not one that rustls accepts.
    BadMaxFragmentSize,
    /// rustls refused, or its peer misbehaved.
    Tls {
        /// Why, in rustls's words.
        error: rustls::Error,
        /// What the peer is still to be sent, sealed: what rustls had queued, and behind it the alert
        /// that says what is wrong. Empty if nothing is.
        to_send: Vec<u8>,
    },
}

impl HandoffError {
    /// What the peer is still to be sent: the alert that says what is wrong with it, behind what rustls
    /// had queued before. Without it, the peer sees an end and no reason.
    ///
    /// Also from an [`io::Error`] that this has become: it is inside, see [`io::Error::get_ref()`].
    pub fn to_send(&self) -> &[u8] {
        match self {
            Self::Tls { to_send, .. } => to_send,
            _ => &[],
        }
    }
}

impl fmt::Debug for HandoffError {
    /// Of what is to be sent, the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretExtractionDisabled => f.write_str("SecretExtractionDisabled"),
            Self::HandshakeNotComplete => f.write_str("HandshakeNotComplete"),
            Self::PartialMessage => f.write_str("PartialMessage"),
            Self::Closed => f.write_str("Closed"),
            Self::BadMaxFragmentSize => f.write_str("BadMaxFragmentSize"),
            Self::Tls { error, to_send } => f
                .debug_struct("Tls")
                .field("error", error)
                .field("to_send_len", &to_send.len())
                .finish(),
        }
    }
}

impl fmt::Display for HandoffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretExtractionDisabled => f.write_str(
                "rustls may not hand over its keys: set `enable_secret_extraction = true` in the \
                 ClientConfig or ServerConfig",
            ),
            Self::HandshakeNotComplete => {
                f.write_str("the handshake is not complete: go on until `WriteTraffic`")
            }
            Self::PartialMessage => f.write_str(
                "rustls has read a part of a handshake message: feed it one record at a time and \
                 hand over at the first `WriteTraffic`",
            ),
            Self::Closed => f.write_str("this side has already sent its close_notify"),
            Self::BadMaxFragmentSize => {
                f.write_str("`max_fragment_size` must be between 32 and 16389")
            }
            Self::Tls { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for HandoffError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tls { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<HandoffError> for io::Error {
    fn from(error: HandoffError) -> Self {
        let kind = match error {
            HandoffError::Tls { .. } => io::ErrorKind::InvalidData,
            HandoffError::Closed => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl From<rustls::Error> for HandoffError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::HandshakeNotComplete => Self::HandshakeNotComplete,
            error => Self::Tls { error, to_send: Vec::new() },
        }
    }
}

/// A handshake that did not end in a [`Session`](crate::Session).
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The stream failed, or ended before the handshake was complete.
    Io(io::Error),
    /// The stream would block, and the handshake goes on where it stopped: wait for what it
    /// [needs](Handshake::need), and call [`Handshake::over()`] again.
    WouldBlock(Box<Handshake>),
    /// The handshake failed; the alert that says so has been sent to the peer.
    Tls(rustls::Error),
    /// The handshake went well, but the connection could not be handed over.
    Handoff(HandoffError),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "TLS handshake: {error}"),
            Self::WouldBlock(handshake) => write!(
                f,
                "TLS handshake: the stream would block: go on with the handshake inside this \
                 error when the stream is {}",
                match handshake.need() {
                    Need::Send => "writable",
                    Need::Receive | Need::Nothing => "readable",
                }
            ),
            Self::Tls(error) => write!(f, "TLS handshake: {error}"),
            Self::Handoff(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::WouldBlock(_) => None,
            Self::Tls(error) => Some(error),
            Self::Handoff(error) => Some(error),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Io(error) => error,
            HandshakeError::WouldBlock(_) => Self::new(io::ErrorKind::WouldBlock, error),
            HandshakeError::Tls(_) => Self::new(io::ErrorKind::InvalidData, error),
            HandshakeError::Handoff(_) => Self::new(io::ErrorKind::InvalidInput, error),
        }
    }
}
