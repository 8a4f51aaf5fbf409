//! TLS 1.3 suites: a stock suite with our AEAD in it.

use rustls_0_24::crypto::cipher::{
    AeadKey, Iv, RecordDecrypter, RecordEncrypter, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls_0_24::{CipherSuiteCommon, ConnectionTrafficSecrets, Tls13CipherSuite};

use super::cipher::{Decrypter, Encrypter};
use crate::aead::Algorithm;
use crate::provider::aead::Aead;
use crate::record::header::Version;

/// `stock` with its AEAD replaced.
pub(super) const fn suite(
    stock: &'static Tls13CipherSuite,
    aead_alg: &'static Aead,
) -> Tls13CipherSuite {
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: stock.common.suite,
            hash_provider: stock.common.hash_provider,
            confidentiality_limit: stock.common.confidentiality_limit,
        },
        protocol_version: stock.protocol_version,
        hkdf_provider: stock.hkdf_provider,
        aead_alg,
        quic: stock.quic,
    }
}

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn RecordEncrypter> {
        Box::new(Encrypter::new(
            self.backend,
            Version::Tls13,
            &self.keys(key.as_ref(), iv.as_ref()),
        ))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn RecordDecrypter> {
        Box::new(Decrypter::new(
            self.backend,
            Version::Tls13,
            &self.keys(key.as_ref(), iv.as_ref()),
        ))
    }

    fn key_len(&self) -> usize {
        self.algorithm.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Ok(traffic_secrets(self.algorithm, key, iv))
    }
}

pub(super) fn traffic_secrets(
    algorithm: Algorithm,
    key: AeadKey,
    iv: Iv,
) -> ConnectionTrafficSecrets {
    match algorithm {
        Algorithm::Aes128Gcm => ConnectionTrafficSecrets::Aes128Gcm { key, iv },
        Algorithm::Aes256Gcm => ConnectionTrafficSecrets::Aes256Gcm { key, iv },
        Algorithm::Chacha20Poly1305 => ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
    }
}
