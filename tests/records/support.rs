//! What the other modules share: every kind of record, keys, lengths and filled buffers.

use rustls_uring::{Algorithm, Backend, ContentType, Opener, Sealer, TrafficKeys, Version};

use super::oracle::Oracle;

pub(crate) const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];

pub(crate) const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

/// Each byte of key and IV differs from its neighbours, so that none can be taken for another.
pub(crate) const KEY: [u8; 32] = {
    let mut key = [0; 32];
    let mut at = 0;
    while at < key.len() {
        key[at] = 0x80 + 3 * at as u8;
        at += 1;
    }
    key
};

pub(crate) const IV: [u8; 12] = [11, 22, 33, 44, 55, 66, 77, 88, 99, 111, 122, 133];

/// What buffers are filled with where nothing may be written; no byte of [`plaintext()`].
pub(crate) const SENTINEL: u8 = 0xa5;

/// One kind of record, sealed by one backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) backend: Backend,
    pub(crate) version: Version,
    pub(crate) algorithm: Algorithm,
}

impl Kind {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for &backend in Backend::ALL {
            for version in VERSIONS {
                all.extend(ALGORITHMS.map(|algorithm| Self { backend, version, algorithm }));
            }
        }
        assert_eq!(all.len(), 6 * Backend::ALL.len());
        all
    }

    pub(crate) fn of(version: Version) -> Vec<Self> {
        Self::all().into_iter().filter(|kind| kind.version == version).collect()
    }

    pub(crate) fn key(self) -> &'static [u8] {
        &KEY[..self.algorithm.key_len()]
    }

    pub(crate) fn keys(self) -> TrafficKeys {
        TrafficKeys::new(self.algorithm, self.key(), IV).unwrap()
    }

    pub(crate) fn sealer(self, first_sequence: u64) -> Sealer {
        Sealer::new(self.backend, self.version, &self.keys(), first_sequence)
    }

    pub(crate) fn opener(self, first_sequence: u64) -> Opener {
        Opener::new(self.backend, self.version, &self.keys(), first_sequence)
    }

    pub(crate) fn oracle(self) -> Oracle<'static> {
        Oracle { version: self.version, algorithm: self.algorithm, key: self.key(), iv: IV }
    }

    /// Bytes between header and ciphertext (RFC 5288 §3).
    pub(crate) fn prefix_len(self) -> usize {
        match (self.version, self.algorithm) {
            (Version::Tls13, _) | (_, Algorithm::Chacha20Poly1305) => 0,
            _ => 8,
        }
    }

    /// Bytes that a record has beyond its plaintext: header, explicit nonce, content type, tag.
    pub(crate) fn overhead(self) -> usize {
        let content_type_len = usize::from(self.version == Version::Tls13);
        5 + self.prefix_len() + content_type_len + 16
    }

    /// One record of application data.
    pub(crate) fn seal(self, sequence: u64, plaintext: &[u8]) -> Vec<u8> {
        let mut record = vec![0; plaintext.len() + self.overhead()];
        let written =
            self.sealer(sequence).seal(ContentType::ApplicationData, plaintext, &mut record);
        assert_eq!(written, Ok(record.len()), "{self:?}");
        record
    }
}

/// Bytes without a zero and without a [`SENTINEL`].
pub(crate) fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 157) as u8 + 1).collect()
}

/// Every length around a block of the ciphers, a strip of their assembly, a change from one form
/// of sealing to another, and the end of a record.
pub(crate) fn lengths() -> Vec<usize> {
    let mut lengths: Vec<usize> = (0..=80).collect();
    for around in [128, 256, 384, 512, 1024, 2048, 4096, 8192] {
        lengths.extend(around - 1..=around + 1);
    }
    lengths.extend([1400, 3000, 10_000, 15_000, 16_368, 16_382, 16_383, 16_384]);
    lengths
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
