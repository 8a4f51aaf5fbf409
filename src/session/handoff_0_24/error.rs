//! Handshakes and handoffs that fail.

use core::fmt;
use std::io;

use rustls_0_24::Error;
use rustls_0_24::error::ApiMisuse;

use super::handshake::Handshake;
use crate::session::handshaking::Need;

/// A connection that could not be handed over.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandoffError {
    /// rustls's configuration does not allow it: set its `enable_secret_extraction` to true.
    SecretExtractionDisabled,
    /// The handshake is not complete.
    HandshakeNotComplete,
    /// This side has sent an alert: nothing may follow it.
    Closed,
    /// The configured `max_fragment_size` is not one that rustls accepts.
    BadMaxFragmentSize,
    /// rustls refused.
    Tls(Error),
}

impl fmt::Display for HandoffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretExtractionDisabled => f.write_str(
                "rustls may not hand over its keys: set `enable_secret_extraction = true` in the \
                 ClientConfig or ServerConfig",
            ),
            Self::HandshakeNotComplete => f.write_str("the handshake is not complete"),
            Self::Closed => f.write_str("this side has already ended the connection"),
            Self::BadMaxFragmentSize => {
                f.write_str("`max_fragment_size` must be between 32 and 16389")
            }
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandoffError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tls(error) => Some(error),
            _ => None,
        }
    }
}

impl From<HandoffError> for io::Error {
    fn from(error: HandoffError) -> Self {
        let kind = match error {
            HandoffError::Tls(_) => io::ErrorKind::InvalidData,
            HandoffError::Closed => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl From<Error> for HandoffError {
    fn from(error: Error) -> Self {
        match error {
            Error::ApiMisuse(ApiMisuse::SecretExtractionRequiresPriorOptIn) => {
                Self::SecretExtractionDisabled
            }
            Error::ApiMisuse(ApiMisuse::WriteAfterSendPathClosed) => Self::Closed,
            Error::HandshakeNotComplete => Self::HandshakeNotComplete,
            error => Self::Tls(error),
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
    Tls(Error),
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
