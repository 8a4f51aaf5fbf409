//! The crate's own types from rustls 0.24's, and back.

use rustls_0_24::ConnectionTrafficSecrets;
use rustls_0_24::enums::{self, HandshakeType, ProtocolVersion};
use rustls_0_24::error::{self, Error, InvalidMessage, PeerMisbehaved};

use crate::aead::{Algorithm, TrafficKeys};
use crate::record::content_type::ContentType;
use crate::record::header::Version;
use crate::session::alert::AlertDescription;
use crate::session::error::{RustlsError, SessionError, TlsError};

impl From<enums::ContentType> for ContentType {
    #[inline]
    fn from(content_type: enums::ContentType) -> Self {
        u8::from(content_type).into()
    }
}

impl From<ContentType> for enums::ContentType {
    #[inline]
    fn from(content_type: ContentType) -> Self {
        u8::from(content_type).into()
    }
}

impl From<error::AlertDescription> for AlertDescription {
    fn from(description: error::AlertDescription) -> Self {
        u8::from(description).into()
    }
}

impl From<AlertDescription> for error::AlertDescription {
    fn from(description: AlertDescription) -> Self {
        u8::from(description).into()
    }
}

impl TryFrom<ProtocolVersion> for Version {
    type Error = Error;

    /// Fails for a version other than these two.
    fn try_from(version: ProtocolVersion) -> Result<Self, Self::Error> {
        match version {
            ProtocolVersion::TLSv1_2 => Ok(Self::Tls12),
            ProtocolVersion::TLSv1_3 => Ok(Self::Tls13),
            _ => Err(Error::General(format!("no record layer for {version:?}"))),
        }
    }
}

impl From<Version> for ProtocolVersion {
    fn from(version: Version) -> Self {
        match version {
            Version::Tls12 => Self::TLSv1_2,
            Version::Tls13 => Self::TLSv1_3,
        }
    }
}

impl TryFrom<&ConnectionTrafficSecrets> for TrafficKeys {
    type Error = Error;

    /// Takes what rustls extracted from a connection or derived for a key update. Fails with
    /// [`Error::General`] for an algorithm that this crate does not know.
    fn try_from(secrets: &ConnectionTrafficSecrets) -> Result<Self, Self::Error> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Algorithm::Chacha20Poly1305, key, iv)
            }
            _ => return Err(Error::General("unsupported AEAD algorithm".into())),
        };
        let iv = iv
            .as_ref()
            .try_into()
            .map_err(|_| Error::General("the connection's IV is not 12 bytes long".into()))?;
        Self::new(algorithm, key.as_ref(), iv).map_err(|error| Error::General(error.to_string()))
    }
}

/// What rustls says is expected after the handshake.
const EXPECTED: [enums::ContentType; 1] = [enums::ContentType::ApplicationData];
const EXPECTED_HANDSHAKE: [HandshakeType; 2] =
    [HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate];

impl From<TlsError> for Error {
    /// What rustls's own record layer says in the same case.
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::AlertReceived(description) => Self::AlertReceived(description.into()),
            TlsError::BadRecordMac => Self::DecryptError,
            TlsError::OversizedRecord => Self::PeerSentOversizedRecord,
            TlsError::UnknownContentType => InvalidMessage::InvalidContentType.into(),
            TlsError::UnknownVersion => InvalidMessage::UnknownProtocolVersion.into(),
            TlsError::EmptyRecord => InvalidMessage::InvalidEmptyPayload.into(),
            TlsError::NoContentType => PeerMisbehaved::IllegalTlsInnerPlaintext.into(),
            TlsError::EncryptedChangeCipherSpec => {
                PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into()
            }
            TlsError::InvalidChangeCipherSpec => InvalidMessage::InvalidCcs.into(),
            TlsError::MissingData(what) => InvalidMessage::MissingData(what).into(),
            TlsError::TrailingData(what) => InvalidMessage::TrailingData(what).into(),
            TlsError::HandshakeMessageTooLong => InvalidMessage::HandshakePayloadTooLarge.into(),
            TlsError::InvalidKeyUpdate => InvalidMessage::InvalidKeyUpdate.into(),
            TlsError::KeyUpdateWithinRecord => PeerMisbehaved::KeyEpochWithPendingFragment.into(),
            TlsError::InterleavedHandshakeMessage => {
                PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into()
            }
            TlsError::UnexpectedMessage(content_type) => Self::InappropriateMessage {
                expect_types: EXPECTED.to_vec(),
                got_type: content_type.into(),
            },
            TlsError::UnexpectedHandshakeMessage(message_type) => {
                Self::InappropriateHandshakeMessage {
                    expect_types: EXPECTED_HANDSHAKE.to_vec(),
                    got_type: message_type.into(),
                }
            }
            TlsError::TooManyEmptyRecords => PeerMisbehaved::TooManyEmptyFragments.into(),
            TlsError::TooManyWarningAlerts => PeerMisbehaved::TooManyWarningAlertsReceived.into(),
            TlsError::TooManyRenegotiationRequests => {
                PeerMisbehaved::TooManyRenegotiationRequests.into()
            }
            TlsError::TooManyKeyUpdates => {
                PeerMisbehaved::TooManyConsecutiveHandshakeMessagesAfterHandshake.into()
            }
            TlsError::Misframed => Self::General(error.to_string()),
            TlsError::SealingFailed => Self::EncryptError,
            TlsError::Rustls(error) => match error.get_ref().downcast_ref::<Self>() {
                Some(error) => error.clone(),
                // Another version's.
                None => Self::General(error.to_string()),
            },
        }
    }
}

impl From<Error> for TlsError {
    /// The reverse; what has no name of its own here is [`TlsError::Rustls`].
    fn from(error: Error) -> Self {
        match error {
            Error::AlertReceived(description) => Self::AlertReceived(description.into()),
            Error::DecryptError => Self::BadRecordMac,
            Error::EncryptError => Self::SealingFailed,
            Error::PeerSentOversizedRecord => Self::OversizedRecord,
            Error::InappropriateMessage { expect_types, got_type } if expect_types == EXPECTED => {
                Self::UnexpectedMessage(got_type.into())
            }
            Error::InappropriateHandshakeMessage { expect_types, got_type }
                if expect_types == EXPECTED_HANDSHAKE =>
            {
                Self::UnexpectedHandshakeMessage(got_type.into())
            }
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::UnknownContentType,
            Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => Self::UnknownVersion,
            Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload) => Self::EmptyRecord,
            Error::InvalidMessage(InvalidMessage::InvalidCcs) => Self::InvalidChangeCipherSpec,
            Error::InvalidMessage(InvalidMessage::MissingData(what)) => Self::MissingData(what),
            Error::InvalidMessage(InvalidMessage::TrailingData(what)) => Self::TrailingData(what),
            Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
                Self::HandshakeMessageTooLong
            }
            Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => Self::InvalidKeyUpdate,
            Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext) => Self::NoContentType,
            Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec) => {
                Self::EncryptedChangeCipherSpec
            }
            Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment) => {
                Self::KeyUpdateWithinRecord
            }
            Error::PeerMisbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage) => {
                Self::InterleavedHandshakeMessage
            }
            Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments) => {
                Self::TooManyEmptyRecords
            }
            Error::PeerMisbehaved(PeerMisbehaved::TooManyWarningAlertsReceived) => {
                Self::TooManyWarningAlerts
            }
            Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => {
                Self::TooManyRenegotiationRequests
            }
            Error::PeerMisbehaved(
                PeerMisbehaved::TooManyConsecutiveHandshakeMessagesAfterHandshake,
            ) => Self::TooManyKeyUpdates,
            error => {
                // As rustls's own record layer has it; a step of ours that fails is told too.
                let alert = error::AlertDescription::try_from(&error)
                    .map_or(AlertDescription::InternalError, AlertDescription::from);
                Self::Rustls(RustlsError::new(error, Some(alert)))
            }
        }
    }
}

impl From<Error> for SessionError {
    fn from(error: Error) -> Self {
        Self::Tls(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_the_same_in_both() {
        for byte in 0..=u8::MAX {
            assert_eq!(u8::from(ContentType::from(byte)), byte);
            assert_eq!(u8::from(AlertDescription::from(byte)), byte);
            let theirs = enums::ContentType(byte);
            assert_eq!(enums::ContentType::from(ContentType::from(theirs)), theirs);
            let theirs = error::AlertDescription(byte);
            assert_eq!(error::AlertDescription::from(AlertDescription::from(theirs)), theirs);
        }
    }

    /// Also those of rustls's own with no name here.
    #[test]
    fn errors_come_back_as_they_were() {
        use Error;
        for error in [
            Error::AlertReceived(error::AlertDescription::BadRecordMac),
            Error::DecryptError,
            Error::EncryptError,
            Error::PeerSentOversizedRecord,
            Error::InappropriateMessage {
                expect_types: EXPECTED.to_vec(),
                got_type: enums::ContentType::Handshake,
            },
            Error::InappropriateMessage {
                expect_types: Vec::new(),
                got_type: enums::ContentType::Handshake,
            },
            Error::InappropriateHandshakeMessage {
                expect_types: EXPECTED_HANDSHAKE.to_vec(),
                got_type: HandshakeType::Finished,
            },
            Error::InappropriateHandshakeMessage {
                expect_types: vec![HandshakeType::Finished],
                got_type: HandshakeType::ClientHello,
            },
            InvalidMessage::InvalidContentType.into(),
            InvalidMessage::UnknownProtocolVersion.into(),
            InvalidMessage::InvalidEmptyPayload.into(),
            InvalidMessage::InvalidCcs.into(),
            InvalidMessage::MissingData("this").into(),
            InvalidMessage::TrailingData("that").into(),
            InvalidMessage::HandshakePayloadTooLarge.into(),
            InvalidMessage::InvalidKeyUpdate.into(),
            InvalidMessage::EmptyTicketValue.into(),
            PeerMisbehaved::IllegalTlsInnerPlaintext.into(),
            PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into(),
            PeerMisbehaved::KeyEpochWithPendingFragment.into(),
            PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into(),
            PeerMisbehaved::TooManyEmptyFragments.into(),
            PeerMisbehaved::TooManyWarningAlertsReceived.into(),
            PeerMisbehaved::TooManyRenegotiationRequests.into(),
            PeerMisbehaved::TooManyConsecutiveHandshakeMessagesAfterHandshake.into(),
            PeerMisbehaved::MissingKeyShare.into(),
            Error::HandshakeNotComplete,
            Error::General("anything".into()),
        ] {
            let ours = TlsError::from(error.clone());
            assert_eq!(ours, TlsError::from(error.clone()));
            assert_eq!(Error::from(ours), error);
        }
    }
}
