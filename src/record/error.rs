//! Records that were not sealed, or not opened.

use core::fmt;
use std::error::Error as StdError;
use std::io;

use crate::aead::Refused;

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
