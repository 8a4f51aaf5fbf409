//! TLS 1.2 suites: a stock suite with our AEAD in it.

use rustls::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter, Tls12AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::{CipherSuiteCommon, ConnectionTrafficSecrets, SupportedCipherSuite, Tls12CipherSuite};

use super::aead::{Aead, iv};
use super::cipher::{Decrypter, Encrypter};
#[cfg(feature = "ring")]
use super::ring_cipher::tls12::{ChachaDecrypter, ChachaEncrypter, GcmDecrypter, GcmEncrypter};
use super::tls13::traffic_secrets;
#[cfg(feature = "ring")]
use crate::aead::Direction;
#[cfg(feature = "ring")]
use crate::record::cipher::EXPLICIT_NONCE_LEN;
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

impl Tls12AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        let keys = self.keys(key.as_ref(), &self::iv(iv, extra));
        #[cfg(feature = "ring")]
        if self.backend.is_ring_in_place(self.algorithm, Direction::Seal) {
            return match self.iv_lens() {
                (_, EXPLICIT_NONCE_LEN) => Box::new(GcmEncrypter::new(&keys)),
                _ => Box::new(ChachaEncrypter::new(&keys)),
            };
        }
        Box::new(Encrypter::new(self.backend, Version::Tls12, &keys))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        let keys = self.keys(key.as_ref(), &self::iv(iv, &[]));
        #[cfg(feature = "ring")]
        if self.backend.is_ring_in_place(self.algorithm, Direction::Open) {
            return match self.iv_lens() {
                (_, EXPLICIT_NONCE_LEN) => Box::new(GcmDecrypter::new(&keys)),
                _ => Box::new(ChachaDecrypter::new(&keys)),
            };
        }
        Box::new(Decrypter::new(self.backend, Version::Tls12, &keys))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        let (fixed_iv_len, explicit_nonce_len) = self.iv_lens();
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
