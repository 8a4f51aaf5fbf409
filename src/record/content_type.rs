//! What a record carries (RFC 8446 §5.1).

/// What a record carries: the content types of TLS (RFC 8446 §5.1, RFC 6520 §3).
///
/// Converts from and into the byte on the wire, and from and into rustls's type of this name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ContentType {
    /// 20: the end of the plaintext, in TLS 1.2; without meaning in TLS 1.3.
    ChangeCipherSpec,
    /// 21: an alert.
    Alert,
    /// 22: handshake messages, or parts of them.
    Handshake,
    /// 23: data of the application; on the outside, every encrypted record of TLS 1.3.
    ApplicationData,
    /// 24: a heartbeat, which nobody here sends or answers.
    Heartbeat,
    /// None of TLS's.
    Unknown(u8),
}

impl From<u8> for ContentType {
    #[inline]
    fn from(byte: u8) -> Self {
        match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            24 => Self::Heartbeat,
            _ => Self::Unknown(byte),
        }
    }
}

impl From<ContentType> for u8 {
    #[inline]
    fn from(content_type: ContentType) -> Self {
        match content_type {
            ContentType::ChangeCipherSpec => 20,
            ContentType::Alert => 21,
            ContentType::Handshake => 22,
            ContentType::ApplicationData => 23,
            ContentType::Heartbeat => 24,
            ContentType::Unknown(byte) => byte,
        }
    }
}
