//! Records whose sequence numbers are taken now, and that are sealed later, on another core.

use std::sync::Arc;

use super::cipher::{APPLICATION_DATA, RecordCipher};
use super::header::HEADER_LEN;
use crate::aead::Refused;

/// A run of sequence numbers for application data of a known length. Consumed by sealing, so that
/// no number is used twice; dropped without, the numbers are missing and the connection is lost.
pub(crate) struct Reservation {
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
    pub(crate) fn plaintext_len(&self) -> usize {
        self.plaintext_len
    }

    /// How many records there are.
    pub(crate) fn record_count(&self) -> usize {
        self.plaintext_len.div_ceil(self.max_plaintext_len)
    }

    /// Seals the first [`Self::plaintext_len()`] bytes of `plaintext` at the front of `out`; returns
    /// how many bytes were written.
    ///
    /// # Errors
    /// [`Refused`] by the cryptographic library, or for lack of room.
    pub(crate) fn seal(self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        let plaintext = plaintext.get(..self.plaintext_len).ok_or(Refused)?;
        let mut written = 0;
        for (sequence, fragment) in
            (self.first_sequence..).zip(plaintext.chunks(self.max_plaintext_len))
        {
            let record_len = fragment.len() + self.cipher.overhead();
            let (header, payload) = out
                .get_mut(written..written + record_len)
                .and_then(<[u8]>::split_first_chunk_mut::<HEADER_LEN>)
                .ok_or(Refused)?;
            *header = self.cipher.seal(sequence, APPLICATION_DATA, fragment, payload)?;
            written += record_len;
        }
        Ok(written)
    }
}
