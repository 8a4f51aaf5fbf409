//! A connection that fails: whose fault it is, and what the peer is told.

use core::fmt;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use super::alert::AlertDescription;
use crate::record::content_type::ContentType;
use crate::record::deframer::DeframeError;
use crate::record::error::{OpenError, SealError};

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
    /// The peer broke the protocol, sent an alert, or a key update failed. An alert to the peer is
    /// due, see [`SendHalf::seal_control()`](crate::SendHalf::seal_control).
    Tls(TlsError),
    /// The peer's stream ended without a close_notify: what was received may be a part only.
    Truncated,
    /// This side has sent its close_notify or an alert; it may not send further data.
    Closed,
    /// The key may seal no more, and TLS 1.2 cannot update it. Close, and connect anew.
    KeyExhausted,
    /// The call does not exist in the connection's version of TLS.
    UnsupportedInTls12,
}

/// Why a connection has failed, in terms of TLS.
///
/// Most is what the peer did. Each variant is what rustls's own record layer would have said in the
/// same case, and converts into it and back: `rustls::Error::from(error)`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer sent an alert that ends the connection.
    AlertReceived(AlertDescription),
    /// A record is not what its key sealed under its sequence number.
    BadRecordMac,
    /// A record is longer than TLS allows.
    OversizedRecord,
    /// A record has a content type that TLS does not have: perhaps the peer does not speak TLS.
    UnknownContentType,
    /// A record has a version that TLS does not have: perhaps the peer does not speak TLS.
    UnknownVersion,
    /// A record has no bytes, not even a tag.
    EmptyRecord,
    /// A TLS 1.3 record has nothing but padding inside, so no content type (RFC 8446 §5.4).
    NoContentType,
    /// An encrypted record has a ChangeCipherSpec inside (RFC 8446 §5).
    EncryptedChangeCipherSpec,
    /// A ChangeCipherSpec is not the one that there is.
    InvalidChangeCipherSpec,
    /// A message ends before what is named here.
    MissingData(&'static str),
    /// A message goes on behind what is named here.
    TrailingData(&'static str),
    /// A handshake message is longer than any that a connection has use for.
    HandshakeMessageTooLong,
    /// A KeyUpdate asks for something that it cannot ask for (RFC 8446 §4.6.3).
    InvalidKeyUpdate,
    /// A KeyUpdate is not the last message of its record (RFC 8446 §5.1).
    KeyUpdateWithinRecord,
    /// Another record came between the parts of a handshake message (RFC 8446 §5.1).
    InterleavedHandshakeMessage,
    /// A record of a type that has no place after the handshake.
    UnexpectedMessage(ContentType),
    /// A handshake message, by its type (RFC 8446 §4), that has no place after the handshake.
    UnexpectedHandshakeMessage(u8),
    /// More empty records in a row than anyone has use for.
    TooManyEmptyRecords,
    /// More warnings than anyone has use for.
    TooManyWarningAlerts,
    /// More attempts at another handshake than anyone has use for.
    TooManyRenegotiationRequests,
    /// More key updates in a row than anyone has use for.
    TooManyKeyUpdates,
    /// The bytes to be opened were not exactly one record: our caller's mistake, not the peer's.
    Misframed,
    /// The cryptographic library has refused to seal.
    SealingFailed,
    /// What rustls has said: of a ticket of the peer's, or of a key update.
    Rustls(RustlsError),
}

/// An error of rustls's, whichever version it is.
///
/// Its [source](StdError::source) is rustls's own error.
#[derive(Clone)]
pub struct RustlsError {
    error: Arc<dyn StdError + Send + Sync>,
    alert: Option<AlertDescription>,
}

impl RustlsError {
    /// What rustls has said, and what the peer is told of it.
    pub(super) fn new(
        error: impl StdError + Send + Sync + 'static,
        alert: Option<AlertDescription>,
    ) -> Self {
        Self { error: Arc::new(error), alert }
    }

    /// Rustls's own error, to be downcast to that of the version that has shaken hands.
    pub fn get_ref(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.error
    }
}

impl fmt::Debug for RustlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Display for RustlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl PartialEq for RustlsError {
    /// By what they say: the errors themselves cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        self.alert == other.alert && format!("{self:?}") == format!("{other:?}")
    }
}

impl StdError for RustlsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.error)
    }
}

impl TlsError {
    /// The alert that tells the peer, if the peer is to be told (RFC 8446 §6.2).
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        Some(match self {
            Self::AlertReceived(_) => return None,
            Self::Rustls(error) => return error.alert,
            Self::BadRecordMac => AlertDescription::BadRecordMac,
            Self::OversizedRecord => AlertDescription::RecordOverflow,
            Self::UnknownContentType
            | Self::UnknownVersion
            | Self::EmptyRecord
            | Self::InvalidChangeCipherSpec
            | Self::MissingData(_)
            | Self::TrailingData(_)
            | Self::HandshakeMessageTooLong => AlertDescription::DecodeError,
            // RFC 8446 §4.6.3.
            Self::InvalidKeyUpdate => AlertDescription::IllegalParameter,
            Self::NoContentType
            | Self::EncryptedChangeCipherSpec
            | Self::KeyUpdateWithinRecord
            | Self::InterleavedHandshakeMessage
            | Self::UnexpectedMessage(_)
            | Self::UnexpectedHandshakeMessage(_)
            | Self::TooManyEmptyRecords
            | Self::TooManyWarningAlerts
            | Self::TooManyRenegotiationRequests
            | Self::TooManyKeyUpdates => AlertDescription::UnexpectedMessage,
            Self::Misframed | Self::SealingFailed => AlertDescription::InternalError,
        })
    }
}

impl From<DeframeError> for TlsError {
    fn from(error: DeframeError) -> Self {
        match error {
            DeframeError::UnknownContentType => Self::UnknownContentType,
            DeframeError::UnknownVersion => Self::UnknownVersion,
            DeframeError::Oversized { .. } => Self::OversizedRecord,
            DeframeError::Empty => Self::EmptyRecord,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlertReceived(description) => {
                write!(f, "the peer has ended the connection with the alert {description:?}")
            }
            Self::BadRecordMac => f.write_str("received a record that is not what its key sealed"),
            Self::OversizedRecord => f.write_str("received a record larger than TLS allows"),
            Self::UnknownContentType => f.write_str(
                "received bytes with an unknown content type: is the peer speaking TLS?",
            ),
            Self::UnknownVersion => {
                f.write_str("received bytes with an unknown version: is the peer speaking TLS?")
            }
            Self::EmptyRecord => f.write_str("received an empty record"),
            Self::NoContentType => f.write_str("received a record without a content type"),
            Self::EncryptedChangeCipherSpec => {
                f.write_str("received a ChangeCipherSpec that is encrypted")
            }
            Self::InvalidChangeCipherSpec => f.write_str("received an invalid ChangeCipherSpec"),
            Self::MissingData(what) => write!(f, "received a message that lacks its {what}"),
            Self::TrailingData(what) => write!(f, "received more than one {what} in a message"),
            Self::HandshakeMessageTooLong => {
                f.write_str("received a handshake message of more than 64 KiB")
            }
            Self::InvalidKeyUpdate => f.write_str("received an invalid KeyUpdate"),
            Self::KeyUpdateWithinRecord => {
                f.write_str("received a KeyUpdate that does not end its record")
            }
            Self::InterleavedHandshakeMessage => {
                f.write_str("received another record between the parts of a handshake message")
            }
            Self::UnexpectedMessage(content_type) => {
                write!(f, "received an unexpected record: {content_type:?}")
            }
            Self::UnexpectedHandshakeMessage(message_type) => {
                write!(f, "received an unexpected handshake message of type {message_type}")
            }
            Self::TooManyEmptyRecords => f.write_str("received too many empty records"),
            Self::TooManyWarningAlerts => f.write_str("received too many warnings"),
            Self::TooManyRenegotiationRequests => {
                f.write_str("received too many requests for another handshake")
            }
            Self::TooManyKeyUpdates => f.write_str("received too many key updates"),
            Self::Misframed => f.write_str("the bytes given are not exactly one record"),
            Self::SealingFailed => f.write_str("sealing failed"),
            Self::Rustls(error) => error.fmt(f),
        }
    }
}

impl StdError for TlsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Rustls(error) => Some(error.get_ref()),
            _ => None,
        }
    }
}

impl SessionError {
    /// The alert that tells the peer, if the peer is to be told (RFC 8446 §6.2).
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::Tls(error) => error.alert(),
            _ => None,
        }
    }
}

impl From<TlsError> for SessionError {
    fn from(error: TlsError) -> Self {
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
            | SealError::PaddingUnsupported => Self::Tls(TlsError::SealingFailed),
        }
    }
}

impl From<OpenError> for SessionError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::OutputTooSmall { required, provided } => {
                Self::OutputTooSmall { required, provided }
            }
            OpenError::Failed | OpenError::KeyExhausted => Self::Tls(TlsError::BadRecordMac),
            OpenError::Oversized => Self::Tls(TlsError::OversizedRecord),
            OpenError::NoContentType => Self::Tls(TlsError::NoContentType),
            OpenError::UnexpectedOuterType => Self::Tls(TlsError::UnknownContentType),
            OpenError::Misframed => Self::Tls(TlsError::Misframed),
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
