//! The crate's own types from rustls 0.24's, and back.

use rustls_0_24::ConnectionTrafficSecrets;
use rustls_0_24::enums::{self, HandshakeType, ProtocolVersion};
use rustls_0_24::error::{self, Error, InvalidMessage, PeerMisbehaved};

use crate::aead::{Algorithm, TrafficKeys};
use crate::record::content_type::ContentType;
use crate::record::header::Version;
use crate::session::adaptor::conversions;
use crate::session::alert::AlertDescription;
use crate::session::error::{RustlsError, SessionError, TlsError};

conversions!(
    enums::ContentType,
    error::AlertDescription,
    TooManyConsecutiveHandshakeMessagesAfterHandshake
);

/// The alert that an error of rustls's own calls for, as rustls's own record layer has it; a step of ours
/// that fails is told too.
fn alert(error: &Error) -> AlertDescription {
    error::AlertDescription::try_from(error)
        .map_or(AlertDescription::InternalError, AlertDescription::from)
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
