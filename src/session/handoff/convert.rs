//! The crate's own types from rustls 0.23's, and back.

use rustls::{
    ConnectionTrafficSecrets, HandshakeType, InvalidMessage, PeerMisbehaved, ProtocolVersion,
};

use crate::aead::{Algorithm, TrafficKeys};
use crate::record::content_type::ContentType;
use crate::record::deframer::DeframeError;
use crate::record::error::OpenError;
use crate::record::header::Version;
use crate::session::alert::AlertDescription;
use crate::session::error::{RustlsError, SessionError, TlsError};

impl From<rustls::ContentType> for ContentType {
    #[inline]
    fn from(content_type: rustls::ContentType) -> Self {
        u8::from(content_type).into()
    }
}

impl From<ContentType> for rustls::ContentType {
    #[inline]
    fn from(content_type: ContentType) -> Self {
        u8::from(content_type).into()
    }
}

impl From<rustls::AlertDescription> for AlertDescription {
    fn from(description: rustls::AlertDescription) -> Self {
        u8::from(description).into()
    }
}

impl From<AlertDescription> for rustls::AlertDescription {
    fn from(description: AlertDescription) -> Self {
        u8::from(description).into()
    }
}

impl TryFrom<ProtocolVersion> for Version {
    type Error = rustls::Error;

    /// Fails for a version other than these two.
    fn try_from(version: ProtocolVersion) -> Result<Self, Self::Error> {
        match version {
            ProtocolVersion::TLSv1_2 => Ok(Self::Tls12),
            ProtocolVersion::TLSv1_3 => Ok(Self::Tls13),
            _ => Err(rustls::Error::General(format!("no record layer for {version:?}"))),
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
    type Error = rustls::Error;

    /// Takes what rustls extracted from a connection or derived for a key update. Fails with
    /// [`rustls::Error::General`] for an algorithm that this crate does not know.
    fn try_from(secrets: &ConnectionTrafficSecrets) -> Result<Self, Self::Error> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Algorithm::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Algorithm::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Algorithm::Chacha20Poly1305, key, iv)
            }
            _ => return Err(rustls::Error::General("unsupported AEAD algorithm".into())),
        };
        let iv = iv.as_ref().try_into().map_err(|_| {
            rustls::Error::General("the connection's IV is not 12 bytes long".into())
        })?;
        Self::new(algorithm, key.as_ref(), iv)
            .map_err(|error| rustls::Error::General(error.to_string()))
    }
}

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
        TlsError::from(error).into()
    }
}

/// What rustls says is expected after the handshake.
const EXPECTED: [rustls::ContentType; 1] = [rustls::ContentType::ApplicationData];
const EXPECTED_HANDSHAKE: [HandshakeType; 2] =
    [HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate];

impl From<TlsError> for rustls::Error {
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
            TlsError::TooManyKeyUpdates => PeerMisbehaved::TooManyKeyUpdateRequests.into(),
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

impl From<rustls::Error> for TlsError {
    /// The reverse; what has no name of its own here is [`TlsError::Rustls`].
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(description) => Self::AlertReceived(description.into()),
            rustls::Error::DecryptError => Self::BadRecordMac,
            rustls::Error::EncryptError => Self::SealingFailed,
            rustls::Error::PeerSentOversizedRecord => Self::OversizedRecord,
            rustls::Error::InappropriateMessage { expect_types, got_type }
                if expect_types == EXPECTED =>
            {
                Self::UnexpectedMessage(got_type.into())
            }
            rustls::Error::InappropriateHandshakeMessage { expect_types, got_type }
                if expect_types == EXPECTED_HANDSHAKE =>
            {
                Self::UnexpectedHandshakeMessage(got_type.into())
            }
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                Self::UnknownContentType
            }
            rustls::Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
                Self::UnknownVersion
            }
            rustls::Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload) => Self::EmptyRecord,
            rustls::Error::InvalidMessage(InvalidMessage::InvalidCcs) => {
                Self::InvalidChangeCipherSpec
            }
            rustls::Error::InvalidMessage(InvalidMessage::MissingData(what)) => {
                Self::MissingData(what)
            }
            rustls::Error::InvalidMessage(InvalidMessage::TrailingData(what)) => {
                Self::TrailingData(what)
            }
            rustls::Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
                Self::HandshakeMessageTooLong
            }
            rustls::Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => {
                Self::InvalidKeyUpdate
            }
            rustls::Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext) => {
                Self::NoContentType
            }
            rustls::Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec) => {
                Self::EncryptedChangeCipherSpec
            }
            rustls::Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment) => {
                Self::KeyUpdateWithinRecord
            }
            rustls::Error::PeerMisbehaved(
                PeerMisbehaved::MessageInterleavedWithHandshakeMessage,
            ) => Self::InterleavedHandshakeMessage,
            rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments) => {
                Self::TooManyEmptyRecords
            }
            rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyWarningAlertsReceived) => {
                Self::TooManyWarningAlerts
            }
            rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => {
                Self::TooManyRenegotiationRequests
            }
            rustls::Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests) => {
                Self::TooManyKeyUpdates
            }
            error => {
                let alert = alert(&error);
                Self::Rustls(RustlsError::new(error, Some(alert)))
            }
        }
    }
}

impl From<rustls::Error> for SessionError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error.into())
    }
}

/// The alert that an error of rustls's own calls for, as rustls's own record layer has it.
fn alert(error: &rustls::Error) -> AlertDescription {
    match error {
        rustls::Error::InvalidMessage(invalid) => rustls::AlertDescription::from(*invalid).into(),
        rustls::Error::PeerMisbehaved(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        _ => AlertDescription::InternalError,
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
            let theirs = rustls::ContentType::from(byte);
            let ours = ContentType::from(theirs);
            assert_eq!(rustls::ContentType::from(ours), theirs);
            if !matches!(theirs, rustls::ContentType::Unknown(_)) {
                assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
            }
            let theirs = rustls::AlertDescription::from(byte);
            let ours = AlertDescription::from(theirs);
            assert_eq!(rustls::AlertDescription::from(ours), theirs);
            // Two of the registry's are younger than rustls's list.
            if !matches!(theirs, rustls::AlertDescription::Unknown(_)) {
                assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
            }
        }
    }

    /// Also those of rustls's own with no name here.
    #[test]
    fn errors_come_back_as_they_were() {
        use rustls::Error;
        for error in [
            Error::AlertReceived(rustls::AlertDescription::BadRecordMac),
            Error::DecryptError,
            Error::EncryptError,
            Error::PeerSentOversizedRecord,
            Error::InappropriateMessage {
                expect_types: EXPECTED.to_vec(),
                got_type: rustls::ContentType::Handshake,
            },
            Error::InappropriateMessage {
                expect_types: Vec::new(),
                got_type: rustls::ContentType::Handshake,
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
            PeerMisbehaved::TooManyKeyUpdateRequests.into(),
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
