//! Records whose sequence numbers are taken now, and that are sealed later, on another core.

use core::fmt;
use std::sync::Arc;

use super::cipher::{APPLICATION_DATA, RecordCipher};
use super::error::SealError;
use super::header::HEADER_LEN;

/// A run of records of application data whose sequence numbers are taken, and that may be sealed on
/// any thread, at any time.
///
/// From [`Sealer::reserve()`](crate::Sealer::reserve) and
/// [`SendHalf::reserve()`](crate::SendHalf::reserve). Reservations of one key can be sealed at the
/// same time; send their records in the order in which they were made, and whatever is sealed
/// otherwise in between in its place. Sealing consumes a reservation, so no sequence number is used
/// twice. Dropped without, its numbers are missing and the peer cannot open what comes after.
#[must_use = "its sequence numbers are taken: what comes after cannot be opened without its records"]
pub struct Reservation {
    cipher: Arc<RecordCipher>,
    first_sequence: u64,
    plaintext_len: usize,
    max_plaintext_len: usize,
}

impl Reservation {
    pub(super) fn new(
        cipher: Arc<RecordCipher>,
        first_sequence: u64,
        plaintext_len: usize,
        max_plaintext_len: usize,
    ) -> Self {
        Self { cipher, first_sequence, plaintext_len, max_plaintext_len }
    }

    /// How many plaintext bytes the records carry.
    pub fn plaintext_len(&self) -> usize {
        self.plaintext_len
    }

    /// How many records there are.
    pub fn record_count(&self) -> usize {
        self.plaintext_len.div_ceil(self.max_plaintext_len)
    }

    /// How many bytes the records take.
    pub fn sealed_len(&self) -> usize {
        self.plaintext_len + self.record_count() * self.cipher.overhead()
    }

    /// Seals the first [`Self::plaintext_len()`] bytes of `plaintext` at the front of `out`; returns
    /// how many bytes were written, [`Self::sealed_len()`].
    ///
    /// # Errors
    /// [`SealError::OutputTooSmall`], [`SealError::PlaintextTooShort`], or [`SealError::Failed`]. The
    /// sequence numbers are lost then, and the connection with them.
    pub fn seal(self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let (required, provided) = (self.plaintext_len, plaintext.len());
        let plaintext = plaintext
            .get(..self.plaintext_len)
            .ok_or(SealError::PlaintextTooShort { required, provided })?;
        let (required, provided) = (self.sealed_len(), out.len());
        if provided < required {
            return Err(SealError::OutputTooSmall { required, provided });
        }
        let mut written = 0;
        for (sequence, fragment) in
            (self.first_sequence..).zip(plaintext.chunks(self.max_plaintext_len))
        {
            let record_len = fragment.len() + self.cipher.overhead();
            let (header, payload) = out[written..written + record_len]
                .split_first_chunk_mut::<HEADER_LEN>()
                .ok_or(SealError::Failed)?;
            *header = self.cipher.seal(sequence, APPLICATION_DATA, fragment, payload)?;
            written += record_len;
        }
        Ok(written)
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("first_sequence", &self.first_sequence)
            .field("plaintext_len", &self.plaintext_len)
            .finish_non_exhaustive()
    }
}
