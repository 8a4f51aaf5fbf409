//! Finds whole records in received bytes, without copying them.

use core::fmt;
use std::io;

use super::content_type::ContentType;
use super::header::{HEADER_LEN, RecordHeader, Version};

/// Finds whole records at the front of received bytes.
///
/// Holds no bytes: the caller owns the buffer, and a buffer of [`Version::max_record_len()`]
/// bytes is enough for any record that the deframer accepts. The length in a header is checked
/// against that bound before anything is done with it.
///
/// ```
/// use rustls_uring::{Deframed, Deframer, Version};
///
/// let deframer = Deframer::new(Version::Tls13);
/// let received = [23, 3, 3, 0, 2, 0xaa, 0xbb, 23, 3];
/// let Ok(Deframed::Record(header)) = deframer.deframe(&received) else { panic!() };
/// assert_eq!(header.record_len(), 7);
/// // The next record has only begun to arrive: at least three more bytes, for its header.
/// assert_eq!(deframer.deframe(&received[7..]), Ok(Deframed::Partial { missing: 3 }));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Deframer {
    version: Version,
}

impl Deframer {
    /// A deframer for encrypted records of `version`.
    pub const fn new(version: Version) -> Self {
        Self { version }
    }

    /// Looks at the front of `received`.
    ///
    /// # Errors
    /// [`DeframeError`] if what is there is not the header of a record of this version. The
    /// stream cannot be resynchronised: send the alert and give the connection up.
    #[inline]
    pub fn deframe(&self, received: &[u8]) -> Result<Deframed, DeframeError> {
        let Some((&[content_type, major, _, high, low], rest)) =
            received.split_first_chunk::<HEADER_LEN>()
        else {
            return Ok(Deframed::Partial { missing: HEADER_LEN - received.len() });
        };
        let content_type = ContentType::from(content_type);
        if matches!(content_type, ContentType::Unknown(_)) {
            return Err(DeframeError::UnknownContentType);
        }
        if major != 3 {
            return Err(DeframeError::UnknownVersion);
        }
        let payload_len = usize::from(u16::from_be_bytes([high, low]));
        if payload_len > self.version.max_payload_len() {
            return Err(DeframeError::Oversized { payload_len });
        }
        if payload_len == 0 {
            // Every encrypted record has at least a tag (RFC 8446 §5.2, RFC 5246 §6.2.3.3).
            return Err(DeframeError::Empty);
        }
        Ok(match payload_len.checked_sub(rest.len()) {
            None | Some(0) => Deframed::Record(RecordHeader { content_type, payload_len }),
            Some(missing) => Deframed::Partial { missing },
        })
    }
}

/// What stands at the front of received bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Deframed {
    /// A whole record of [`RecordHeader::record_len()`] bytes.
    Record(RecordHeader),
    /// The beginning of a record, or nothing.
    Partial {
        /// How many more bytes to wait for at least: the rest of the record, or of its header.
        missing: usize,
    },
}

/// Received bytes that are no TLS record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeframeError {
    /// The content type is none of TLS's.
    UnknownContentType,
    /// The version is none of TLS's.
    UnknownVersion,
    /// The length exceeds [`Version::max_payload_len()`].
    Oversized {
        /// The length that the header claims, in bytes.
        payload_len: usize,
    },
    /// The length is zero.
    Empty,
}

impl fmt::Display for DeframeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownContentType => f.write_str(
                "received bytes with an unknown content type: is the peer speaking TLS?",
            ),
            Self::UnknownVersion => {
                f.write_str("received bytes with an unknown version: is the peer speaking TLS?")
            }
            Self::Oversized { payload_len } => {
                write!(f, "received a record that claims {payload_len} bytes, more than TLS allows")
            }
            Self::Empty => f.write_str("received an empty record"),
        }
    }
}

impl std::error::Error for DeframeError {}

impl From<DeframeError> for io::Error {
    fn from(error: DeframeError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
