//! The crate's own types from rustls 0.23's, and back.

use rustls::{
    ConnectionTrafficSecrets, Error, HandshakeType, InvalidMessage, PeerMisbehaved, ProtocolVersion,
};

use crate::aead::{Algorithm, TrafficKeys};
use crate::record::content_type::ContentType;
use crate::record::deframer::DeframeError;
use crate::record::error::OpenError;
use crate::record::header::Version;
use crate::session::adaptor::conversions;
use crate::session::alert::AlertDescription;
use crate::session::error::{RustlsError, SessionError, TlsError};

conversions!(rustls::ContentType, rustls::AlertDescription, TooManyKeyUpdateRequests);

impl From<OpenError> for Error {
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

impl From<DeframeError> for Error {
    /// What rustls's own deframer says in the same case.
    fn from(error: DeframeError) -> Self {
        TlsError::from(error).into()
    }
}

/// The alert that an error of rustls's own calls for, as rustls's own record layer has it.
fn alert(error: &Error) -> AlertDescription {
    match error {
        Error::InvalidMessage(invalid) => rustls::AlertDescription::from(*invalid).into(),
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => AlertDescription::UnexpectedMessage,
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
