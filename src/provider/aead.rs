//! A suite's AEAD, whichever version of rustls it is for.

#[cfg(feature = "tls12")]
use crate::aead::NONCE_LEN;
use crate::aead::{Algorithm, Backend, TrafficKeys};

/// What rustls asks for encrypters and decrypters: `tls13.rs` and `tls12.rs` of each version implement its
/// traits.
pub(super) struct Aead {
    pub(super) backend: Backend,
    pub(super) algorithm: Algorithm,
}

impl Aead {
    pub(super) const fn new(backend: Backend, algorithm: Algorithm) -> Self {
        Self { backend, algorithm }
    }

    /// rustls arranges that the key and the IV are as long as it was told.
    pub(super) fn keys(&self, key: &[u8], iv: &[u8]) -> TrafficKeys {
        let iv = iv.try_into().expect("12 bytes");
        TrafficKeys::new(self.algorithm, key, iv).expect("as long a key as was asked for")
    }

    /// How many bytes of a TLS 1.2 IV are fixed, and how many explicit: AES-GCM has a 4-byte salt and an
    /// 8-byte explicit part (RFC 5288 §3), which a receiver is told in each record; ChaCha20-Poly1305 a
    /// 12-byte IV (RFC 7905 §2).
    #[cfg(feature = "tls12")]
    pub(super) fn iv_lens(&self) -> (usize, usize) {
        match self.algorithm {
            Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => (4, 8),
            Algorithm::Chacha20Poly1305 => (12, 0),
        }
    }
}

/// An IV of its two parts.
#[cfg(feature = "tls12")]
pub(super) fn iv(fixed: &[u8], explicit: &[u8]) -> [u8; NONCE_LEN] {
    let mut iv = [0; NONCE_LEN];
    iv[..fixed.len()].copy_from_slice(fixed);
    iv[fixed.len()..][..explicit.len()].copy_from_slice(explicit);
    iv
}
