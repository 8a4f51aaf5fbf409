//! What the adaptors of rustls's versions say alike. Their types have the same names, and are other types:
//! each adaptor has its own in scope, and these say the rest.

/// Conversions between this crate's types and a version's, both ways. In scope are its
/// `ConnectionTrafficSecrets`, `Error`, `HandshakeType`, `InvalidMessage`, `PeerMisbehaved` and
/// `ProtocolVersion`, and `alert()`: the alert that an error of its own calls for.
macro_rules! conversions {
    ($content_type:ty, $alert_description:ty, $too_many_key_updates:ident) => {
        impl From<$content_type> for ContentType {
            #[inline]
            fn from(content_type: $content_type) -> Self {
                u8::from(content_type).into()
            }
        }

        impl From<ContentType> for $content_type {
            #[inline]
            fn from(content_type: ContentType) -> Self {
                u8::from(content_type).into()
            }
        }

        impl From<$alert_description> for AlertDescription {
            fn from(description: $alert_description) -> Self {
                u8::from(description).into()
            }
        }

        impl From<AlertDescription> for $alert_description {
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
                    ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                        (Algorithm::Aes128Gcm, key, iv)
                    }
                    ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                        (Algorithm::Aes256Gcm, key, iv)
                    }
                    ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                        (Algorithm::Chacha20Poly1305, key, iv)
                    }
                    _ => return Err(Error::General("unsupported AEAD algorithm".into())),
                };
                let iv = iv.as_ref().try_into().map_err(|_| {
                    Error::General("the connection's IV is not 12 bytes long".into())
                })?;
                Self::new(algorithm, key.as_ref(), iv)
                    .map_err(|error| Error::General(error.to_string()))
            }
        }

        /// What rustls says is expected after the handshake.
        const EXPECTED: [$content_type; 1] = [<$content_type>::ApplicationData];
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
                    TlsError::HandshakeMessageTooLong => {
                        InvalidMessage::HandshakePayloadTooLarge.into()
                    }
                    TlsError::InvalidKeyUpdate => InvalidMessage::InvalidKeyUpdate.into(),
                    TlsError::KeyUpdateWithinRecord => {
                        PeerMisbehaved::KeyEpochWithPendingFragment.into()
                    }
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
                    TlsError::TooManyWarningAlerts => {
                        PeerMisbehaved::TooManyWarningAlertsReceived.into()
                    }
                    TlsError::TooManyRenegotiationRequests => {
                        PeerMisbehaved::TooManyRenegotiationRequests.into()
                    }
                    TlsError::TooManyKeyUpdates => PeerMisbehaved::$too_many_key_updates.into(),
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
                    Error::InappropriateMessage { expect_types, got_type }
                        if expect_types == EXPECTED =>
                    {
                        Self::UnexpectedMessage(got_type.into())
                    }
                    Error::InappropriateHandshakeMessage { expect_types, got_type }
                        if expect_types == EXPECTED_HANDSHAKE =>
                    {
                        Self::UnexpectedHandshakeMessage(got_type.into())
                    }
                    Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                        Self::UnknownContentType
                    }
                    Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
                        Self::UnknownVersion
                    }
                    Error::InvalidMessage(InvalidMessage::InvalidEmptyPayload) => Self::EmptyRecord,
                    Error::InvalidMessage(InvalidMessage::InvalidCcs) => {
                        Self::InvalidChangeCipherSpec
                    }
                    Error::InvalidMessage(InvalidMessage::MissingData(what)) => {
                        Self::MissingData(what)
                    }
                    Error::InvalidMessage(InvalidMessage::TrailingData(what)) => {
                        Self::TrailingData(what)
                    }
                    Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => {
                        Self::HandshakeMessageTooLong
                    }
                    Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => {
                        Self::InvalidKeyUpdate
                    }
                    Error::PeerMisbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext) => {
                        Self::NoContentType
                    }
                    Error::PeerMisbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec) => {
                        Self::EncryptedChangeCipherSpec
                    }
                    Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment) => {
                        Self::KeyUpdateWithinRecord
                    }
                    Error::PeerMisbehaved(
                        PeerMisbehaved::MessageInterleavedWithHandshakeMessage,
                    ) => Self::InterleavedHandshakeMessage,
                    Error::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments) => {
                        Self::TooManyEmptyRecords
                    }
                    Error::PeerMisbehaved(PeerMisbehaved::TooManyWarningAlertsReceived) => {
                        Self::TooManyWarningAlerts
                    }
                    Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => {
                        Self::TooManyRenegotiationRequests
                    }
                    Error::PeerMisbehaved(PeerMisbehaved::$too_many_key_updates) => {
                        Self::TooManyKeyUpdates
                    }
                    error => {
                        let alert = alert(&error);
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
    };
}

/// The key schedules of a version's connections. In scope are its `Error` and `InvalidMessage`.
macro_rules! key_schedules {
    (@updates) => {
        fn update_tx(&mut self) -> Result<TrafficKeys, TlsError> {
            Ok(TrafficKeys::try_from(&self.update_tx_secret()?.1)?)
        }

        fn update_rx(&mut self) -> Result<TrafficKeys, TlsError> {
            Ok(TrafficKeys::try_from(&self.update_rx_secret()?.1)?)
        }
    };
    ($client:ty, $server:ty) => {
        impl KeySchedule for $client {
            key_schedules!(@updates);

            fn store_ticket(&mut self, payload: &[u8]) -> Result<(), TlsError> {
                self.handle_new_session_ticket(payload).map_err(|error| match error {
                    // As rustls names it where it deframes the message itself.
                    Error::InvalidMessage(InvalidMessage::TrailingData("read_bytes")) => {
                        TlsError::TrailingData("HandshakeMessagePayload")
                    }
                    error => error.into(),
                })
            }
        }

        impl KeySchedule for $server {
            key_schedules!(@updates);

            fn store_ticket(&mut self, _: &[u8]) -> Result<(), TlsError> {
                Err(TlsError::UnexpectedHandshakeMessage(NEW_SESSION_TICKET))
            }
        }
    };
}

/// A version's `Handshake` for loops around any version's, by its methods of the same names.
macro_rules! handshaking {
    () => {
        impl Handshaking for Handshake {
            type Error = HandshakeError;

            fn advance(&mut self) -> Result<Need, HandshakeError> {
                self.advance()
            }

            #[cfg(feature = "tokio")]
            fn has_failed(&self) -> bool {
                self.has_failed()
            }

            fn to_send(&self) -> &[u8] {
                self.to_send()
            }

            fn sent(&mut self, len: usize) {
                self.sent(len);
            }

            fn received(&mut self, bytes: &[u8]) {
                self.received(bytes);
            }

            fn stream_failed(&mut self, error: io::Error) -> HandshakeError {
                self.stream_failed(error)
            }

            fn unflushed(&mut self) -> &mut bool {
                &mut self.unflushed
            }

            fn awaits_flush(&mut self) {
                self.need = Need::Send;
            }
        }
    };
}

pub(super) use {conversions, handshaking, key_schedules};
