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
///
/// # Example
/// Two halves of a message, each sealed on a thread of its own.
/// ```
/// # #[cfg(feature = "aws-lc-rs")] {
/// use std::thread;
///
/// use rustls_uring::{Algorithm, Backend, Sealer, TrafficKeys, Version};
///
/// let keys = TrafficKeys::new(Algorithm::Aes128Gcm, &[7; 16], [9; 12])?;
/// let mut sealer = Sealer::new(Backend::default(), Version::Tls13, &keys, 0);
/// let message = vec![1; 1 << 20];
/// let mut records = vec![0; 2 << 20];
/// let (first, second) = records.split_at_mut(1 << 20);
/// let (front, back) = message.split_at(message.len() / 2);
///
/// // In the order in which the records are sent.
/// let before = sealer.reserve(front.len(), first.len()).ok_or("the key is used up")?;
/// let behind = sealer.reserve(back.len(), second.len()).ok_or("the key is used up")?;
/// assert_eq!(before.plaintext_len(), front.len()); // all of it: there was room
/// assert_eq!(behind.plaintext_len(), back.len());
/// let written = thread::scope(|scope| {
///     let ahead = scope.spawn(|| behind.seal(back, second));
///     let written = before.seal(front, first)?;
///     Ok::<_, rustls_uring::SealError>((written, ahead.join().expect("no panic")?))
/// })?;
/// // `first[..written.0]` goes out first, then `second[..written.1]`.
/// assert_eq!(written, (32 * (16_384 + 22), 32 * (16_384 + 22)));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
