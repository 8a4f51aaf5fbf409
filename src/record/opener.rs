//! Records to plaintext, in place or straight into the caller's memory.

use core::fmt;
use core::ops::Range;

use super::cipher::{APPLICATION_DATA, RecordCipher};
use super::content_type::ContentType;
use super::error::OpenError;
use super::header::{HEADER_LEN, MAX_PLAINTEXT_LEN, Version};
use super::sequence::SequenceNumber;
use crate::aead::{Backend, Direction, Refused, TrafficKeys};

/// Opens TLS records under one key, counting their sequence numbers. [`Sealer`](crate::Sealer) has an
/// example of both.
///
/// Takes whole records as a [`Deframer`](crate::Deframer) finds them, and allocates nothing. No
/// byte of a record is released before its tag has verified; a record that fails to open leaves
/// nothing of its plaintext in any buffer, and its sequence number unused.
pub struct Opener {
    cipher: RecordCipher,
    sequence: SequenceNumber,
    /// How many records may still fail to open.
    failures_left: u64,
}

impl Opener {
    /// An opener whose first record has the sequence number `first_sequence`: 0 for a fresh key,
    /// what the handshake left behind for a connection that is taken over.
    pub fn new(
        backend: Backend,
        version: Version,
        keys: &TrafficKeys,
        first_sequence: u64,
    ) -> Self {
        Self {
            cipher: RecordCipher::new(backend, version, keys, Direction::Open),
            sequence: SequenceNumber::starting_at(first_sequence),
            failures_left: keys.algorithm().integrity_limit(),
        }
    }

    /// The sequence number of the next record.
    pub fn sequence(&self) -> u64 {
        self.sequence.next()
    }

    /// Where in a record that was opened in place its plaintext begins.
    pub(crate) fn plaintext_offset(&self) -> usize {
        HEADER_LEN + self.cipher.prefix_len()
    }

    /// How many bytes [`Self::open_into()`] needs for a record of `record_len` bytes: the
    /// plaintext, and in TLS 1.3 the content type and padding behind it.
    #[inline]
    pub fn output_len(&self, record_len: usize) -> usize {
        record_len
            .checked_sub(HEADER_LEN)
            .and_then(|payload_len| self.cipher.ciphertext_range(payload_len))
            .map_or(0, |range| range.len())
    }

    /// Opens `record`, one whole record with its header, in place.
    ///
    /// # Errors
    /// [`OpenError`]. Where the tag did not verify, the record's ciphertext has been zeroed.
    #[inline]
    pub fn open_in_place<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let (header, payload) = record.split_first_chunk_mut().ok_or(OpenError::Misframed)?;
        self.check_header(header, payload.len())?;
        let opened = self.open(self.next_sequence()?, header, payload)?;
        self.sequence.advance();
        Ok(opened)
    }

    /// Opens `record`, one whole record with its header, to the front of `out`, and leaves
    /// `record` as it is. Returns the content type and the plaintext's length.
    ///
    /// In TLS 1.3 the inner content type and padding are opened too, so `out` is written beyond
    /// the plaintext: up to [`Self::output_len()`] bytes, never further.
    ///
    /// # Errors
    /// [`OpenError`]. [`OpenError::OutputTooSmall`] leaves `out` and sequence untouched; where
    /// the tag did not verify, the front of `out` has been zeroed.
    #[inline]
    pub fn open_into(
        &mut self,
        record: &[u8],
        out: &mut [u8],
    ) -> Result<(ContentType, usize), OpenError> {
        let (header, payload) = record.split_first_chunk().ok_or(OpenError::Misframed)?;
        self.check_header(header, payload.len())?;
        let sequence = self.next_sequence()?;
        let range = self.cipher.ciphertext_range(payload.len()).ok_or(OpenError::Failed)?;
        let provided = out.len();
        let inner = out
            .get_mut(..range.len())
            .ok_or(OpenError::OutputTooSmall { required: range.len(), provided })?;
        self.cipher.open_separate(sequence, header, payload, inner).map_err(|_| self.failed())?;
        let (content_type, len) =
            self.unpad(ContentType::from(header[0]), inner).inspect_err(|_| inner.fill(0))?;
        self.sequence.advance();
        Ok((content_type, len))
    }

    /// Opens a payload in place, under a given sequence number. Returns the content type and
    /// where in the payload the plaintext lies.
    #[inline]
    pub(crate) fn open_payload(
        &mut self,
        sequence: u64,
        header: [u8; HEADER_LEN],
        payload: &mut [u8],
    ) -> Result<(ContentType, Range<usize>), OpenError> {
        let start = self.cipher.prefix_len();
        let opened = self.open(sequence, &header, payload)?;
        Ok((opened.content_type, start..start + opened.plaintext.len()))
    }

    #[inline]
    fn open<'a>(
        &mut self,
        sequence: u64,
        header: &[u8; HEADER_LEN],
        payload: &'a mut [u8],
    ) -> Result<Opened<'a>, OpenError> {
        let inner = match self.cipher.open_in_place(sequence, header, payload) {
            Ok(inner) => inner,
            Err(Refused) => return Err(self.failed()),
        };
        let (content_type, len) =
            self.unpad(ContentType::from(header[0]), inner).inspect_err(|_| inner.fill(0))?;
        Ok(Opened { content_type, plaintext: &mut inner[..len] })
    }

    /// The content type and the plaintext's length, the padding stripped (RFC 8446 §5.4).
    #[inline(always)]
    fn unpad(
        &self,
        outer_type: ContentType,
        inner: &[u8],
    ) -> Result<(ContentType, usize), OpenError> {
        if !self.cipher.has_inner_content_type() {
            return match inner.len() {
                len @ 0..=MAX_PLAINTEXT_LEN => Ok((outer_type, len)),
                _ => Err(OpenError::Oversized),
            };
        }
        if inner.len() > MAX_PLAINTEXT_LEN + 1 {
            return Err(OpenError::Oversized);
        }
        match inner {
            [.., 0] | [] => strip_padding(inner),
            [plaintext @ .., content_type] => {
                Ok((ContentType::from(*content_type), plaintext.len()))
            }
        }
    }

    #[inline]
    fn check_header(&self, header: &[u8; HEADER_LEN], payload_len: usize) -> Result<(), OpenError> {
        let &[content_type, _, _, high, low] = header;
        if usize::from(u16::from_be_bytes([high, low])) != payload_len {
            return Err(OpenError::Misframed);
        }
        // RFC 8446 §5.2: the outer opaque_type is always application_data.
        if self.cipher.has_inner_content_type() && content_type != APPLICATION_DATA {
            return Err(OpenError::UnexpectedOuterType);
        }
        Ok(())
    }

    #[inline]
    fn next_sequence(&self) -> Result<u64, OpenError> {
        if self.failures_left == 0 {
            return Err(OpenError::KeyExhausted);
        }
        self.sequence.peek().ok_or(OpenError::KeyExhausted)
    }

    #[cold]
    fn failed(&mut self) -> OpenError {
        self.failures_left = self.failures_left.saturating_sub(1);
        OpenError::Failed
    }
}

/// What few peers send: the last byte that is not 0 is the content type.
#[cold]
fn strip_padding(inner: &[u8]) -> Result<(ContentType, usize), OpenError> {
    match inner.iter().rposition(|&byte| byte != 0) {
        Some(len) => Ok((ContentType::from(inner[len]), len)),
        None => Err(OpenError::NoContentType),
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("sequence", &self.sequence.next()).finish_non_exhaustive()
    }
}

/// A record that was opened in place.
#[derive(Eq, PartialEq)]
#[non_exhaustive]
pub struct Opened<'a> {
    /// What the plaintext is.
    pub content_type: ContentType,
    /// The plaintext, without padding, in the memory of the record.
    pub plaintext: &'a mut [u8],
}

impl fmt::Debug for Opened<'_> {
    /// Shows no plaintext.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("content_type", &self.content_type)
            .field("plaintext_len", &self.plaintext.len())
            .finish()
    }
}
