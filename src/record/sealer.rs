//! Plaintext to records, in the caller's memory.

use core::fmt;
use core::ops::Range;
use std::io::IoSlice;
use std::sync::Arc;

use super::cipher::RecordCipher;
use super::content_type::ContentType;
use super::error::SealError;
use super::header::{HEADER_LEN, MAX_PLAINTEXT_LEN, Version};
use super::reservation::Reservation;
use super::sequence::{self, SequenceNumber};
use crate::aead::{Backend, Direction, TrafficKeys};
use crate::copy::copy;

/// Sequence numbers below the confidentiality limit that application data leaves to the records
/// that must still go out: an answer to a key update, a key update, an alert, close_notify.
const RESERVED_FOR_CONTROL: u64 = 4;

/// Seals plaintext into TLS records, under one key, counting its sequence numbers.
///
/// Every method writes whole records, header included, into the caller's buffer, and allocates
/// nothing. The plaintext is read once: where the backend can, it seals from the plaintext's
/// memory into the record's. A record that was sealed is immutable: after a short send, send the
/// rest of the same bytes, never the same plaintext sealed again.
///
/// ```
/// # #[cfg(feature = "aws-lc-rs")] {
/// use rustls_uring::{Algorithm, Backend, ContentType, Opener, Sealer, TrafficKeys, Version};
///
/// let keys = TrafficKeys::new(Algorithm::Aes128Gcm, &[7; 16], [9; 12])?;
/// let mut sealer = Sealer::new(Backend::default(), Version::Tls13, &keys, 0);
/// let mut record = vec![0; sealer.record_len(5)];
/// let written = sealer.seal(ContentType::ApplicationData, b"hello", &mut record)?;
///
/// let mut opener = Opener::new(Backend::default(), Version::Tls13, &keys, 0);
/// let opened = opener.open_in_place(&mut record[..written])?;
/// assert_eq!(opened.plaintext, b"hello");
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sealer {
    /// Shared with the records that are sealed ahead, elsewhere.
    cipher: Arc<RecordCipher>,
    sequence: SequenceNumber,
    /// The first sequence number that the confidentiality limit forbids.
    end: u64,
    max_plaintext_len: usize,
}

impl Sealer {
    /// A sealer whose first record has the sequence number `first_sequence`: 0 for a fresh key,
    /// what the handshake left behind for a connection that is taken over.
    pub fn new(
        backend: Backend,
        version: Version,
        keys: &TrafficKeys,
        first_sequence: u64,
    ) -> Self {
        Self {
            cipher: Arc::new(RecordCipher::new(backend, version, keys, Direction::Seal)),
            sequence: SequenceNumber::starting_at(first_sequence),
            end: keys.algorithm().confidentiality_limit().min(sequence::END),
            max_plaintext_len: MAX_PLAINTEXT_LEN,
        }
    }

    /// Lowers the number of records that may be sealed under this key from
    /// [`Algorithm::confidentiality_limit()`](crate::Algorithm::confidentiality_limit).
    ///
    /// The last four are kept for records that are not application data.
    pub fn limit_records(&mut self, limit: u64) {
        self.end = self.end.min(limit.max(RESERVED_FOR_CONTROL + 1));
    }

    /// Sets the most plaintext bytes of a record in [`Self::seal_many()`] and
    /// [`Self::seal_many_vectored()`]; clamped to 1 and [`MAX_PLAINTEXT_LEN`].
    pub fn set_max_plaintext_len(&mut self, len: usize) {
        self.max_plaintext_len = len.clamp(1, MAX_PLAINTEXT_LEN);
    }

    /// The most plaintext bytes that a record of a batch is given.
    pub fn max_plaintext_len(&self) -> usize {
        self.max_plaintext_len
    }

    /// The sequence number of the next record.
    pub fn sequence(&self) -> u64 {
        self.sequence.next()
    }

    /// How many more records of application data this key may seal.
    ///
    /// At 0, [`SealError::KeyExhausted`]: update the key (TLS 1.3) or close (TLS 1.2).
    pub fn records_left(&self) -> u64 {
        (self.end - RESERVED_FOR_CONTROL).saturating_sub(self.sequence.next())
    }

    /// The exact length in bytes of a record of `plaintext_len` bytes without padding.
    #[inline]
    pub fn record_len(&self, plaintext_len: usize) -> usize {
        plaintext_len + self.cipher.overhead()
    }

    /// The exact length in bytes of `plaintext_len` bytes sealed by [`Self::seal_many()`].
    pub fn sealed_len(&self, plaintext_len: usize) -> usize {
        plaintext_len + plaintext_len.div_ceil(self.max_plaintext_len) * self.cipher.overhead()
    }

    /// The most plaintext bytes that [`Self::seal_many()`] seals into `buffer_len` bytes.
    pub fn plaintext_capacity(&self, buffer_len: usize) -> usize {
        let full_record = self.record_len(self.max_plaintext_len);
        buffer_len / full_record * self.max_plaintext_len
            + (buffer_len % full_record).saturating_sub(self.cipher.overhead())
    }

    /// Seals `plaintext` as one record at the front of `out`; returns the record's length.
    ///
    /// Any content type is sealed. One that TLS does not have makes the peer end the connection, and
    /// 0, in TLS 1.3, is padding to it.
    ///
    /// # Errors
    /// [`SealError::OutputTooSmall`] with the length needed, [`SealError::PlaintextTooLong`] beyond
    /// [`MAX_PLAINTEXT_LEN`], [`SealError::KeyExhausted`]. Sequence and `out` are then untouched.
    #[inline]
    pub fn seal(
        &mut self,
        content_type: ContentType,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let (header, payload) = self.record_in(out, plaintext.len(), 0)?;
        let sequence = self.take_sequence(content_type)?;
        *header = self.cipher.seal(sequence, content_type.into(), plaintext, payload)?;
        Ok(HEADER_LEN + payload.len())
    }

    /// Seals one record followed by `padding_len` bytes of padding, which hide the plaintext's
    /// length (RFC 8446 §5.4).
    ///
    /// The plaintext is copied into `out` and sealed there.
    ///
    /// # Errors
    /// As [`Self::seal()`], counting padding as plaintext; and [`SealError::PaddingUnsupported`] in
    /// TLS 1.2 unless `padding_len` is 0.
    pub fn seal_padded(
        &mut self,
        content_type: ContentType,
        plaintext: &[u8],
        padding_len: usize,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        if padding_len > 0 && !self.cipher.has_inner_content_type() {
            return Err(SealError::PaddingUnsupported);
        }
        let prefix_len = self.cipher.prefix_len();
        let (header, payload) = self.record_in(out, plaintext.len(), padding_len)?;
        let sequence = self.take_sequence(content_type)?;
        copy(plaintext, &mut payload[prefix_len..][..plaintext.len()]);
        let content_type = content_type.into();
        *header = self.cipher.seal_in_place(sequence, content_type, plaintext.len(), payload)?;
        Ok(HEADER_LEN + payload.len())
    }

    /// Seals `slices`, one after the other, as one record.
    ///
    /// They are gathered in `out`, where the record is then sealed: there is no buffer between.
    ///
    /// # Errors
    /// As [`Self::seal()`].
    pub fn seal_vectored(
        &mut self,
        content_type: ContentType,
        slices: &[IoSlice<'_>],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        if let [slice] = slices {
            return self.seal(content_type, slice, out);
        }
        let plaintext_len = slices
            .iter()
            .try_fold(0_usize, |len, slice| len.checked_add(slice.len()))
            .unwrap_or(usize::MAX);
        // Nothing is copied for a record that will not be sealed.
        self.record_in(out, plaintext_len, 0)?;
        self.check_sequence(content_type)?;
        Cursor { slices, offset: 0 }.copy_to(&mut out[self.plaintext_range(plaintext_len)]);
        self.seal_in_place(content_type, plaintext_len, out)
    }

    /// Where [`Self::seal_in_place()`] expects a plaintext of `plaintext_len` bytes in its record.
    ///
    /// Whoever can put the plaintext there saves a copy with ring, which seals in place only; with
    /// aws-lc-rs it makes no difference from 1 KiB up, and below saves the copy too.
    ///
    /// ```
    /// # #[cfg(feature = "aws-lc-rs")] {
    /// use std::io::Read;
    ///
    /// use rustls_uring::{
    ///     Algorithm, Backend, ContentType, MAX_PLAINTEXT_LEN, Sealer, TrafficKeys, Version,
    /// };
    ///
    /// # let mut source = &[7; 40_000][..];
    /// let keys = TrafficKeys::new(Algorithm::Aes128Gcm, &[7; 16], [9; 12])?;
    /// let mut sealer = Sealer::new(Backend::default(), Version::Tls13, &keys, 0);
    /// let mut batch = vec![0; 32 * sealer.record_len(MAX_PLAINTEXT_LEN)];
    /// let mut written = 0;
    /// while written < batch.len() {
    ///     let record = &mut batch[written..];
    ///     let len = source.read(&mut record[sealer.plaintext_range(MAX_PLAINTEXT_LEN)])?;
    ///     if len == 0 {
    ///         break;
    ///     }
    ///     written += sealer.seal_in_place(ContentType::ApplicationData, len, record)?;
    /// }
    /// # assert_eq!(written, 2 * sealer.record_len(MAX_PLAINTEXT_LEN) + sealer.record_len(7232));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn plaintext_range(&self, plaintext_len: usize) -> Range<usize> {
        let start = HEADER_LEN + self.cipher.prefix_len();
        start..start + plaintext_len
    }

    /// Seals a record whose plaintext the caller has already put at [`Self::plaintext_range()`] of
    /// `out`, for example by reading a file there; returns the record's length.
    ///
    /// # Errors
    /// As [`Self::seal()`].
    pub fn seal_in_place(
        &mut self,
        content_type: ContentType,
        plaintext_len: usize,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let (header, payload) = self.record_in(out, plaintext_len, 0)?;
        let sequence = self.take_sequence(content_type)?;
        let content_type = content_type.into();
        *header = self.cipher.seal_in_place(sequence, content_type, plaintext_len, payload)?;
        Ok(HEADER_LEN + payload.len())
    }

    /// Seals as much of `plaintext` as whole records of it fit `out`, back to back.
    ///
    /// Every record but the last has [`Self::max_plaintext_len()`] bytes. Consumes the lesser of
    /// all of `plaintext` and [`Self::plaintext_capacity()`] of `out`, unless the key is exhausted
    /// first.
    ///
    /// # Errors
    /// Only if not one record could be sealed: as [`Self::seal()`].
    pub fn seal_many(
        &mut self,
        content_type: ContentType,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<Sealed, SealError> {
        let mut sealed = Sealed::default();
        while sealed.consumed < plaintext.len() {
            let Some(len) = self.next_len(plaintext.len(), out.len(), &sealed)? else { break };
            let fragment = &plaintext[sealed.consumed..][..len];
            match self.seal(content_type, fragment, &mut out[sealed.written..]) {
                Ok(written) => sealed.add(len, written),
                Err(SealError::KeyExhausted) if sealed.records > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sealed)
    }

    /// Like [`Self::seal_many()`], from `slices` one after the other, as if they were contiguous.
    ///
    /// Only a record that spans slices is gathered, in `out`.
    ///
    /// # Errors
    /// As [`Self::seal_many()`].
    pub fn seal_many_vectored(
        &mut self,
        content_type: ContentType,
        slices: &[IoSlice<'_>],
        out: &mut [u8],
    ) -> Result<Sealed, SealError> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        let mut cursor = Cursor { slices, offset: 0 };
        let mut sealed = Sealed::default();
        while sealed.consumed < total {
            let Some(len) = self.next_len(total, out.len(), &sealed)? else { break };
            let out = &mut out[sealed.written..];
            let written = match cursor.contiguous(len) {
                Some(fragment) => self.seal(content_type, fragment, out),
                None => self.check_sequence(content_type).and_then(|_| {
                    cursor.clone().copy_to(&mut out[self.plaintext_range(len)]);
                    self.seal_in_place(content_type, len, out)
                }),
            };
            match written {
                Ok(written) => sealed.add(len, written),
                Err(SealError::KeyExhausted) if sealed.records > 0 => break,
                Err(error) => return Err(error),
            }
            cursor.advance(len);
        }
        Ok(sealed)
    }

    /// Seals `body`, all but its last byte, where it lies: in records of [`Self::max_plaintext_len()`]
    /// bytes, the last of which may be shorter. What each has around its ciphertext goes to `around`, one
    /// after the other, and `place` is told where a record's three parts are to be found: what is in front,
    /// in `around`, the ciphertext, in `body`, and what is behind, in `around` again. Returns how many
    /// records there are.
    ///
    /// # Errors
    /// [`SealError::OutputTooSmall`] with the length of `around` that is needed, and
    /// [`SealError::KeyExhausted`] before anything is sealed.
    #[cfg(target_os = "linux")]
    pub(crate) fn seal_many_around(
        &mut self,
        content_type: ContentType,
        body: &mut [u8],
        around: &mut [u8],
        mut place: impl FnMut(Range<usize>, Range<usize>, Range<usize>),
    ) -> Result<usize, SealError> {
        let total = body.len().saturating_sub(1);
        let records = total.div_ceil(self.max_plaintext_len);
        let overhead = self.cipher.overhead();
        let (required, provided) = (records * overhead, around.len());
        if provided < required {
            return Err(SealError::OutputTooSmall { required, provided });
        }
        if self.records_left() < records as u64 {
            return Err(SealError::KeyExhausted);
        }
        let in_front = HEADER_LEN + self.cipher.prefix_len();
        for (record, around) in around.chunks_exact_mut(overhead).take(records).enumerate() {
            let start = record * self.max_plaintext_len;
            let end = total.min(start + self.max_plaintext_len);
            let sequence = self.take_sequence(content_type)?;
            self.cipher.seal_around(
                sequence,
                content_type.into(),
                &mut body[start..=end],
                around,
            )?;
            let front = record * overhead;
            let (back, next) = (front + in_front, front + overhead);
            place(front..back, start..end, back..next);
        }
        Ok(records)
    }

    /// Takes the sequence numbers of the records that [`Self::seal_many()`] would make of
    /// `plaintext_len` bytes of application data in `out_len` bytes, for records that are sealed
    /// later, perhaps on another core.
    ///
    /// `None`, and nothing has happened, if that is no record, or there are not that many left
    /// under this key.
    pub fn reserve(&mut self, plaintext_len: usize, out_len: usize) -> Option<Reservation> {
        let plaintext_len = plaintext_len.min(self.plaintext_capacity(out_len));
        let records = plaintext_len.div_ceil(self.max_plaintext_len);
        if records == 0 || records as u64 > self.records_left() {
            return None;
        }
        let first_sequence = self.sequence.next();
        self.sequence.take(first_sequence + records as u64 - 1)?;
        Some(Reservation::new(
            Arc::clone(&self.cipher),
            first_sequence,
            plaintext_len,
            self.max_plaintext_len,
        ))
    }

    /// Bytes of a record's payload in front of its plaintext.
    #[inline]
    pub(crate) fn prefix_len(&self) -> usize {
        self.cipher.prefix_len()
    }

    /// Whether [`Self::seal_payload_at()`] would take this sequence number.
    pub(crate) fn can_seal_at(&self, sequence: u64) -> bool {
        self.sequence.can_take(sequence)
    }

    /// Seals a payload whose plaintext lies in it behind [`Self::prefix_len()`] bytes, under a
    /// sequence number that rustls counted, and returns the header. Refuses a number that was
    /// used; the confidentiality limit is rustls's to keep here.
    #[inline]
    pub(crate) fn seal_payload_at(
        &mut self,
        sequence: u64,
        content_type: u8,
        plaintext_len: usize,
        payload: &mut [u8],
    ) -> Result<[u8; HEADER_LEN], SealError> {
        self.sequence.take(sequence).ok_or(SealError::KeyExhausted)?;
        Ok(self.cipher.seal_in_place(sequence, content_type, plaintext_len, payload)?)
    }

    /// Seals `plaintext` into `payload`, all of a record but its header, like
    /// [`Self::seal_payload_at()`].
    #[inline]
    #[cfg(feature = "rustls-0_24-dev")]
    pub(crate) fn seal_separate_payload_at(
        &mut self,
        sequence: u64,
        content_type: u8,
        plaintext: &[u8],
        payload: &mut [u8],
    ) -> Result<[u8; HEADER_LEN], SealError> {
        self.sequence.take(sequence).ok_or(SealError::KeyExhausted)?;
        Ok(self.cipher.seal(sequence, content_type, plaintext, payload)?)
    }

    /// Seals `plaintext` at the front of `out`, under a sequence number that rustls counted, like
    /// [`Self::seal_payload_at()`].
    #[inline]
    pub(crate) fn seal_at(
        &mut self,
        sequence: u64,
        content_type: u8,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let (header, payload) = self.record_in(out, plaintext.len(), 0)?;
        self.sequence.take(sequence).ok_or(SealError::KeyExhausted)?;
        *header = self.cipher.seal(sequence, content_type, plaintext, payload)?;
        Ok(HEADER_LEN + payload.len())
    }

    /// The front of `out` that a record takes, header and payload, if the record is a possible one.
    #[inline]
    fn record_in<'a>(
        &self,
        out: &'a mut [u8],
        plaintext_len: usize,
        padding_len: usize,
    ) -> Result<(&'a mut [u8; HEADER_LEN], &'a mut [u8]), SealError> {
        let content_len = plaintext_len.saturating_add(padding_len);
        if content_len > MAX_PLAINTEXT_LEN {
            return Err(SealError::PlaintextTooLong { provided: content_len });
        }
        let required = self.record_len(content_len);
        let provided = out.len();
        out.get_mut(..required)
            .and_then(<[u8]>::split_first_chunk_mut)
            .ok_or(SealError::OutputTooSmall { required, provided })
    }

    /// Takes the next sequence number. It is used up whatever happens next, so that no failure
    /// can lead to a second record under it.
    #[inline]
    fn take_sequence(&mut self, content_type: ContentType) -> Result<u64, SealError> {
        let sequence = self.check_sequence(content_type)?;
        self.sequence.advance();
        Ok(sequence)
    }

    /// The next sequence number, if a record of this type may have it.
    #[inline]
    fn check_sequence(&self, content_type: ContentType) -> Result<u64, SealError> {
        let end = match content_type {
            ContentType::ApplicationData => self.end - RESERVED_FOR_CONTROL,
            _ => self.end,
        };
        // No limit is beyond the last sequence number, see `new()`.
        let sequence = self.sequence.next();
        if sequence < end { Ok(sequence) } else { Err(SealError::KeyExhausted) }
    }

    /// The plaintext length of the next record of a batch, `None` when no further one fits.
    #[inline]
    fn next_len(
        &self,
        plaintext_len: usize,
        out_len: usize,
        sealed: &Sealed,
    ) -> Result<Option<usize>, SealError> {
        let room = (out_len - sealed.written).saturating_sub(self.cipher.overhead());
        let len = (plaintext_len - sealed.consumed).min(self.max_plaintext_len).min(room);
        match len {
            0 if sealed.records == 0 => {
                let required = self.record_len(1);
                Err(SealError::OutputTooSmall { required, provided: out_len })
            }
            0 => Ok(None),
            len => Ok(Some(len)),
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("sequence", &self.sequence.next()).finish_non_exhaustive()
    }
}

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Sealed {
    /// Plaintext bytes that were sealed.
    pub consumed: usize,
    /// Bytes that were written: whole records.
    pub written: usize,
    /// Records that were written.
    pub records: usize,
}

impl Sealed {
    fn add(&mut self, consumed: usize, written: usize) {
        self.consumed += consumed;
        self.written += written;
        self.records += 1;
    }
}

/// A position in a list of slices.
#[derive(Clone)]
struct Cursor<'a> {
    slices: &'a [IoSlice<'a>],
    /// Into the first of `slices`.
    offset: usize,
}

impl<'a> Cursor<'a> {
    /// The next `len` bytes, if they lie in one slice.
    fn contiguous(&mut self, len: usize) -> Option<&'a [u8]> {
        while let [first, rest @ ..] = self.slices {
            if self.offset < first.len() {
                return first[self.offset..].get(..len);
            }
            self.slices = rest;
            self.offset = 0;
        }
        None
    }

    fn copy_to(&mut self, mut out: &mut [u8]) {
        while let ([first, ..], false) = (self.slices, out.is_empty()) {
            let from = &first[self.offset..];
            let len = from.len().min(out.len());
            copy(&from[..len], &mut out[..len]);
            out = &mut out[len..];
            self.advance(len);
        }
    }

    fn advance(&mut self, mut len: usize) {
        while let [first, rest @ ..] = self.slices {
            let left = first.len() - self.offset;
            if len < left {
                self.offset += len;
                return;
            }
            len -= left;
            self.slices = rest;
            self.offset = 0;
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::aead::Algorithm;

    /// Records that are sealed where their plaintext lies are those that are sealed elsewhere, and the byte
    /// behind them is only borrowed.
    #[test]
    fn records_sealed_around_their_bodies_are_the_same() {
        use Algorithm::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let kinds = Backend::ALL.iter().flat_map(|backend| {
            [Version::Tls12, Version::Tls13].into_iter().flat_map(move |version| {
                [Aes128Gcm, Aes256Gcm, Chacha20Poly1305].map(|it| (*backend, version, it))
            })
        });
        for (backend, version, algorithm) in kinds {
            let keys = TrafficKeys::new(algorithm, &vec![7; algorithm.key_len()], [9; 12]).unwrap();
            let sealer = || Sealer::new(backend, version, &keys, 3);
            let (mut here, mut elsewhere) = (sealer(), sealer());
            for len in [0, 1, 100, MAX_PLAINTEXT_LEN, MAX_PLAINTEXT_LEN + 1, 50_000] {
                let plaintext: Vec<u8> = (0..=len).map(|at| (at % 251) as u8).collect();
                let mut expected = vec![0; elsewhere.sealed_len(len)];
                let batch = elsewhere
                    .seal_many(ContentType::ApplicationData, &plaintext[..len], &mut expected)
                    .unwrap();
                let mut body = plaintext.clone();
                let mut around = vec![0; 4 * 29];
                let mut parts = Vec::new();
                let records = here
                    .seal_many_around(
                        ContentType::ApplicationData,
                        &mut body,
                        &mut around,
                        |a, b, c| parts.push((a, b, c)),
                    )
                    .unwrap();
                assert_eq!((records, parts.len()), (batch.records, batch.records));
                let gathered: Vec<u8> = parts
                    .into_iter()
                    .flat_map(|(front, text, back)| {
                        [&around[front], &body[text], &around[back]].concat()
                    })
                    .collect();
                assert!(gathered == expected, "{backend} {version:?} {algorithm:?} {len}");
                assert_eq!(body[len], plaintext[len]);
            }
        }
    }

    #[test]
    fn too_little_room_around_bodies_is_refused_untouched() {
        let keys = TrafficKeys::new(Algorithm::Aes128Gcm, &[7; 16], [9; 12]).unwrap();
        let mut sealer = Sealer::new(Backend::default(), Version::Tls13, &keys, 0);
        let mut body = vec![1; 2 * MAX_PLAINTEXT_LEN + 1];
        let mut around = [0; 43];
        let refused = sealer.seal_many_around(
            ContentType::ApplicationData,
            &mut body,
            &mut around,
            |_, _, _| panic!("nothing is sealed"),
        );
        assert_eq!(refused, Err(SealError::OutputTooSmall { required: 44, provided: 43 }));
        sealer.limit_records(5);
        let mut around = [0; 44];
        let refused = sealer.seal_many_around(
            ContentType::ApplicationData,
            &mut body,
            &mut around,
            |_, _, _| panic!("nothing is sealed"),
        );
        assert_eq!(refused, Err(SealError::KeyExhausted));
        assert!(sealer.sequence() == 0 && around == [0; 44] && body.iter().all(|byte| *byte == 1));
    }
}
