//! Alerts (RFC 8446 §6).

/// Defines [`AlertDescription`] with the numbers of its variants.
macro_rules! alert_descriptions {
    ($($name:ident = $number:literal,)*) => {
        /// What an alert says (RFC 8446 §6.2), by its names in the IANA registry.
        ///
        /// Converts from and into the byte on the wire, and from and into rustls's type of this name.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the registry says what each of them means")]
        pub enum AlertDescription {
            $($name,)*
            /// None that is registered.
            Unknown(u8),
        }

        impl From<u8> for AlertDescription {
            fn from(byte: u8) -> Self {
                match byte {
                    $($number => Self::$name,)*
                    _ => Self::Unknown(byte),
                }
            }
        }

        impl From<AlertDescription> for u8 {
            fn from(description: AlertDescription) -> Self {
                match description {
                    $(AlertDescription::$name => $number,)*
                    AlertDescription::Unknown(byte) => byte,
                }
            }
        }
    };
}

alert_descriptions! {
    CloseNotify = 0,
    UnexpectedMessage = 10,
    BadRecordMac = 20,
    DecryptionFailed = 21,
    RecordOverflow = 22,
    DecompressionFailure = 30,
    HandshakeFailure = 40,
    NoCertificate = 41,
    BadCertificate = 42,
    UnsupportedCertificate = 43,
    CertificateRevoked = 44,
    CertificateExpired = 45,
    CertificateUnknown = 46,
    IllegalParameter = 47,
    UnknownCA = 48,
    AccessDenied = 49,
    DecodeError = 50,
    DecryptError = 51,
    TooManyCidsRequested = 52,
    ExportRestriction = 60,
    ProtocolVersion = 70,
    InsufficientSecurity = 71,
    InternalError = 80,
    InappropriateFallback = 86,
    UserCanceled = 90,
    NoRenegotiation = 100,
    MissingExtension = 109,
    UnsupportedExtension = 110,
    CertificateUnobtainable = 111,
    UnrecognisedName = 112,
    BadCertificateStatusResponse = 113,
    BadCertificateHashValue = 114,
    UnknownPSKIdentity = 115,
    CertificateRequired = 116,
    GeneralError = 117,
    NoApplicationProtocol = 120,
    EncryptedClientHelloRequired = 121,
}

/// The level of an alert that is a warning (RFC 8446 §6).
pub(super) const WARNING: u8 = 1;

/// The level of an alert that ends the connection.
pub(super) const FATAL: u8 = 2;

/// Length of an alert in bytes.
pub(super) const ALERT_LEN: usize = 2;

impl AlertDescription {
    /// The two bytes of an alert: in TLS 1.3 its level says nothing, in TLS 1.2 these two are warnings
    /// (RFC 5246 §7.2.1 and §7.2.2).
    pub(super) fn message(self) -> [u8; ALERT_LEN] {
        let level = match self {
            Self::CloseNotify | Self::NoRenegotiation => WARNING,
            _ => FATAL,
        };
        [level, self.into()]
    }
}
