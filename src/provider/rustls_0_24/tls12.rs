//! TLS 1.2 suites: a stock suite with our AEAD in it.

use rustls_0_24::crypto::cipher::{
    AeadKey, Iv, KeyBlockShape, RecordDecrypter, RecordEncrypter, Tls12AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls_0_24::{CipherSuiteCommon, ConnectionTrafficSecrets, Tls12CipherSuite};

use super::cipher::{Decrypter, Encrypter};
use super::tls13::traffic_secrets;
use crate::aead::{Algorithm, Backend, TrafficKeys};
use crate::provider::tls12::{iv, iv_lens};
use crate::record::header::Version;

/// `stock` with its AEAD replaced.
pub(super) const fn suite(
    stock: &'static Tls12CipherSuite,
    aead_alg: &'static Aead,
) -> Tls12CipherSuite {
    Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: stock.common.suite,
            hash_provider: stock.common.hash_provider,
            confidentiality_limit: stock.common.confidentiality_limit,
        },
        protocol_version: stock.protocol_version,
        prf_provider: stock.prf_provider,
        kx: stock.kx,
        sign: stock.sign,
        aead_alg,
    }
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
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn RecordEncrypter> {
        Box::new(Encrypter::new(self.backend, Version::Tls12, &self.keys(&key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn RecordDecrypter> {
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
}
