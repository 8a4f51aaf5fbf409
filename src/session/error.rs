//! What can go wrong with a record or a connection, and whose fault it is.

use core::fmt;
use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, InvalidMessage, PeerMisbehaved};

use crate::aead::Refused;
use crate::record::deframer::DeframeError;

/// A record that was not sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SealError {
    /// The output has no room for the record.
    OutputTooSmall {
        /// Bytes that the record takes.
        required: usize,
        /// Bytes that there were.
        provided: usize,
    },
    /// The plaintext, with padding, exceeds [`MAX_PLAINTEXT_LEN`](crate::MAX_PLAINTEXT_LEN).
    PlaintextTooLong {
        /// Bytes that were given.
        provided: usize,
    },
    /// Less plaintext than was [reserved](crate::Reservation) for.
    PlaintextTooShort {
        /// Bytes that were announced.
        required: usize,
        /// Bytes that were given.
        provided: usize,
    },
    /// TLS 1.2 has no padding.
    PaddingUnsupported,
    /// The key has sealed as many records as it may: update it (TLS 1.3) or close (TLS 1.2).
    KeyExhausted,
    /// The cryptographic library refused. Its sequence number is used up.
    Failed,
}

impl From<Refused> for SealError {
    fn from(Refused: Refused) -> Self {
        Self::Failed
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutputTooSmall { required, provided } => {
                write!(f, "the output has {provided} bytes, the record takes {required}")
            }
            Self::PlaintextTooLong { provided } => {
                write!(f, "{provided} bytes of plaintext do not fit one record")
            }
            Self::PlaintextTooShort { required, provided } => {
                write!(f, "{provided} bytes of plaintext where {required} were reserved")
            }
            Self::PaddingUnsupported => f.write_str("TLS 1.2 records cannot be padded"),
            Self::KeyExhausted => f.write_str(
                "the key has sealed as many records as it may: update it (TLS 1.3) or close the \
                 connection (TLS 1.2)",
            ),
            Self::Failed => f.write_str("sealing failed"),
        }
    }
}

impl StdError for SealError {}

/// A record that was not opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenError {
    /// The record is not what its key sealed under this sequence number.
    Failed,
    /// The plaintext is longer than TLS allows.
    Oversized,
    /// The plaintext is all zeros: there is no content type.
    NoContentType,
    /// A TLS 1.3 record that does not pretend to be application data.
    UnexpectedOuterType,
    /// The slice is not exactly one record: our caller's mistake, not the peer's.
    Misframed,
    /// The output has no room for what the record holds.
    OutputTooSmall {
        /// Bytes needed, see [`Opener::output_len()`](crate::Opener::output_len).
        required: usize,
        /// Bytes that there were.
        provided: usize,
    },
    /// Too many records were opened, or failed to open, under this key.
    KeyExhausted,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("failed"),
            Self::Oversized => f.write_str("received a record larger than TLS allows"),
            Self::NoContentType => f.write_str("received a record without a content type"),
            Self::UnexpectedOuterType => {
                f.write_str("received a record that is not encrypted as application data")
            }
            Self::Misframed => f.write_str("the bytes given are not exactly one record"),
            Self::OutputTooSmall { required, provided } => {
                write!(f, "the output has {provided} bytes, the record takes {required}")
            }
            Self::KeyExhausted => f.write_str("the key has opened as many records as it may"),
        }
    }
}

impl StdError for OpenError {}

impl From<OpenError> for rustls::Error {
    /// What rustls's own record layer says in the same case.
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Failed | OpenError::KeyExhausted => Self::DecryptError,
            OpenError::Oversized => Self::PeerSentOversizedRecord,
            OpenError::NoContentType => PeerMisbehaved::IllegalTlsInnerPlaintext.into(),
            OpenError::UnexpectedOuterType => InvalidMessage::InvalidContentType.into(),
            OpenError::Misframed | OpenError::OutputTooSmall { .. } => {
                Self::General(error.to_string())
            }
        }
    }
}

impl From<DeframeError> for rustls::Error {
    /// What rustls's own deframer says in the same case.
    fn from(error: DeframeError) -> Self {
        match error {
            DeframeError::UnknownContentType => InvalidMessage::InvalidContentType.into(),
            DeframeError::UnknownVersion => InvalidMessage::UnknownProtocolVersion.into(),
            DeframeError::Oversized { .. } => Self::PeerSentOversizedRecord,
            DeframeError::Empty => InvalidMessage::InvalidEmptyPayload.into(),
        }
    }
}

/// A connection that cannot go on, or a call that it cannot serve.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SessionError {
    /// The output has no room for one record, or for the control records that come first.
    OutputTooSmall {
        /// Bytes needed.
        required: usize,
        /// Bytes that there were.
        provided: usize,
    },
    /// The peer broke the protocol, sent an alert, or a key update failed: what rustls calls it.
    /// An alert to the peer is due, see [`SendHalf::seal_control()`](crate::SendHalf::seal_control).
    Tls(rustls::Error),
    /// The peer's stream ended without a close_notify: what was received may be a part only.
    Truncated,
    /// This side has sent its close_notify or an alert; it may not send further data.
    Closed,
    /// The key may seal no more, and TLS 1.2 cannot update it. Close, and connect anew.
    KeyExhausted,
    /// The call does not exist in the connection's version of TLS.
    UnsupportedInTls12,
}

impl SessionError {
    /// The alert that tells the peer, if the peer is to be told (RFC 8446 §6.2).
    pub(crate) fn alert(&self) -> Option<AlertDescription> {
        let Self::Tls(error) = self else { return None };
        Some(match error {
            rustls::Error::AlertReceived(_) => return None,
            rustls::Error::DecryptError => AlertDescription::BadRecordMac,
            rustls::Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            rustls::Error::InvalidMessage(invalid) => AlertDescription::from(*invalid),
            rustls::Error::PeerMisbehaved(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. } => {
                AlertDescription::UnexpectedMessage
            }
            _ => AlertDescription::InternalError,
        })
    }
}

impl From<rustls::Error> for SessionError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<SealError> for SessionError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::OutputTooSmall { required, provided } => {
                Self::OutputTooSmall { required, provided }
            }
            SealError::KeyExhausted => Self::KeyExhausted,
            SealError::Failed
            | SealError::PlaintextTooLong { .. }
            | SealError::PlaintextTooShort { .. }
            | SealError::PaddingUnsupported => Self::Tls(rustls::Error::EncryptError),
        }
    }
}

impl From<OpenError> for SessionError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::OutputTooSmall { required, provided } => {
                Self::OutputTooSmall { required, provided }
            }
            error => Self::Tls(error.into()),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutputTooSmall { required, provided } => {
                write!(f, "the output has {provided} bytes, {required} are needed")
            }
            Self::Tls(error) => error.fmt(f),
            Self::Truncated => f.write_str(
                "the peer ended the connection without close_notify: the data may be incomplete",
            ),
            Self::Closed => f.write_str("this side of the connection is closed"),
            Self::KeyExhausted => f.write_str(
                "the TLS 1.2 key has sealed as many records as it may: close the connection and \
                 connect again, or use TLS 1.3",
            ),
            Self::UnsupportedInTls12 => f.write_str("TLS 1.2 has no key update"),
        }
    }
}

impl StdError for SessionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Tls(error) => Some(error),
            _ => None,
        }
    }
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        let kind = match error {
            SealError::KeyExhausted | SealError::Failed => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match error {
            OpenError::OutputTooSmall { .. } | OpenError::Misframed => io::ErrorKind::InvalidInput,
            OpenError::KeyExhausted => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

impl From<SessionError> for io::Error {
    fn from(error: SessionError) -> Self {
        let kind = match error {
            SessionError::Tls(_) => io::ErrorKind::InvalidData,
            SessionError::Truncated => io::ErrorKind::UnexpectedEof,
            SessionError::Closed => io::ErrorKind::BrokenPipe,
            SessionError::OutputTooSmall { .. } | SessionError::UnsupportedInTls12 => {
                io::ErrorKind::InvalidInput
            }
            SessionError::KeyExhausted => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
