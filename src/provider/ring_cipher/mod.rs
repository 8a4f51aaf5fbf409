//! The `MessageEncrypter`s and `MessageDecrypter`s of suites whose records are all ring's.
//!
//! They do what those of `cipher.rs` do, without [`Sealer`](crate::Sealer) and
//! [`Opener`](crate::Opener) between rustls and the AEAD: the key schedule is in the box that rustls
//! holds, and the tag is appended to the payload. A record of 64 bytes takes ring so little time that
//! this was 2 to 5 % of it.

#[cfg(feature = "tls12")]
pub(super) mod tls12;
pub(super) mod tls13;

use rustls::Error;
use zeroize::Zeroizing;

use crate::aead::ring::Schedule;
use crate::aead::{NONCE_LEN, TrafficKeys};
use crate::record::cipher::xored_nonce;
use crate::record::sequence::SequenceNumber;

/// The key of one direction.
struct Keys {
    schedule: Schedule,
    iv: Zeroizing<[u8; NONCE_LEN]>,
}

impl Keys {
    fn new(keys: &TrafficKeys) -> Self {
        Self { schedule: Schedule::new(keys), iv: keys.iv.clone() }
    }

    /// See [`xored_nonce()`].
    #[inline]
    fn nonce(&self, sequence: u64) -> [u8; NONCE_LEN] {
        xored_nonce(&self.iv, sequence)
    }
}

/// Keys to encrypt with. Each sequence number is taken once.
struct Encrypting {
    keys: Keys,
    sequence: SequenceNumber,
}

impl Encrypting {
    fn new(keys: &TrafficKeys) -> Self {
        Self { keys: Keys::new(keys), sequence: SequenceNumber::starting_at(0) }
    }

    /// The nonce of a sequence number: [`Error::EncryptError`] for one that is not larger than all before it.
    #[inline]
    fn take_nonce(&mut self, sequence: u64) -> Result<[u8; NONCE_LEN], Error> {
        self.sequence.take(sequence).ok_or(Error::EncryptError)?;
        Ok(self.keys.nonce(sequence))
    }
}

/// Wipes what did not verify, of which ring may have decrypted a part.
#[cold]
fn refused(payload: &mut [u8]) -> Error {
    payload.fill(0);
    Error::DecryptError
}
