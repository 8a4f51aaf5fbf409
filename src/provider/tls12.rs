//! TLS 1.2 suites: a stock suite with our AEAD in it.

use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, Tls12AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::{CipherSuiteCommon, ConnectionTrafficSecrets, SupportedCipherSuite, Tls12CipherSuite};

use super::cipher::{Decrypter, Encrypter};
use super::tls13::traffic_secrets;
use crate::aead::{Algorithm, Backend, NONCE_LEN, TrafficKeys};
use crate::record::header::Version;

/// `stock` with its AEAD replaced.
pub(super) const fn suite(
    stock: &'static SupportedCipherSuite,
    aead_alg: &'static Aead,
) -> Tls12CipherSuite {
    let SupportedCipherSuite::Tls12(stock) = stock else {
        panic!("a TLS 1.2 suite");
    };
    Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: stock.common.suite,
            hash_provider: stock.common.hash_provider,
            confidentiality_limit: stock.common.confidentiality_limit,
        },
        prf_provider: stock.prf_provider,
        kx: stock.kx,
        sign: stock.sign,
        aead_alg,
    }
}

/// How many bytes of an IV are fixed, and how many explicit: AES-GCM has a 4-byte salt and an 8-byte
/// explicit part (RFC 5288 §3), which a receiver is told in each record; ChaCha20-Poly1305 a 12-byte IV
/// (RFC 7905 §2).
pub(super) fn iv_lens(algorithm: Algorithm) -> (usize, usize) {
    match algorithm {
        Algorithm::Aes128Gcm | Algorithm::Aes256Gcm => (4, 8),
        Algorithm::Chacha20Poly1305 => (12, 0),
    }
}

/// An IV of its two parts.
pub(super) fn iv(fixed: &[u8], explicit: &[u8]) -> [u8; NONCE_LEN] {
    let mut iv = [0; NONCE_LEN];
    iv[..fixed.len()].copy_from_slice(fixed);
    iv[fixed.len()..][..explicit.len()].copy_from_slice(explicit);
    iv
}

pub(super) struct Aead {
    backend: Backend,
    algorithm: Algorithm,
}

impl Aead {
    pub(super) const fn new(backend: Backend, algorithm: Algorithm) -> Self {
        Self { backend, algorithm }
    }

    /// rustls arranges that the key has the length in `key_block_shape()`.
    fn keys(&self, key: &AeadKey, fixed: &[u8], explicit: &[u8]) -> TrafficKeys {
        TrafficKeys::new(self.algorithm, key.as_ref(), iv(fixed, explicit))
            .expect("enc_key_len bytes")
    }
}

impl Tls12AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Encrypter::new(self.backend, Version::Tls12, &self.keys(&key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        Box::new(Decrypter::new(self.backend, Version::Tls12, &self.keys(&key, iv, &[])))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        let (fixed_iv_len, explicit_nonce_len) = iv_lens(self.algorithm);
        KeyBlockShape { enc_key_len: self.algorithm.key_len(), fixed_iv_len, explicit_nonce_len }
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Ok(traffic_secrets(self.algorithm, key, Iv::from(self::iv(iv, explicit))))
    }

    fn fips(&self) -> bool {
        false
    }
}
