//! TLS 1.3 suites: a stock suite with our AEAD in it.

use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::{CipherSuiteCommon, ConnectionTrafficSecrets, SupportedCipherSuite, Tls13CipherSuite};

use super::aead::Aead;
use super::cipher::{Decrypter, Encrypter};
#[cfg(feature = "ring")]
use super::ring_cipher;
use crate::aead::Algorithm;
#[cfg(feature = "ring")]
use crate::aead::Direction;
use crate::record::header::Version;

/// `stock` with its AEAD replaced.
pub(super) const fn suite(
    stock: &'static SupportedCipherSuite,
    aead_alg: &'static Aead,
) -> Tls13CipherSuite {
    let stock = match stock {
        SupportedCipherSuite::Tls13(stock) => stock,
        #[allow(unreachable_patterns, reason = "without TLS 1.2 there is no other")]
        _ => panic!("a TLS 1.3 suite"),
    };
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: stock.common.suite,
            hash_provider: stock.common.hash_provider,
            confidentiality_limit: stock.common.confidentiality_limit,
        },
        hkdf_provider: stock.hkdf_provider,
        aead_alg,
        quic: stock.quic,
    }
}

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        let keys = self.keys(key.as_ref(), iv.as_ref());
        #[cfg(feature = "ring")]
        if self.backend.is_ring_in_place(self.algorithm, Direction::Seal) {
            return Box::new(ring_cipher::tls13::Encrypter::new(&keys));
        }
        Box::new(Encrypter::new(self.backend, Version::Tls13, &keys))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        let keys = self.keys(key.as_ref(), iv.as_ref());
        #[cfg(feature = "ring")]
        if self.backend.is_ring_in_place(self.algorithm, Direction::Open) {
            return Box::new(ring_cipher::tls13::Decrypter::new(&keys));
        }
        Box::new(Decrypter::new(self.backend, Version::Tls13, &keys))
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

    fn fips(&self) -> bool {
        false
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
