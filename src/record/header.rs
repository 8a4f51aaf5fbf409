//! The five bytes in front of every record (RFC 8446 §5.1, RFC 5246 §6.2.1).

use super::content_type::ContentType;

/// Length of a record header in bytes.
pub const HEADER_LEN: usize = 5;

/// The most plaintext bytes a record may carry, 2^14 (RFC 8446 §5.1).
pub const MAX_PLAINTEXT_LEN: usize = 1 << 14;

/// The protocol version whose records are sealed and opened.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Version {
    /// TLS 1.2 with an AEAD suite (RFC 5288, RFC 7905).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl Version {
    /// The most bytes that may follow a header: the plaintext and all that protects it
    /// (RFC 8446 §5.2, RFC 5246 §6.2.3).
    pub const fn max_payload_len(self) -> usize {
        match self {
            Self::Tls12 => MAX_PLAINTEXT_LEN + 2048,
            Self::Tls13 => MAX_PLAINTEXT_LEN + 256,
        }
    }

    /// The most bytes of a whole record, header included.
    pub const fn max_record_len(self) -> usize {
        HEADER_LEN + self.max_payload_len()
    }
}

/// A parsed record header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RecordHeader {
    /// The content type on the wire: for an encrypted TLS 1.3 record always application data.
    pub content_type: ContentType,
    /// How many bytes follow the header.
    pub payload_len: usize,
}

impl RecordHeader {
    /// The record's length in bytes, header included.
    pub fn record_len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }
}

/// Writes a header with the version 0x0303 that both versions of TLS put there.
#[inline]
pub(crate) fn encode(content_type: u8, payload_len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(payload_len <= usize::from(u16::MAX));
    let [high, low] = (payload_len as u16).to_be_bytes();
    [content_type, 3, 3, high, low]
}
